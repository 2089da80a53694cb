#!/bin/sh
# Doctor: each thing that it looks at is broken once, and it says so and what mends it (what a grid
# that runs is needed for is in operate.sh).
. "$(dirname "$0")/lib.sh"

# says NAME KIND EXIT-CODE WORDS [doctor's options...]: one finding of the kind has all the words.
says() {
    says_name=$1 says_kind=$2 says_code=$3 says_words=$4
    shift 4
    hactl doctor --json ${CONTROL:+--connect "$CONTROL" --insecure-loopback} "$@" >doctor.json 2>doctor.err
    says_got=$?
    if [ $says_got -ne "$says_code" ]; then
        not_ok "$says_name: exit code $says_got: $(cat doctor.json doctor.err)"
        return
    fi
    equal "$says_name" "$(python3 -c '
import json, sys
kind, words = sys.argv[1], sys.argv[2].split("|")
lines = [f["subject"] + ": " + f["text"] + "; " + f["mend"] for f in json.load(open("doctor.json")) if f["finding"] == kind]
print(any(all(word in line for word in words) for line in lines) or lines)' "$says_kind" "$says_words")" True
}

serve() { # folder
    folder=$1
    background "$folder" ha-coordinator --dir "$folder" --listen tcp://127.0.0.1:0 \
        --files tcp://127.0.0.1:0 --insecure-loopback --set heartbeat_ms=200 --set late_ms=400 --set lost_ms=1000
    until_true 20 grep -q 'tcp://' "$folder/endpoint"
    CONTROL=$(sed -n 1p "$folder/endpoint")
    FILES=$(sed -n 2p "$folder/endpoint")
}

echo 0 >evaluator.port
serve run
COORDINATOR=$HA_PID
MODELS=qwen2.5-demo STRATEGIES='"base"' EVAL=2 write_grid grid.toml
check "a grid is submitted" hactl_here submit grid.toml
says "nothing is wrong" ok 0 "database: every page|1 sweeps"

# Keys.
hactl keys init --keys keys >/dev/null
hactl keys add node --role worker --keys keys >/dev/null
says "keys in order" ok 0 "keys: 2 key files|1 worker" --quick --keys keys
chmod 777 keys
says "a folder of keys that others may change" problem 1 "keys: others may change|mode 777|chmod 700" --quick --keys keys
chmod 700 keys
chmod 777 keys/clients
says "an allow-list that others may change" problem 1 "keys: others may add keys|chmod 700" --quick --keys keys
chmod 700 keys/clients
cp keys/clients/node.pub keys/clients/twin.pub
says "one key under two names" problem 1 "node.pub|twin.pub|the same key" --quick --keys keys
echo garbage >keys/clients/twin.pub
says "a file that is no key" problem 1 "keys/clients/twin.pub:1|mend or remove" --quick --keys keys
rm keys/clients/twin.pub
chmod 640 keys/server.key
says "a secret that others may read" problem 1 "keys/server.key|chmod 600" --quick --keys keys
says "no folder of keys" problem 1 "none|hactl keys init" --quick --keys none

# Workers: another version, another clock, lost.
mkdir old
sed 's/0\.1\.0/0.0.9/g' "$HA_BUILD/ha-worker" >old/ha-worker
chmod 755 old/ha-worker
worker() { # name, words in front, program
    name=$1
    shift
    background "$name" "$@" --connect "$CONTROL" --files "$FILES" --name "$name" --work-dir "$name" \
        --slots 1 --threads 1 --backend cpu --model-root /nowhere --insecure-loopback
}
worker older env PATH="$PATH" old/ha-worker
OLDER=$HA_PID
here() { hactl_here workers | grep -q "^$1  *worker .*alive"; }
until_true 20 here older
says "a worker of another version" warning 0 "versions: older has version 0.0.9|the same version everywhere" --quick
kill -KILL "$OLDER"
lost() { hactl_here workers | grep -q "^$1  *worker .*lost"; }
until_true 20 lost older
says "a worker that was lost" warning 0 "workers: older|was lost|its log" --quick
if cc -D_GNU_SOURCE -shared -fPIC -o shim.so "$HA_ROOT/tests/fault/shim.c" -ldl 2>/dev/null; then
    { echo "clock 3600" && head -c 4096 /dev/zero; } >orders
    worker ahead env LD_PRELOAD="$HA_TMP/shim.so" HA_SHIM="$HA_TMP/orders" ha-worker
    until_true 20 here ahead
    says "a worker whose clock is ahead" warning 0 "clocks: the clock of ahead is 3|ahead of the coordinator's|time server" --quick
    LD_PRELOAD=$HA_TMP/shim.so HA_SHIM=$HA_TMP/orders says "a clock of one's own" warning 0 \
        "clocks: this machine's clock is 3|ahead of the coordinator's" --quick
else
    echo "skip $HA_TEST: clocks: there is no C compiler"
fi

# Artifacts that nobody needs, and that are gone.
printf 'nobody needs this' >stray
STRAY=$(sha256sum stray | cut -d' ' -f1)
mkdir -p "run/artifacts/$(echo "$STRAY" | cut -c1-2)"
cp stray "run/artifacts/$(echo "$STRAY" | cut -c1-2)/$STRAY"
touch -d '30 days ago' "run/artifacts/$(echo "$STRAY" | cut -c1-2)/$STRAY"
says "a file that nothing needs" note 0 "artifacts: nothing needs 1 files|hactl gc"
SHA=$(sha256sum "$HA_ROOT/deploy/demo/data/eval.jsonl" | cut -d' ' -f1)
mv "run/artifacts/$(echo "$SHA" | cut -c1-2)/$SHA" kept
says "an artifact that is gone" problem 1 "$SHA is missing or cut short|from a backup"
head -c 100 kept >"run/artifacts/$(echo "$SHA" | cut -c1-2)/$SHA"
says "one that is cut short" problem 1 "$SHA is missing or cut short|from a backup"

# The database, and no coordinator.
kill -KILL "$COORDINATOR"
wait "$COORDINATOR" 2>/dev/null
says "no coordinator" problem 1 "coordinator: no coordinator answers|is it running" --quick
CONTROL=
says "a folder without a coordinator is looked at" ok 1 "database: every page|1 sweeps" --dir run
cp run/coordinator.db whole.db
dd if=/dev/zero of=run/coordinator.db bs=4096 seek=20 count=5 conv=notrunc 2>/dev/null
says "a damaged database" problem 1 "the database is damaged|restore a backup" --dir run
cp whole.db run/coordinator.db
sqlite3 run/coordinator.db 'PRAGMA user_version = 9999' >/dev/null
says "a database of a newer version" problem 1 "made by a newer version|use that version" --dir run

# Little room.
if [ "$(id -u)" -eq 0 ] && mkdir small && mount -t tmpfs -o size=64m none small 2>/dev/null; then
    trap 'umount -l small 2>/dev/null; cleanup' EXIT
    serve small/some
    says "little room" warning 0 "space: |MiB free for the database|hactl gc" --quick
    fallocate -l "$(($(df --output=avail -B1 small | tail -n 1) - 3000000))" small/ballast
    serve small/none
    says "no room" problem 1 "space: |is nearly full|submits are refused" --quick
else
    echo "skip $HA_TEST: little room: no small disk can be mounted here"
fi
