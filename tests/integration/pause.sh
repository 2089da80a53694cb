#!/bin/sh
# Pause, resume, set, drain: a running attempt stops at a checkpoint, the other column goes on, and
# everything is there once at the end.
. "$(dirname "$0")/lib.sh"

stages() { # python expression over s (a stage) and c (a cell): is it true of some?
    hactl_here status grid --json | python3 -c '
import json, sys
cells = json.load(sys.stdin)["cells"]
sys.exit(not any(eval(sys.argv[1]) for c in cells for s in c["stages"]))' "$1"
}

none() {
    ! stages "$1"
}

start_evaluator
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
MODELS=qwen2.5-demo TRAIN=900 EVAL=4 CHECKPOINT=600 write_grid grid.toml
check "the grid is submitted" hactl_here submit grid.toml
start_worker w1
start_judge j1
check "a cell trains" until_true 120 stages 's["stage"] == "train" and s["state"] == "running" and s["done"] > 0'
check "its column is paused" hactl_here pause grid//mid --reason "a test"
check "the attempt stops at a checkpoint" until_true 60 stages \
    's["stage"] == "train" and s["state"] == "ready" and "held by local since" in s["reason"] and "a test" in s["reason"]'
check "the other column goes on" until_true 120 stages 's["stage"] == "generate" and s["state"] == "done"'
check "what is paused is not started" none 's["stage"] == "train" and s["state"] == "running"'
hactl_here why qwen2.5-demo/mid >why.txt 2>&1
check "why names who, the kind, and what to do" grep -q "(held by you): held by local since.*; hactl resume" why.txt
hactl_here why grid//mid >why.txt 2>&1
equal "why takes a column" "$(cut -d' ' -f1 why.txt | sort -u)" qwen2.5-demo/mid
hactl_here why grid --json >why.json
equal "and a sweep, as JSON" "$(python3 -c '
import json
print(*sorted({(r["cell"], r["category"]) for r in json.load(open("why.json")) if r["stage"] == "train"}))')" \
    "('qwen2.5-demo/mid', 'held by you')"
hactl_here why nothing/mid >out.txt 2>&1
equal "what is neither is said" "$(cat out.txt)" "hactl: there is no cell and no sweep nothing/mid; hactl status and hactl list show all"
hactl_here why --job 99 >out.txt 2>&1
equal "a job that is not there is said" "$(tail -n 1 out.txt)" "hactl: the sweep shows no job 99; hactl log --job tells of it"
hactl_here pause grid/qwen2.5-demo >/dev/null
hactl_here pause grid//nothing >out.txt 2>&1 && not_ok "a strategy that does not exist is paused" || ok "a strategy that does not exist is said"
hactl_here pause grid/ >out.txt 2>&1
equal "a selector that names nothing is a usage error" $? 2
check "all of it goes on" hactl_here resume grid
check "priority and concurrency are set" hactl_here set grid priority=3 concurrency=2
hactl_here set grid train.beta=0.3 >out.txt 2>&1 && not_ok "a setting of results was set" || ok "a setting of results is refused"
check "its training goes on" until_true 60 stages 's["stage"] == "train" and s["state"] == "running" and s["done"] > 0'
check "the worker is drained" hactl_here workers drain w1 --deadline 1s --reason "new driver"
check "its attempt stops at the deadline" until_true 60 stages \
    's["stage"] == "train" and s["state"] == "ready" and "w1 is drained by local" in s["reason"]'
check "it takes work again" hactl_here workers undrain w1
check "the grid ends without gaps" hactl_here wait grid --timeout 300
check "the history names the pause" sh -c 'hactl log grid --connect "$0" --insecure-loopback | grep -q "stopping.*paused by local: a test"' "$CONTROL"
stop_coordinator
check_complete 2 4
equal "pause and drain cost no attempt" "$(query 'SELECT sum(crashes) FROM job')" 0
equal "training went on from its checkpoint" \
    "$(query "SELECT count(*) > 0 FROM attempt WHERE outcome = 'stopped' AND progress = 1")" 1
