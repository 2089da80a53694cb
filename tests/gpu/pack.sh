#!/bin/sh
# Puts all that tests/gpu/run.sh needs into a folder that runs on another machine with a
# GPU, its driver and cuBLASLt, but without compilers, development packages and network.
# PyTorch is too large to be carried: the other sides are measured where that machine has it.
#
#   sh tests/gpu/pack.sh FOLDER [BUILD] [WHEEL ...]
#
# BUILD is made (build/gpu) where it is not given.  Wheels, such as TRL's, go along.
set -eu
folder=${1:?usage: sh tests/gpu/pack.sh FOLDER [BUILD] [WHEEL ...]}
shift
mkdir -p "$folder/lib"
folder=$(cd "$folder" && pwd)
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$source/build/gpu
. "$source/tests/gpu/programs.sh"
if [ $# -gt 0 ]; then
    build=$1
    shift
else
    [ -f "$build/build.ninja" ] || meson setup "$build" "$source" -Dcuda=enabled -Dbuildtype=debugoptimized >/dev/null
    # shellcheck disable=SC2086
    ninja -C "$build" ha-kernels-cuda.so $programs >/dev/null
fi
for file in ha-kernels-cuda.so $programs; do
    cp "$build/$file" "$folder/$(basename "$file")"
    strip --strip-debug "$folder/$(basename "$file")"
done
cp "$source/tests/gpu/run.sh" "$source/tests/gpu/programs.sh" "$folder"
for file in $scripts; do cp "$source/$file" "$folder"; done
for family in $families; do
    mkdir -p "$folder/golden/$family" "$folder/models"
    cp -r "$source/deploy/demo/models/$family" "$folder/models/"
    (cd "$source/tests/golden/$family" && cp -r dpo.json bf16.json adapter-zero "$folder/golden/$family/")
done
for wheel in "$@"; do
    mkdir -p "$folder/wheels"
    cp "$wheel" "$folder/wheels"
done
# Shared libraries that a bare machine lacks; those of the system, the driver and cuBLASLt are its own.
for file in $programs; do
    ldd "$folder/$(basename "$file")" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[^/]*)\.so' |
    while read -r library; do cp -L "$library" "$folder/lib/"; done
du -sh "$folder" | sed 's/\t.*/ in all/'
