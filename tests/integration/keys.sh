#!/bin/sh
# Over tcp:// with keys: who is in the allow-list may do what its role allows, and
# nobody else anything.
. "$(dirname "$0")/lib.sh"

# Core files are asked for, and are written here: else that none has a secret would show nothing.
ulimit -c unlimited 2>/dev/null
sleep 60 &
kill -ABRT $! && wait $! 2>/dev/null
set -- core*
if [ -f "$1" ]; then
    CORES=yes
    rm -f core*
else
    CORES=
    echo "skip $HA_TEST: core files: none are written into the folder of a process here"
fi

hactl keys init --keys keys >/dev/null
for pair in boss:submit reader:read node:worker other:worker scorer:judge stranger:submit visitor:read; do
    hactl keys add "${pair%%:*}" --role "${pair##*:}" --keys keys >/dev/null
done
hactl keys revoke stranger --keys keys >/dev/null
check "a key is not overwritten" sh -c '! hactl keys init --keys keys 2>/dev/null'
equal "tcp without keys is refused" "$(ha-coordinator --dir run0 --listen tcp://127.0.0.1:0 \
    --files tcp://127.0.0.1:0 2>&1 | grep -c -i -E 'key|insecure')" 1

start_evaluator
background coordinator ha-coordinator --dir run --listen tcp://127.0.0.1:0 --files tcp://127.0.0.1:0 \
    --keys keys
COORDINATOR=$HA_PID
until_true 20 grep -q 'tcp://' run/endpoint
CONTROL=$(sed -n 1p run/endpoint)
FILES=$(sed -n 2p run/endpoint)
as() { # name, hactl arguments...
    name=$1
    shift
    hactl "$@" --connect "$CONTROL" --key "keys/$name.key" --server-key keys/server.pub
}
MODELS=qwen2.5-demo TRAIN=24 EVAL=4 write_grid grid.toml
echo 'api_key = "marked"' >>grid.toml
check "submit may submit" as boss submit grid.toml
check "read may look" as reader status grid
check "read may not cancel" sh -c "! hactl cancel grid --connect $CONTROL --key keys/reader.key --server-key keys/server.pub"
check "a worker's key may not submit" sh -c "! hactl submit grid.toml --name other --connect $CONTROL --key keys/node.key --server-key keys/server.pub"
check "a key that is not in the allow-list gets no answer" sh -c "! hactl status grid --connect $CONTROL --key keys/stranger.key --server-key keys/server.pub"
check "nor does a client without keys" sh -c "! hactl status grid --connect $CONTROL --insecure-loopback"
chmod 644 keys/boss.key
check "a key file that others may read is refused" sh -c "! hactl status grid --connect $CONTROL --key keys/boss.key --server-key keys/server.pub"
chmod 600 keys/boss.key
background node ha-worker --connect "$CONTROL" --files "$FILES" --name node --work-dir node --slots 1 \
    --threads 1 --backend cpu --model-root / --key keys/node.key --server-key keys/server.pub
NODE=$HA_PID
# Revoked while it is connected: its next message is refused.
background visitor sh -c "exec hactl status grid --watch --connect $CONTROL --key keys/visitor.key --server-key keys/server.pub"
VISITOR=$HA_PID
sleep 2
check "a client is connected" kill -0 "$VISITOR"
hactl keys revoke visitor --keys keys >/dev/null
check "revoked, its open connection is of no use" until_true 60 sh -c "! kill -0 $VISITOR"
check "a judge's key reads no files" sh -c "! hactl artifacts get $(sha256sum "$HA_ROOT/deploy/demo/data/eval.jsonl" | cut -d' ' -f1) --out got --connect $CONTROL --key keys/scorer.key --server-key keys/server.pub"
# The evaluator's key, marked so that it would be found wherever it went.
TOKEN=ha-marked-token-$(sha256sum keys/boss.key | cut -c1-24)
printf '%s\n' "$TOKEN" >token
chmod 600 token
printf '[[key]]\nname = "marked"\nfile = "%s/token"\nhosts = ["127.0.0.1"]\n' "$HA_TMP" >judge.toml
background scorer ha-judge-worker --config judge.toml --connect "$CONTROL" --name scorer --spool scorer \
    --key keys/scorer.key --server-key keys/server.pub
SCORER=$HA_PID
check "the grid runs through encrypted connections" as boss wait grid --timeout 200
# The worker's name belongs to its key, until that is revoked.
background other ha-worker --connect "$CONTROL" --files "$FILES" --name node --work-dir other --slots 1 \
    --threads 1 --backend cpu --model-root / --key keys/other.key --server-key keys/server.pub
OTHER=$HA_PID
check "a key that claims another's name is refused" \
    until_true 20 grep -q "the name node belongs to the key node, this is the key other" other.log
kill "$OTHER"
wait "$OTHER" 2>/dev/null
hactl keys list --keys keys --connect "$CONTROL" --key keys/reader.key --server-key keys/server.pub >keys.txt
check "it is shown which workers a key has" grep -q '^node  *worker .* node$' keys.txt
hactl keys revoke node --keys keys >/dev/null
check "revoked, what the worker held ends at once" until_true 5 grep -q "the key node of worker node was revoked" coordinator.log
ps -eo args >processes.txt
for pid in $SCORER $COORDINATOR; do
    [ "$(id -u)" -ne 0 ] && check "process $pid may not be looked into" sh -c "! head -c 1 /proc/$pid/environ"
done
as reader results grid --items >results.txt 2>&1
as boss backup saved >/dev/null 2>&1
# Each program with keys dies with a wish for a core file.
background watcher sh -c "exec hactl log grid -f --connect $CONTROL --key keys/reader.key --server-key keys/server.pub"
WATCHER=$HA_PID
until_true 20 test -s watcher.log
for pid in $SCORER $NODE $WATCHER $COORDINATOR; do
    kill -ABRT "$pid"
    wait "$pid" 2>/dev/null
done
[ -n "$CORES" ] && equal "no process with keys leaves a core file" "$(ls core* */core* 2>/dev/null)" ""
sed -n 's/^secret *//p' keys/*.key >secrets
echo "$TOKEN" >>secrets
equal "no secret is in any file, log, database, spool, listing or core" \
    "$(grep -r -l -a -F -f secrets --exclude=secrets --exclude=token --exclude-dir=keys . | tr '\n' ' ')" ""
# The word is really looked for.
printf 'see %s' "$TOKEN" >planted
equal "and would be found" "$(grep -r -l -a -F -f secrets --exclude=secrets --exclude=token --exclude-dir=keys .)" ./planted
