#!/bin/sh
# The rules of the source tree, checked by programs: prints "ok NAME" or the
# findings and "not ok NAME" for each.
cd "$(dirname "$0")/../.." || exit 1
status=0

check() { # name, command...
    name=$1
    shift
    if findings=$("$@" 2>&1); then
        echo "ok lint: $name"
    else
        printf '%s\n' "$findings" | head -n 40
        echo "not ok lint: $name"
        status=1
    fi
}

format() {
    git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs clang-format --dry-run -Werror
}

check "folders include only what the law allows" python3 tests/lint/layers.py .
check "length of functions and files, banned calls, words" python3 tests/lint/source.py .
check "every header compiles alone" sh tests/lint/headers.sh
check "paths and options that READMEs name" python3 tests/lint/readme.py .
check "the demo preference set" python3 tests/lint/demo_data.py deploy/demo/data
if command -v systemd-analyze >/dev/null; then
    check "systemd units" sh tests/lint/units.sh
else
    echo "skip lint: systemd units: there is no systemd-analyze"
fi
# Every release of clang-format lays code out a little differently.
if clang-format --version | grep -q 'version 14\.'; then
    check "format" format
else
    echo "skip lint: format: needs clang-format 14"
fi
exit $status
