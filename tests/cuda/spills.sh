#!/bin/sh
# The build compiles kernels so that spilled registers are errors; here is one that must
# be refused, and for that reason.
#
#   spills.sh SPILLING.cu NVCC FLAG...
source=$1
shift
object=$(mktemp)
trap 'rm -f "$object"' EXIT
if text=$("$@" -arch=sm_90 -c "$source" -o "$object" 2>&1); then
    echo "a kernel that spills was compiled"
    exit 1
fi
printf '%s\n' "$text" | grep 'Registers are spilled' || { printf '%s\n' "$text"; exit 1; }
