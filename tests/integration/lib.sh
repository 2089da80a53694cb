# lib.sh - sourced by the integration tests
#
# HA_BUILD names the folder with the programs.  A test prints "ok NAME",
# "not ok NAME: why" or "skip NAME: why" for each thing it shows; its processes
# and its folder are gone when it ends.
set -u

HA_ROOT=$(cd "$(dirname "$0")/../.." && pwd)
HA_BUILD=${HA_BUILD:-$HA_ROOT/build/test}
HA_TEST=$(basename "$0" .sh)
HA_TMP=$(mktemp -d "${TMPDIR:-/tmp}/ha-$HA_TEST-XXXXXX")
HA_PIDS=
PATH=$HA_BUILD:$PATH
export PATH NO_COLOR=1
unset HA_COORDINATOR
cd "$HA_TMP" || exit 1

ok() {
    echo "ok $HA_TEST: $1"
}

not_ok() {
    echo "not ok $HA_TEST: $*"
}

# check NAME COMMAND...: ok when the command succeeds.
check() {
    check_name=$1
    shift
    if "$@" >"$HA_TMP/check.out" 2>&1; then
        ok "$check_name"
    else
        not_ok "$check_name: $(tail -n 1 "$HA_TMP/check.out")"
        tail -n 20 "$HA_TMP/check.out" >&2
    fi
}

# equal NAME GOT WANT
equal() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1: got '$2', wanted '$3'"; fi
}

# until_true SECONDS COMMAND...: polls ten times a second.
until_true() {
    tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

# background NAME COMMAND...: starts it with its output in NAME.log; sets HA_PID.
background() {
    log=$HA_TMP/$1.log
    shift
    "$@" >>"$log" 2>&1 &
    HA_PID=$!
    HA_PIDS="$HA_PIDS $HA_PID"
}

cleanup() {
    for pid in $HA_PIDS; do kill -TERM "$pid" 2>/dev/null; done
    sleep 0.3
    for pid in $HA_PIDS; do kill -KILL "$pid" 2>/dev/null; done
    wait 2>/dev/null
    if [ -n "${HA_KEEP:-}" ]; then echo "kept $HA_TMP" >&2; else rm -rf "$HA_TMP"; fi
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# ---- a small cluster on loopback, keys off -------------------------------------

# write_grid FILE: two models of the demo, base and mid, a few pairs and prompts.
# MODELS, STRATEGIES, TRAIN, EVAL, TRAIN_FILE, EVAL_FILE override its parts.
write_grid() {
    {
        echo '[sweep]'
        echo 'name = "grid"'
        for model in ${MODELS:-qwen2.5-demo llama-2-demo}; do
            echo '[[model]]'
            echo "path = \"$HA_ROOT/deploy/demo/models/$model\""
        done
        echo '[strategies]'
        echo "use = [${STRATEGIES:-\"base\", \"mid\"}]"
        echo '[data]'
        echo "train = [\"${TRAIN_FILE:-$HA_ROOT/deploy/demo/data/train.jsonl}\"]"
        echo "eval = [\"${EVAL_FILE:-$HA_ROOT/deploy/demo/data/eval.jsonl}\"]"
        echo "train_samples = ${TRAIN:-48}"
        echo "eval_samples = ${EVAL:-8}"
        echo '[train]'
        echo 'learning_rate = 1e-3'
        echo 'precision = "fp32"'
        echo "checkpoint_every = ${CHECKPOINT:-600}"
        echo '[generate]'
        echo "max_new_tokens = ${TOKENS:-16}"
        echo '[[judge]]'
        echo 'name = "text-statistics"'
        echo 'provider = "ha-evaluator"'
        echo "base_url = \"http://127.0.0.1:$(cat "$HA_TMP/evaluator.port")/v1\""
        echo 'model = "ha-evaluator"'
    } >"$1"
}

# start_evaluator [options]: its port in evaluator.port, a line per call in calls.txt.
start_evaluator() {
    background evaluator ha-evaluator --port 0 --port-file "$HA_TMP/evaluator.port" \
        --record "$HA_TMP/calls.txt" "$@"
    until_true 10 test -s "$HA_TMP/evaluator.port"
}

# start_coordinator: the second time on the same ports.  Sets COORDINATOR, CONTROL and FILES.
start_coordinator() {
    background coordinator ha-coordinator --dir "$HA_TMP/run" \
        --listen "${CONTROL:-tcp://127.0.0.1:0}" --files "${FILES:-tcp://127.0.0.1:0}" \
        --insecure-loopback
    COORDINATOR=$HA_PID
    until_true 20 grep -q 'tcp://' "$HA_TMP/run/endpoint" || return 1
    CONTROL=$(sed -n 1p "$HA_TMP/run/endpoint")
    FILES=$(sed -n 2p "$HA_TMP/run/endpoint")
    HA_COORDINATOR=$CONTROL
    export HA_COORDINATOR
}

start_worker() { # name
    background "$1" ha-worker --connect "$CONTROL" --files "$FILES" --name "$1" \
        --work-dir "$HA_TMP/$1" --slots 1 --threads 1 --backend cpu --model-root / \
        --insecure-loopback
}

start_judge() { # name
    background "$1" ha-judge-worker --connect "$CONTROL" --name "$1" --spool "$HA_TMP/$1" \
        --embedded --insecure-loopback
}

hactl_here() {
    hactl "$@" --connect "$CONTROL" --insecure-loopback
}

# query SQL: of the stopped coordinator's database.
query() {
    sqlite3 "$HA_TMP/run/coordinator.db" "$1"
}

stop_coordinator() {
    kill -TERM "$COORDINATOR" 2>/dev/null
    wait "$COORDINATOR" 2>/dev/null
}

# Every answer of so many cells x prompts has its 16 scores exactly once.
check_complete() { # cells, prompts
    equal "every answer is there once" \
        "$(query 'SELECT count(*), count(DISTINCT result || "/" || prompt || "/" || sample) FROM answer')" \
        "$(($1 * $2))|$(($1 * $2))"
    equal "every answer is scored" "$(query "SELECT count(*) FROM item WHERE state = 'scored'")" $(($1 * $2))
    equal "no answer waits or failed" "$(query "SELECT count(*) FROM item WHERE state <> 'scored'")" 0
    equal "16 scores each" \
        "$(query 'SELECT count(*) FROM (SELECT item FROM score GROUP BY item HAVING count(*) = 16)')" $(($1 * $2))
    equal "no score too many" "$(query 'SELECT count(*) FROM score')" $(($1 * $2 * 16))
}

# The sweep "grid" of gangs, for so many $EPOCHS; its jobs train one after the other.
gang_grid() { # strategies, resources
    cat <<TOML
[sweep]
name = "grid"
[[model]]
path = "$HA_ROOT/deploy/demo/models/qwen2.5-demo"
[strategies]
use = [$1]
[[strategy]]
name = "two"
layers = "0-1"
[[strategy]]
name = "three"
layers = "1-2"
[data]
train = ["$HA_ROOT/deploy/demo/data/train.jsonl"]
eval = ["$HA_ROOT/deploy/demo/data/eval.jsonl"]
train_samples = 24
eval_samples = 2
[train]
learning_rate = 1e-3
precision = "fp32"
epochs = $EPOCHS
batch_size = 3
gradient_accumulation = 4
checkpoint_every = 1
[generate]
max_new_tokens = 4
[resources]
$2
[schedule]
fuse = "never"
TOML
}
