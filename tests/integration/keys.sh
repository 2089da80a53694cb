#!/bin/sh
# Over tcp:// with keys: who is in the allow-list may do what its role allows, and
# nobody else anything.
. "$(dirname "$0")/lib.sh"

hactl keys init --keys keys >/dev/null
for pair in boss:submit reader:read node:worker scorer:judge stranger:submit; do
    hactl keys add "${pair%%:*}" --role "${pair##*:}" --keys keys >/dev/null
done
hactl keys revoke stranger --keys keys >/dev/null
check "a key is not overwritten" sh -c '! hactl keys init --keys keys 2>/dev/null'
equal "tcp without keys is refused" "$(ha-coordinator --dir run0 --listen tcp://127.0.0.1:0 \
    --files tcp://127.0.0.1:0 2>&1 | grep -c -i -E 'key|insecure')" 1

start_evaluator
background coordinator ha-coordinator --dir run --listen tcp://127.0.0.1:0 --files tcp://127.0.0.1:0 \
    --keys keys
until_true 20 grep -q 'tcp://' run/endpoint
CONTROL=$(sed -n 1p run/endpoint)
FILES=$(sed -n 2p run/endpoint)
as() { # name, hactl arguments...
    name=$1
    shift
    hactl "$@" --connect "$CONTROL" --key "keys/$name.key" --server-key keys/server.pub
}
MODELS=qwen2.5-demo TRAIN=24 EVAL=4 write_grid grid.toml
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
background scorer ha-judge-worker --connect "$CONTROL" --name scorer --spool scorer --embedded \
    --key keys/scorer.key --server-key keys/server.pub
check "the grid runs through encrypted connections" as boss wait grid --timeout 200
sed -n 's/^secret *//p' keys/*.key >secrets
equal "no secret key is in any log" "$(cat ./*.log run/*.log 2>/dev/null | grep -c -F -f secrets)" 0
