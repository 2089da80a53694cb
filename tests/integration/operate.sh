#!/bin/sh
# A backup while a grid runs, a look at everything by doctor, gc, damage that is
# found, and a restore into another folder, where the grid goes on to its end with
# the worker that was there before.
. "$(dirname "$0")/lib.sh"

field() { # of the JSON on standard input
    python3 -c "import json, sys; d = json.load(sys.stdin); print(d$1)"
}

found() { # findings of doctor: kind, word of its line
    python3 -c "
import json, sys
print(sum(f['finding'] == '$1' and '$2' in f['subject'] + ': ' + f['text'] for f in json.load(open('doctor.json'))))"
}

doctor() { # options...
    hactl_here doctor --json "$@" >doctor.json
}

start_evaluator
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
MODELS=qwen2.5-demo TRAIN=96 EVAL=8 CHECKPOINT=1 write_grid grid.toml
check "the grid is submitted" hactl_here submit grid.toml
start_worker w1
WORKER=$HA_PID
answered() { [ "$(hactl_here status grid --json | field '["answers"]')" -ge "$1" ]; }
trained() { [ "$(hactl_here status grid --json | grep -c '"train"')" -ge 1 ] && ls run/artifacts/*/* >/dev/null 2>&1; }
check "some answers are there" until_true 120 answered 3

check "a backup is taken while it runs" hactl_here backup saved --json
cp check.out backup.json
equal "it has the grid" "$(field '["sweeps"]' <backup.json)" 1
check "its database is whole" ha-coordinator --inspect saved/coordinator.db
equal "every artifact of it is there" "$(ls saved/artifacts/*/* | wc -l | tr -d ' ')" \
    "$(field '["artifacts"]' <backup.json)"
equal "and has the bytes of its name" \
    "$(sha256sum saved/artifacts/*/* | awk '{ n = split($2, part, "/"); if (part[n] != $1) print $2 }')" ""
check "a backup overwrites nothing" sh -c "! hactl backup saved --connect $CONTROL --insecure-loopback"
equal "nothing half done is left" "$(ls -d saved.part run/artifacts/snapshot/* 2>/dev/null)" ""
equal "its files are its own" "$(find saved/artifacts -type f -links +1 | wc -l | tr -d ' ')" 0
check "links can be asked for" hactl_here backup linked --link
check "a link takes no room" sh -c '[ "$(find linked/artifacts -type f -links +1 | wc -l)" -gt 0 ]'

check "the grid goes on after it" hactl_here pause grid --finish
check "and is changed" hactl_here resume grid
check "doctor finds nothing wrong" doctor --artifacts all --work-dir w1
# Where the coordinator's folder is not to be seen, all of it comes over the wire, even
# if there is a folder of that path.
if unshare -m true 2>/dev/null; then
    check "a backup from afar" unshare -m sh -c "mount -t tmpfs none run/artifacts && hactl backup far --connect $CONTROL --insecure-loopback && hactl doctor --artifacts all --connect $CONTROL --insecure-loopback"
    equal "has the same artifacts" "$(cd far/artifacts && ls -d */* | sort | head -n 3)" "$(cd run/artifacts && ls -d ??/* | sort | head -n 3)"
else
    echo "skip operate: a backup from afar needs a mount namespace"
fi
equal "it read the database" "$(found ok 'every page')" 1
equal "it compared the worker's clock" "$(found ok 'clocks of 1')" 1
equal "the attempt's folder has its attempt, or none runs" "$(found problem '')" 0
printf x >>"$(ls -S run/artifacts/??/* | tail -n 1)"
check "doctor finds a damaged artifact" sh -c "! hactl doctor --artifacts all --connect $CONTROL --insecure-loopback"
equal "and says what mends it" "$(grep -c 'backup' check.out)" 1

hactl keys init --keys keys >/dev/null
hactl keys add node --role worker --keys keys >/dev/null
check "doctor finds keys in order" doctor --quick --keys keys
equal "and tells their roles" "$(found ok '1 worker')" 1
chmod 644 keys/node.key
check "doctor finds a key that others may read" sh -c "! hactl doctor --quick --keys keys --connect $CONTROL --insecure-loopback"
equal "and says what mends it" "$(grep -c 'chmod 600' check.out)" 1
mkdir -p orphan left/7-8-9
printf '#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9; do sleep 1; done\n' >orphan/ha-attempt
chmod 755 orphan/ha-attempt
(orphan/ha-attempt job --dir x --contract-fd 3 >/dev/null 2>&1 & echo $! >orphan.pid)
HA_PIDS="$HA_PIDS $(cat orphan.pid)"
doctor --quick --work-dir left
equal "doctor finds an attempt that lost its worker" "$(found problem "process $(cat orphan.pid) ")" 1
equal "and the folder of one" "$(found note left/7-8-9)" 1
kill "$(cat orphan.pid)"

printf 'nobody needs this' >stray
STRAY=$(sha256sum stray | cut -d' ' -f1)
PLACE=run/artifacts/$(echo "$STRAY" | cut -c1-2)
mkdir -p "$PLACE" && cp stray "$PLACE/$STRAY" && touch -d '30 days ago' "$PLACE/$STRAY"
equal "gc --dry-run names a file that nothing needs" \
    "$(hactl_here gc --dry-run | grep -c "would remove $STRAY")" 1
check "and leaves it" test -e "$PLACE/$STRAY"
check "gc removes it" hactl_here gc
check "it is gone" until_true 10 test ! -e "$PLACE/$STRAY"

check "restore refuses a coordinator that runs" sh -c '! hactl restore saved --dir run'
equal "and says who" "$(grep -c 'another coordinator is running' check.out)" 1
kill -KILL "$COORDINATOR"
wait "$COORDINATOR" 2>/dev/null
check "restore refuses what is newer" sh -c '! hactl restore saved --dir run'
equal "and says what to do" "$(grep -c -e '--discard-newer' check.out)" 1
check "it restores over it when told so" hactl restore saved --dir run --discard-newer
equal "what was there is kept" "$(ls run/coordinator.db.replaced-* | grep -c -v wal)" 1
equal "the damaged artifact is whole again" \
    "$(sha256sum run/artifacts/??/* | awk '{ n = split($2, part, "/"); if (part[n] != $1) print $2 }')" ""
start_coordinator
check "the worker was left running" kill -0 "$WORKER"
start_judge j1
check "the grid goes on to its end" hactl_here wait grid --timeout 300
check "doctor finds nothing wrong in it" doctor --artifacts all
stop_coordinator
check_complete 2 8
mkdir -m 700 fresh
check "the backup makes a new folder too" hactl restore saved --dir fresh
equal "without anything put aside" "$(ls fresh | grep -c replaced)" 0

# A store with limits says so when something is larger.
background limited ha-coordinator --dir limited --listen "ipc://$HA_TMP/limited.control" \
    --files "ipc://$HA_TMP/limited.files" --set max_artifact_size=10KiB
until_true 20 test -s limited/endpoint
check "a file above max_artifact_size is refused" sh -c "! hactl submit grid.toml --connect ipc://$HA_TMP/limited.control"
equal "by the name of the setting" "$(grep -c max_artifact_size check.out)" 1
