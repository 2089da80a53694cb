#!/bin/sh
# The systemd units against systemd's own rules.  The programs need not be installed: their place is
# taken by one that is.
cd "$(dirname "$0")/../.." || exit 1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
status=0
for unit in deploy/systemd/*.service; do
    program=$(sed -n 's|^ExecStart=/usr/local/bin/\([^ ]*\) .*|\1|p' "$unit")
    if ! git grep -q "'$program'" -- '*meson.build'; then
        echo "$unit: ExecStart names no program of ours: '$program'"
        status=1
    fi
    # A template is looked at by an instance of it.
    sed 's|^ExecStart=/usr/local/bin/[^ ]*|ExecStart=/bin/true|' "$unit" \
        >"$folder/$(basename "$unit" | sed 's/@\./@main./')"
done
# Its exit code alone says nothing of unknown keys and values.  What it says of other units counts not.
if systemd-analyze verify --man=no "$folder"/*.service 2>&1 | grep -F "$folder"; then
    status=1
fi
exit $status
