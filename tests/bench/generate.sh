#!/bin/sh
# 256 prompts x 64 tokens x 5 variants of a 20M model, against Transformers + PEFT on the CPU
#
# HA_ORACLE_PYTHON names a Python with the oracles, HA_TEST_DATA the folder that has hh-rlhf.
# HA_BENCH_PROMPTS: 256.  HA_BENCH_BY: wall or processor, the time that the ratio is of (wall).
# HA_THREADS: 2, for both sides.  Transformers needs some minutes for it on two cores.
set -eu
: "${HA_TEST_DATA:?names the folder that has hh-rlhf/; set it}"
for python in ${HA_ORACLE_PYTHON:-build-oracle/bin/python3 python3}; do
    "$python" -c 'import peft' 2>/dev/null && break
    python=
done
if [ -z "$python" ]; then
    echo "tests/bench/generate.sh: no Python with peft; set HA_ORACLE_PYTHON to one, or run" \
        "sh tests/golden/make.sh, which makes build-oracle" >&2
    exit 2
fi
ninja -C "$HA_BUILD" ha-attempt >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
export OMP_NUM_THREADS="${HA_THREADS:-2}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "$python" tests/bench/generate_compare.py --program "$HA_BUILD/ha-attempt" \
    --data "$HA_TEST_DATA/hh-rlhf/helpful-base/test.jsonl.gz" \
    --prompts "${HA_BENCH_PROMPTS:-256}" --threads "${HA_THREADS:-2}" --by "${HA_BENCH_BY:-wall}"
