#!/bin/sh
# the coordinator's policy over 10,000 simulated workers and 1,000,000 jobs, with failures
#
# WORKERS, JOBS, SWEEPS, SEED.  Everything a step touches is checked after it; all of the world after
# every 200,000 steps and at the end.
set -eu
ninja -C "$HA_BUILD" tests/sim/simulate >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
"$HA_BUILD/tests/sim/simulate" --workers "${WORKERS:-10000}" --jobs "${JOBS:-1000000}" \
    --sweeps "${SWEEPS:-64}" --seed "${SEED:-1}" --check-every 200000 | tee "$HA_BUILD.log"
sed -n 's/^steps .*: \([0-9]*\) steps.*/simulate value \1 steps\/s/p' "$HA_BUILD.log"
