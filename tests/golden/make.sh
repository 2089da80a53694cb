#!/bin/sh
# Make all golden files again: sh tests/golden/make.sh [arguments of make_goldens.py]
#
# HA_ORACLE_PYTHON names a Python that has the oracles; without it they are installed into
# build-oracle/ from the package index that pip is set up for. Wherever the oracles cannot be had,
# or are of another version than requirements.txt says, this fails: there is no skipping here.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/build-oracle

fail() {
    echo "make.sh: $1" >&2
    exit 1
}

if [ -n "${HA_ORACLE_PYTHON:-}" ]; then
    python=$HA_ORACLE_PYTHON
else
    python=$venv/bin/python3
    [ -x "$python" ] || python3 -m venv "$venv" || fail "no virtual environment in $venv"
    "$python" -m pip install -q -r "$here/requirements.txt" ||
        fail "the oracles of requirements.txt could not be installed; no golden file was made"
fi

"$python" -c 'import torch, transformers, trl, peft, tokenizers, datasets' ||
    fail "$python cannot import the oracles; no golden file was made"
exec "$python" "$here/make_goldens.py" "$@"
