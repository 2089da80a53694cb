#!/bin/sh
# A process that serves several jobs of one model: the bytes of processes that serve one each, on the
# CPU and on the emulated device, and weights that are read once.
. "$(dirname "$0")/lib.sh"

MODULE=$HA_BUILD/tests/cuda/ha-kernels-cuda-emulated.so
MODEL=$HA_TMP/model
cp -r "$HA_ROOT/deploy/demo/models/qwen2.5-demo" "$MODEL"

# The shortest rows: each thread of a kernel of the emulated device is a fiber.
python3 - "$HA_ROOT/deploy/demo/data" <<'PYTHON'
import sys
for name, out, n in (("train", "three", 3), ("eval", "two", 2)):
    rows = sorted(open(f"{sys.argv[1]}/{name}.jsonl"), key=len)[:n]
    open(out + ".jsonl", "w").writelines(rows)
PYTHON

job() { # folder, backend, kind, layers
    mkdir -p "$1/inputs"
    eval_file='"inputs/eval.jsonl"'
    [ "$3" = train ] && eval_file=
    rows=3 length=56
    [ "$2" = cuda ] && rows=1 length=24
    cp three.jsonl "$1/inputs/train.jsonl"
    cp two.jsonl "$1/inputs/eval.jsonl"
    cat >"$1/job.json" <<JSON
{"kind": "$3", "sweep": "test", "job": 7, "threads": 1, "backend": "$2",
 "model": {"name": "demo", "path": "$MODEL", "hub_id": "", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": [$eval_file]},
 "settings": {"data": {"train_samples": $rows, "eval_samples": 2}, "generate": {"max_new_tokens": 6},
              "train": {"batch_size": $rows, "gradient_accumulation": 1, "lora_rank": 4, "max_length": $length,
                        "learning_rate": 0.01, "tokens_per_microbatch": 64}, "probe": {"pairs": 2}},
 "cells": [{"id": 21, "name": "demo/cell", "layers": $4}], "skip_answers": {}}
JSON
}

alone() { # folder
    (exec ha-attempt job --dir "$1" --contract-fd 3 3>"$1.lines" 2>"$1.log" </dev/null)
}

# served NAME FIRST FOLDER...: FIRST and the folders after it, by one process.
served() {
    served_name=$1 served_first=$2
    shift 2
    for folder in "$@"; do echo "$HA_TMP/$folder"; done |
        (exec ha-attempt job --serve --dir "$served_first" --contract-fd 3 3>"$served_name.lines" 2>"$served_name.log")
}

# What a daemon is told, but for what the clock says and for memory: a fresh process needs some more
# for a moment, to measure the peak of its device.
cat >told.py <<'PYTHON'
import json, sys
same = ("flops", "bytes_moved", "reference", "backend", "tokens", "steps")
for name in sys.argv[1:]:
    for line in map(json.loads, open(name)):
        if line["type"] in ("metric", "answer", "probe"):
            print(line["type"], json.dumps(line, sort_keys=True))
        elif line["type"] == "cell":
            print("cell", line["cell"], line["done"], *(line["summary"].get(key) for key in same))
PYTHON

told() {
    python3 told.py "$@" | sort
}

lines_of() { # file, type, member
    python3 -c '
import json, sys
print(*(line.get(sys.argv[3], "") for line in map(json.loads, open(sys.argv[1])) if line["type"] == sys.argv[2]))' "$@"
}

# serve_all BACKEND KIND...: the jobs by a process each, and by one process.
serve_all() {
    on=$1 fresh= shared= n=0
    shift
    for kind in "$@"; do
        n=$((n + 1))
        layers='[]'
        [ "$kind" = train ] && layers="[$((n % 3)), 4]"
        job "$on-$n" "$on" "$kind" "$layers"
        cp -r "$on-$n" "$on-$n-shared"
        alone "$on-$n" || not_ok "$on: $kind alone: $(tail -n 1 "$on-$n.log")"
        fresh="$fresh $on-$n.lines" shared="$shared $on-$n-shared"
    done
    served "$on" $shared
    equal "$on: one process serves $n jobs and ends with its input" $? 0
    equal "$on: it waited after each" "$(grep -c '"waits"' "$on.lines")" $n
    size=$(lines_of "$on-1.lines" model bytes)
    equal "$on: it read the weights once" "$(lines_of "$on.lines" model read_bytes | sed 's/ 0//g')" "$size"
    for i in $(seq $n); do
        [ -d "$on-$i/out/21/adapter" ] || continue
        check "$on: the adapter is that of a fresh process" cmp \
            "$on-$i/out/21/adapter/adapter_model.safetensors" "$on-$i-shared/out/21/adapter/adapter_model.safetensors"
    done
    told $fresh >alone.txt
    told "$on.lines" >shared.txt
    check "$on: and so is all that is told" cmp alone.txt shared.txt
    equal "$on: cells, answers and metrics are among it" "$(cut -d ' ' -f 1 shared.txt | sort -u | tr '\n' ' ')" \
        "$(printf '%s\n' answer cell metric $(echo "$*" | grep -o probe) | tr '\n' ' ')"
}

serve_all cpu generate train probe train generate
if [ -f "$MODULE" ]; then
    HA_CUDA_MODULE=$(realpath "$MODULE")
    export HA_CUDA_MODULE
    serve_all cuda train generate
    equal "cuda: the GPU held them all the time" \
        "$(lines_of cuda.lines model device_bytes | tr ' ' '\n' | sort -u | wc -l)" 1
else
    echo "skip $HA_TEST: the emulated device is built where nvcc is"
fi

# ---- what is not used again ----
job again cpu generate '[]'
job other cpu generate '[]'
mkfifo input
served_by_hand() { (exec ha-attempt job --serve --dir again --contract-fd 3 3>hand.lines 2>hand.log <input); }
served_by_hand &
pid=$!
exec 9>input
until_true 20 grep -q '"waits"' hand.lines
touch "$MODEL/model.safetensors"
echo "$HA_TMP/other" >&9
until_true 20 eval '[ $(grep -c "\"waits\"" hand.lines) = 2 ]'
size=$(lines_of cpu-1.lines model bytes)
equal "files that have changed are read again" "$(lines_of hand.lines model read_bytes)" "$size $size"
mkdir broken
echo '{' >broken/job.json
echo "$HA_TMP/broken" >&9
wait $pid
equal "a job that is refused ends the process with its code" $? 78
exec 9>&-
job stopped cpu generate '[]'
(exec ha-attempt job --serve --dir stopped --contract-fd 3 3>stopped.lines 2>stopped.log <input) &
exec 9>input
pid=$!
until_true 20 grep -q '"waits"' stopped.lines
kill -TERM $pid
wait $pid
equal "SIGTERM ends one that waits" $? 0
exec 9>&-

# ---- a worker and its processes ----
start_evaluator
start_coordinator
start_judge judge
start_worker worker
WORKER=$HA_PID

grid() { # file, name, what else of it
    MODELS=$3 STRATEGIES=$4 TRAIN=24 EVAL=4 TOKENS=8 write_grid "$1"
    sed -i "s/name = \"grid\"/name = \"$2\"/" "$1"
    printf '[schedule]\nfuse = "never"\n' >>"$1"
}

process() { # of the worker, now
    ps -o pid= --ppid "$WORKER" | tr -d ' '
}

begun() { # jobs, by processes that had their model
    echo "$(grep -c ' begins$' worker.log) $(grep -c 'goes on with a process' worker.log)"
}

grid one.toml one qwen2.5-demo '"base", "mid"'
hactl_here submit one.toml >submit.log 2>&1
check "a sweep of one model" hactl_here wait one --timeout 60
equal "its three jobs were done by one process" "$(begun)" "3 2"
PROCESS=$(process)
check "which waits" test -n "$PROCESS"

model_is() { # where
    hactl_here workers | grep -q "^worker  *qwen2.5-demo .* $1 "
}
check "hactl workers says so" until_true 15 model_is loaded

kill -KILL $PROCESS
check "killed while it waits, it is gone" until_true 10 eval '[ -z "$(process)" ]'
grid two.toml two qwen2.5-demo '"local"'
hactl_here submit two.toml >submit.log 2>&1
check "another process does the next jobs" hactl_here wait two --timeout 60
equal "the first of them by itself" "$(begun)" "5 3"
PROCESS=$(process)

grid three.toml three llama-2-demo '"base"'
hactl_here submit three.toml >submit.log 2>&1
check "a job of another model" hactl_here wait three --timeout 60
kill -0 "$PROCESS" 2>/dev/null
equal "ends the process that waits" $? 1
equal "and has one of its own" "$(begun)" "6 3"

# While it trains, in a job that it took over.
grid four.toml four llama-2-demo '"mid"'
sed -i 's/train_samples = .*/train_samples = 48/' four.toml
PROCESS=$(process)
hactl_here submit four.toml >submit.log 2>&1
until_true 30 eval '[ "$(begun)" = "7 4" ]'
check "at work" until_true 30 eval 'find worker -name attempt.log -exec cat {} + | grep -q "layers run again"'
kill -KILL "$PROCESS"
check "killed at work, its job is done all the same" hactl_here wait four --timeout 90
equal "by another process" "$(grep -c 'killed by signal 9' worker.log)" 1
kill -TERM "$WORKER"
wait "$WORKER"
equal "the worker leaves" $? 0
equal "and takes the process along" "$(pgrep -f "ha-attempt job --dir $HA_TMP" | wc -l)" 0

# ---- its GPU stays taken, played by a fake management library ----
play() {
    echo "uuid=GPU-aaaa name=Only total=8192 $1" >gpus.next
    mv gpus.next gpus
}
is_state() {
    hactl_here workers --json | grep -A 12 '"uuid": *"GPU-aaaa"' | grep -q "\"state\": *\"$1\""
}
play ""
background owner env HA_NVML_LIBRARY="$HA_BUILD/tests/unit/daemon/libha_fake_nvml.so" HA_FAKE_NVML="$HA_TMP/gpus" \
    ha-worker --connect "$CONTROL" --files "$FILES" --name owner --work-dir "$HA_TMP/owner" --threads 1 \
    --backend cpu --model-root / --insecure-loopback --set 'devices=["all"]' --set slots=2
grid five.toml five qwen2.5-demo '"global"'
hactl_here submit five.toml >submit.log 2>&1
check "jobs on a GPU" hactl_here wait five --timeout 60
equal "one process has it for both" "$(grep -c 'has GPU GPU-aaaa' owner.log) $(grep -c 'goes on with' owner.log)" "1 1"
check "it stays taken" until_true 15 is_state busy
grid six.toml six llama-2-demo '"global"'
hactl_here submit six.toml >submit.log 2>&1
check "jobs of another model" hactl_here wait six --timeout 60
equal "get it when the process has ended" \
    "$(grep -c 'needs a GPU that keeps another model' owner.log) $(grep -c 'multiply rightly' owner.log)" "1 2"
play ecc=3
check "a process leaves a GPU that is not well" until_true 15 is_state aside
stop_coordinator
check_complete 7 4
