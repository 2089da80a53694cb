#!/bin/sh
# DPO of a 20M model on 512 hh-rlhf pairs, one strategy, against TRL + PEFT on the CPU
#
# HA_ORACLE_PYTHON names a Python with the oracles, HA_TEST_DATA the folder that has hh-rlhf.
# HA_BENCH_PAIRS: 512.  HA_BENCH_PEER_PAIRS: for TRL and the ratio, even by length (all).
# HA_BENCH_BY: wall or processor, the time that the ratio is of (wall).
# HA_THREADS: 2, for both sides.  TRL needs about half an hour for it on two cores.
set -eu
name=${1:-dpo-one}
: "${HA_TEST_DATA:?names the folder that has hh-rlhf/; set it}"
for python in ${HA_ORACLE_PYTHON:-build-oracle/bin/python3 python3}; do
    "$python" -c 'import trl' 2>/dev/null && break
    python=
done
if [ -z "$python" ]; then
    echo "tests/bench/dpo-one.sh: no Python with trl; set HA_ORACLE_PYTHON to one, or run" \
        "sh tests/golden/make.sh, which makes build-oracle" >&2
    exit 2
fi
ninja -C "$HA_BUILD" ha-attempt >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
export OMP_NUM_THREADS="${HA_THREADS:-2}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "$python" tests/bench/dpo_compare.py --name "$name" --program "$HA_BUILD/ha-attempt" \
    --data "$HA_TEST_DATA/hh-rlhf/helpful-base/test.jsonl.gz" \
    --strategies "${HA_BENCH_STRATEGIES:-full}" --pairs "${HA_BENCH_PAIRS:-512}" \
    --peer-pairs "${HA_BENCH_PEER_PAIRS:-${HA_BENCH_PAIRS:-512}}" \
    --threads "${HA_THREADS:-2}" --by "${HA_BENCH_BY:-wall}"
