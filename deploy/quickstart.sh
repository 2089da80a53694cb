#!/bin/sh
# From a clone to the tables of the demo grid: installs what is missing, builds,
# runs deploy/demo/grid.toml (4 small models x 5 strategies) and shows the
# results.  Run again, it finishes at once from what is there.
#
#   sh deploy/quickstart.sh
#
# The demo's judge is a small server of text statistics, not a language model;
# a real endpoint is two lines in the grid.  No GPU and no network are needed
# once the packages are installed.
set -eu
cd "$(dirname "$0")/.."

step() {
    printf '\n== %s\n' "$1"
}

step "Looking for missing packages"
sh deploy/dependencies.sh

step "Building (build/release)"
if [ ! -f build/release/build.ninja ]; then
    mkdir -p build
    # A newer compiler's new warnings are for the tests to stop at, not for a user's build.
    meson setup build/release --buildtype=release -Dwerror=false -Dtests=false >build/release.log 2>&1 || {
        tail -n 20 build/release.log >&2
        exit 1
    }
fi
ninja -C build/release

step "Running the demo grid (follow it from a second terminal: build/release/hactl status --watch)"
build/release/hactl run deploy/demo/grid.toml

step "Results"
build/release/hactl results --dir runs/demo
echo
echo "The report is runs/demo/report/report.md; the answers: build/release/hactl show --dir runs/demo qwen3-demo/mid --prompt 0"
