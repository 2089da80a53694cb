#!/bin/sh
# Compare a built ha-attempt with Transformers, PEFT, TRL and tokenizers, live; ends with
# "N passed, N failed" alone on a line.
#
#   sh tests/oracle/run.sh                 everything
#   sh tests/oracle/run.sh CHECK ...       some of: tokenize pairs chat forward adapters merge dpo
#                                          losses dropout probe processors generate shapes
#
# HA_BUILD          folder with the programs (default: build/test, built if it is not there)
# HA_TEST_DATA      folder with hh-rlhf and the published tokenizers; without it their place is
#                   taken by the demo data and the demo models' tokenizers
# HA_ORACLE_PYTHON  a Python that has the oracles; without it they are installed into build-oracle/
#                   from the package index that pip is set up for
#
# Wherever the oracles cannot be had, or are of another version than tests/golden/requirements.txt
# says, this fails and says so: there is no skipping here.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$(pwd)
requirements=$root/tests/golden/requirements.txt
checks=${*:-tokenize pairs chat forward adapters merge dpo losses dropout probe processors generate shapes}

fail() {
    echo "run.sh: $1" >&2
    exit 1
}

for check in $checks; do
    [ -f "tests/oracle/check_$check.py" ] || fail "there is no check named $check"
done

if [ -n "${HA_ORACLE_PYTHON:-}" ]; then
    python=$HA_ORACLE_PYTHON
else
    python=$root/build-oracle/bin/python3
    [ -x "$python" ] || python3 -m venv "$root/build-oracle" ||
        fail "no virtual environment in build-oracle/; nothing was compared"
    "$python" -m pip install -q -r "$requirements" ||
        fail "the oracles of $requirements could not be installed; nothing was compared"
fi
"$python" tests/oracle/versions.py "$requirements" ||
    fail "$python does not have the pinned oracles; nothing was compared"

build=${HA_BUILD:-$root/build/test}
[ -f "$build/build.ninja" ] || meson setup "$build" "$root" >/dev/null ||
    fail "meson could not set up $build"
ninja -C "$build" ha-attempt tests/oracle/next_token tests/oracle/pair_ids tests/gpu/shape_model >/dev/null ||
    fail "ha-attempt and its helpers could not be built in $build"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/ha-oracle-XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1 TQDM_DISABLE=1

for check in $checks; do
    echo "== $check"
    "$python" "tests/oracle/check_$check.py" --program "$build/ha-attempt" \
        --results "$scratch/$check.jsonl" ||
        echo "{\"check\": \"$check: the script ended early\", \"failed\": 1}" \
            >>"$scratch/$check.jsonl"
done
cat "$scratch"/*.jsonl | "$python" tests/oracle/table.py
