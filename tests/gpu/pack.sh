#!/bin/sh
# Puts all that tests/gpu/run.sh needs into a folder that runs on another machine with a
# GPU, its driver and cuBLASLt, but without compilers and development packages.
#
#   sh tests/gpu/pack.sh FOLDER [BUILD]       BUILD is made (build/gpu) where it is not given
set -eu
folder=${1:?usage: sh tests/gpu/pack.sh FOLDER [BUILD]}
cd "$(dirname "$0")/../.."
build=${2:-build/gpu}
. tests/gpu/programs.sh
if [ $# -lt 2 ]; then
    [ -f "$build/build.ninja" ] || meson setup "$build" -Dcuda=enabled -Dbuildtype=debugoptimized >/dev/null
    # shellcheck disable=SC2086
    ninja -C "$build" ha-kernels-cuda.so $programs >/dev/null
fi
mkdir -p "$folder/lib"
for file in ha-kernels-cuda.so $programs; do
    cp "$build/$file" "$folder/$(basename "$file")"
    strip --strip-debug "$folder/$(basename "$file")"
done
cp tests/gpu/run.sh tests/gpu/programs.sh "$folder"
# Shared libraries that a bare machine lacks; those of the system, the driver and cuBLASLt are its own.
for file in "$folder"/test_* "$folder"/bench_*; do
    ldd "$file" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[^/]*)\.so' |
    while read -r library; do cp -L "$library" "$folder/lib/"; done
du -sh "$folder" | sed 's/\t.*/ in all/'
