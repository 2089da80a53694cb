#!/bin/sh
# the four strategies of a model in one job against four jobs, training alone, on hh-rlhf pairs
#
# Settings as dpo-one.sh says; HA_BENCH_PAIRS: 192.
set -eu
: "${HA_TEST_DATA:?names the folder that has hh-rlhf/; set it}"
ninja -C "$HA_BUILD" ha-attempt >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
exec "${HA_ORACLE_PYTHON:-build-oracle/bin/python3}" tests/bench/lockstep_compare.py \
    --program "$HA_BUILD/ha-attempt" --data "$HA_TEST_DATA/hh-rlhf/helpful-base/test.jsonl.gz" \
    --pairs "${HA_BENCH_PAIRS:-192}" --threads "${HA_THREADS:-2}" --by "${HA_BENCH_BY:-wall}"
