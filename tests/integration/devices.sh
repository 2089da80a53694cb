#!/bin/sh
# GPUs of a worker, played by a fake management library while attempts compute on the CPU: found,
# shown, given to attempts, set aside with their reasons, and offered again.
. "$(dirname "$0")/lib.sh"

FAKE=$HA_BUILD/tests/unit/daemon/libha_fake_nvml.so
HA_FAKE_NVML=$HA_TMP/gpus
export HA_FAKE_NVML

# play FIRST SECOND: how the two GPUs are from now on.
play() {
    printf 'uuid=GPU-aaaa name=First total=8192 temp=41 %s\nuuid=GPU-bbbb name=Second total=8192 %s\n' \
        "$1" "$2" >"$HA_TMP/gpus.next"
    mv "$HA_TMP/gpus.next" "$HA_TMP/gpus"
}

# told NAME: a worker's backend and the states of its GPUs, as hactl tells them.
told() {
    hactl_here workers --json | python3 -c '
import json, sys
for w in json.load(sys.stdin):
    if w["name"] == sys.argv[1]:
        print(w["backend"].split(":")[0], *(d["state"] for d in w["devices"]))' "$1"
}

is_told() { # NAME BACKEND STATES
    [ "$(told "$1")" = "$2 $3" ]
}

is_state() {
    is_told worker cpu "$1"
}

# An attempt of the worker sees this GPU and no other.
attempt_sees() {
    for pid in $(ps -o pid= --ppid "$WORKER"); do
        tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "CUDA_VISIBLE_DEVICES=$1" && return 0
    done
    return 1
}

play "hang=1" ""
start_evaluator
start_coordinator
start_judge judge
background worker env HA_NVML_LIBRARY="$FAKE" ha-worker --connect "$CONTROL" --files "$FILES" \
    --name worker --work-dir "$HA_TMP/worker" --threads 1 --backend cpu --model-root / \
    --insecure-loopback --set 'devices=["all"]' --set slots=2 --set device_release=1s --set keep_model=0s \
    --set driver_answer=1s
WORKER=$HA_PID
check "a driver that hangs does not hold the worker up" until_true 20 is_state "aside"
hactl_here workers >workers.txt
check "it is said that it does" grep -q 'aside .* the driver does not answer' workers.txt
play "" ""
check "both GPUs are found and free" until_true 20 is_state "free free"
hactl_here workers >workers.txt
check "text names them" grep -q 'free .*First .*41 C .*GPU-aaaa' workers.txt

# A worker that takes whatever there is waits for such a driver, and does not compute on the CPU.
MODULE=$HA_BUILD/tests/cuda/ha-kernels-cuda-emulated.so
if [ -f "$MODULE" ]; then
    play "hang=1" ""
    background auto env HA_NVML_LIBRARY="$FAKE" HA_CUDA_MODULE="$(realpath "$MODULE")" ha-worker \
        --connect "$CONTROL" --files "$FILES" --name auto --work-dir "$HA_TMP/auto" --threads 1 \
        --backend auto --model-root / --insecure-loopback --set driver_answer=1s
    AUTO=$HA_PID
    check "with backend auto a driver that hangs is waited for" \
        until_true 20 grep -q 'until it does, this worker takes no job' auto.log
    check "its GPUs are told as set aside" until_true 10 is_told auto cuda aside
    play "" ""
    check "they are offered when it answers" until_true 20 is_told auto cuda "free free"
    check "after a process has multiplied there" \
        grep -q 'answers now, after .* s; attempts compute on: cuda: GPU 0, emulated' auto.log
    kill "$AUTO"
    wait "$AUTO" || true
else
    echo "skip a worker of an emulated device: it is built where nvcc is"
fi
play "ecc=3" ""
check "one with ECC errors is set aside, the other goes on" until_true 15 is_state "aside free"
hactl_here workers >workers.txt
check "the reason is shown" grep -q 'aside .*GPU-aaaa .*3 uncorrected ECC errors' workers.txt

MODELS=qwen2.5-demo TRAIN=96 write_grid grid.toml
hactl_here submit grid.toml >submit.log 2>&1
check "an attempt sees its own GPU only" until_true 30 attempt_sees GPU-bbbb
check "the sweep is done on the one that is left" hactl_here wait grid --timeout 60
equal "before each attempt its GPU multiplied rightly" \
    "$(grep -c 'its GPUs multiply rightly' worker.log)" "$(grep -c 'has GPU' worker.log)"
grep -q 'has GPU GPU-aaaa' worker.log && not_ok "an attempt had the GPU that was aside" ||
    ok "no attempt had the GPU that was aside"

play "ecc=3" "used=4000 pids=1"
check "a GPU whose memory somebody holds is not offered" until_true 15 is_state "aside aside"
hactl_here workers >workers.txt
check "it is said who holds it" grep -q 'GPU-bbbb .*3.9 GiB of its memory is held by process 1' workers.txt
check "nobody else's process was killed" kill -0 1

sed -e 's/name = "grid"/name = "again"/' -e 's/learning_rate = 1e-3/learning_rate = 2e-3/' grid.toml >again.toml
before=$(grep -c 'has GPU' worker.log)
hactl_here submit again.toml >submit.log 2>&1
sleep 3
equal "no attempt begins until then" "$(grep -c 'has GPU' worker.log)" "$before"
play "ecc=3" ""
check "it is offered again when the memory is free" hactl_here wait again --timeout 60

hactl_here workers undrain worker >undrain.log 2>&1
check "undrain brings the other one back" until_true 20 is_state "free free"
play "ecc=3 lost=1" ""
check "a lost GPU is aside" until_true 15 is_state "aside free"
play "ecc=3" ""
check "and back when it answers again" until_true 15 is_state "free free"
