#!/bin/sh
# Installs the distribution's packages that are missing.
#
#   sh deploy/dependencies.sh           what a build needs
#   sh deploy/dependencies.sh tests     what the tests need as well
#   sh deploy/dependencies.sh fuzz      the same and what the fuzz targets need
#
# Nothing is asked and no network is used when nothing is missing.  Exit code 2
# with the one command to run when packages are missing and cannot be installed
# by this user.
set -eu

packages="gcc g++ meson ninja-build pkg-config libzmq3-dev libprotobuf-c-dev protobuf-c-compiler
libsqlite3-dev libcurl4-openssl-dev libjansson-dev libpcre2-dev libutf8proc-dev
libtomlplusplus-dev libmicrohttpd-dev zlib1g-dev ca-certificates"
case ${1:-} in
tests | fuzz) packages="$packages libcmocka-dev libopenblas-dev clang-format python3 git sqlite3 curl procps" ;;
esac
[ "${1:-}" = fuzz ] && packages="$packages clang-14 libclang-rt-14-dev"

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "This is not Debian or Ubuntu; here the build is untested. It needs: gcc, meson >= 1.0, ninja and the" \
         "development files of libzmq, protobuf-c, SQLite, libcurl, jansson, PCRE2, utf8proc," \
         "toml++, libmicrohttpd, zlib." >&2
    exit 0
fi
. /etc/os-release
case "$ID-${VERSION_ID:-}" in
debian-12 | ubuntu-24.04) ;;
*) echo "Tested on Debian 12 and Ubuntu 24.04; $PRETTY_NAME is untested." >&2 ;;
esac

missing=
for package in $packages; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }; then
    as_root=sudo
else
    echo "Packages are missing and this user may not install them. Run this as root, then start again:" >&2
    echo "  apt-get update && $install" >&2
    exit 2
fi
echo "Installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086
if ! { $as_root apt-get update && $as_root $install; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "The packages could not be installed. Mend what apt says above, or run: apt-get update && $install" >&2
    exit 2
fi
rm -f "$log"
