#!/bin/sh
# What run.sh does with a finding, shown with a target that fails on purpose: it ends with 1, says
# "not ok", and keeps and names the input, with which it happens again.
set -u
cd "$(dirname "$0")/../.." || exit 1
said=$(sh tests/fuzz/run.sh --seconds 60 planted)
status=$?
again=$(echo "$said" | sed -n 's/^# again: //p')

fail() {
    echo "not ok fuzz: a planted fault: $1"
    echo "$said"
    exit 1
}

[ $status -eq 1 ] || fail "run.sh ends with $status"
echo "$said" | tail -n 1 | grep -q '^not ok fuzz: planted: [1-9][0-9]* runs, .* 1 finding' || fail "what it says"
echo "$said" | grep -q 'planted.c:.*does not hold' || fail "it does not say what failed"
input=${again#* }
[ -s "$input" ] && [ "$(head -c 3 "$input")" = bug ] || fail "its input is not kept"
# shellcheck disable=SC2086
$again >/dev/null 2>&1 && fail "with its input it does not happen again"
echo "ok fuzz: a planted fault is told, ends with 1, and its input is kept"
