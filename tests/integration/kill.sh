#!/bin/sh
# Kill -9 of the worker, of the coordinator (workers left running) and of the judge
# worker in the middle of a grid, each followed by a restart: the grid ends with
# every score there exactly once.
. "$(dirname "$0")/lib.sh"

answers() { # at least so many
    [ "$(hactl_here status grid --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["answers"])')" -ge "$1" ]
}

scores() { # at least so many
    [ "$(hactl_here status grid --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["scored"])')" -ge "$1" ]
}

training() { # a cell trains: some of its steps are done
    hactl_here status grid --json | python3 -c '
import json, sys
cells = json.load(sys.stdin)["cells"]
sys.exit(not any(s["stage"] == "train" and s["state"] == "running" and s["done"] > 0 for c in cells for s in c["stages"]))'
}

kill9() { # pid
    kill -KILL "$1"
    wait "$1" 2>/dev/null
}

start_evaluator --latency 700
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
TRAIN=120 EVAL=12 CHECKPOINT=1 write_grid grid.toml
check "the grid is submitted" hactl_here submit grid.toml
start_worker w1
worker=$HA_PID

check "a cell trains" until_true 120 training
kill9 "$worker"
start_worker w1
worker=$HA_PID
ok "the worker was killed in a training and started again"

check "a cell trains again" until_true 120 training
kill9 "$COORDINATOR"
sleep 1
start_coordinator
check "the worker was left running" kill -0 "$worker"
ok "the coordinator was killed in a training and started again"

start_judge j1
judge=$HA_PID
check "the evaluator is asked" until_true 240 test -s calls.txt
kill9 "$judge"
start_judge j1
judge=$HA_PID
ok "the judge worker was killed with calls in flight and started again"
check "some answers are scored" until_true 240 scores 1
kill9 "$judge"
start_judge j1
ok "the judge worker was killed between scores and started again"

check "some answers more" until_true 240 answers 24
kill9 "$COORDINATOR"
kill9 "$worker"
start_coordinator
start_worker w1
ok "coordinator and worker were killed together and started again"

check "the grid ends without gaps" hactl_here wait grid --timeout 400
stop_coordinator
check_complete 4 12
calls=$(wc -l <calls.txt | tr -d ' ')
possibly=$(query "SELECT count(*) FROM judge_call WHERE state IN ('unknown', 'begun')")
[ "$possibly" -gt 0 ] && ok "calls that were in flight are counted as possibly paid" || not_ok "no call in flight was counted as possibly paid"
if [ "$calls" -ge 48 ] && [ "$calls" -le $((48 + possibly)) ]; then
    ok "each answer was paid once, but for $possibly calls of unknown outcome"
else
    not_ok "calls: $calls for 48 answers with $possibly calls of unknown outcome"
fi
