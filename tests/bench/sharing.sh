#!/bin/sh
# the prompt of a pair computed once against twice: as packing, both sides packed
set -eu
exec sh tests/bench/packing.sh sharing
