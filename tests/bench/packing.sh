#!/bin/sh
# packed against padded: passes of a 20M model over hh-rlhf pairs in micro-batches of 6
#
# HA_ORACLE_PYTHON names a Python that can make the model, HA_TEST_DATA the folder that has hh-rlhf.
# HA_BENCH_PAIRS: 96.
set -eu
name=${1:-packing}
: "${HA_TEST_DATA:?names the folder that has hh-rlhf/; set it}"
ninja -C "$HA_BUILD" tests/bench/bench_pass >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
data=$HA_TEST_DATA/hh-rlhf/helpful-base/test.jsonl.gz
"${HA_ORACLE_PYTHON:-build-oracle/bin/python3}" tests/bench/small_model.py --texts "$data" \
    --out "$work/model" 2>"$work/log" || { tail -n 1 "$work/log" >&2; exit 1; }
"$HA_BUILD/tests/bench/bench_pass" "$name" "$work/model" "$data" "${HA_BENCH_PAIRS:-96}"
