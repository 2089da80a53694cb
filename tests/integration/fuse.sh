#!/bin/sh
# One grid three times: each cell in a job of its own, all cells of a model in one
# job, and the latter with worker and coordinator killed in the middle and a cell
# that is cancelled and retried.  Adapters and answers are the same, byte for byte.
. "$(dirname "$0")/lib.sh"

all='"base", "local", "mid", "global", "full"'

grid() { # mode
    MODELS=llama-2-demo STRATEGIES=$all TRAIN=48 EVAL=6 CHECKPOINT=1 write_grid grid.toml
    printf '[schedule]\nfuse = "%s"\n' "$1" >>grid.toml
}

results() { # of the stopped coordinator
    query "SELECT c.name, p.name, p.sha256 FROM product p JOIN stage s ON s.result = p.result
           JOIN cell c ON c.id = s.cell WHERE p.kind = 'adapter' ORDER BY 1, 2;
           SELECT c.name, a.prompt, a.raw FROM answer a JOIN stage s ON s.result = a.result
           AND s.kind = 'generate' JOIN cell c ON c.id = s.cell ORDER BY 1, 2"
}

jobs() { # kind
    query "SELECT max(n) FROM (SELECT count(*) AS n FROM job_cell c JOIN job j ON j.id = c.job
           WHERE j.kind = '$1' GROUP BY j.id)"
}

finish() { # name
    check "the grid ends without gaps ($1)" hactl_here wait grid --timeout 300
    stop_coordinator
    results >"$1.txt"
}

next_run() { # name of the last one
    kill -TERM "$worker" 2>/dev/null
    wait "$worker" 2>/dev/null
    mv run "$1"
    rm -rf w1
    unset CONTROL FILES
}

start_evaluator
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
grid never
check "a grid of single cells is submitted" hactl_here submit grid.toml
start_worker w1
worker=$HA_PID
start_judge j1
finish never
equal "a job has one cell" "$(jobs train) $(jobs generate)" "1 1"
next_run never

# Measuring the steps of each cell by itself changes none of its bytes.
start_coordinator
grid always
echo 'time_alone_steps = 2' >>grid.toml
check "a grid of jobs with all cells is submitted" hactl_here submit grid.toml
check "status says who waits with whom" sh -c \
    "hactl why llama-2-demo/mid --connect $CONTROL --insecure-loopback"
start_worker w1
worker=$HA_PID
start_judge j2
check "the grid of jobs ends" hactl_here wait grid --timeout 300
check "its report is written" hactl_here report grid --out report
check "it has the measured times of each cell alone" python3 - <<'PYTHON'
import csv
rows = list(csv.DictReader(open("report/times.csv")))
assert len(rows) == 4, rows
for row in rows:
    assert row["Cells in its job"] == "4" and float(row["Alone s"]) > 0, row
PYTHON
hactl_here show llama-2-demo/mid >show.txt 2>&1
equal "show names the cells that were trained with it" "$(sed -n \
    's/^train done: job [0-9]* on w1; in one job with //p' show.txt)" \
    "llama-2-demo/local, llama-2-demo/global, llama-2-demo/full"
hactl_here why llama-2-demo/base >why.txt 2>&1
equal "why those that answer in one job" "$(grep -c 'base generate: done; in one job with llama-2-demo/local, llama-2-demo/mid, ' why.txt)" 1
finish always
equal "one job trains four cells, one answers for five" "$(jobs train) $(jobs generate)" "4 5"
equal "and those are all jobs" "$(query 'SELECT count(*) FROM job')" 2
check "adapters and answers are the same as alone" cmp never.txt always.txt
equal "adapters were compared" "$(grep -c adapter_model never.txt)" 4
next_run always

training() { # some steps are done
    hactl_here status grid --json | python3 -c '
import json, sys
cells = json.load(sys.stdin)["cells"]
sys.exit(not any(s["stage"] == "train" and s["state"] == "running" and s["done"] > 0 for c in cells for s in c["stages"]))'
}

start_coordinator
grid always
sed -i 's/train_samples = 48/train_samples = 144/' grid.toml
check "a longer grid is submitted" hactl_here submit grid.toml
start_worker w1
worker=$HA_PID
start_judge j3
check "its cells train" until_true 120 training
kill -KILL "$worker"
wait "$worker" 2>/dev/null
start_worker w1
worker=$HA_PID
check "they train again" until_true 120 training
check "one of them is cancelled" hactl_here cancel grid --cell llama-2-demo/full
check "the others go on" until_true 120 training
kill -KILL "$COORDINATOR"
wait "$COORDINATOR" 2>/dev/null
start_coordinator
check "the cancelled one is retried" hactl_here retry grid --cell llama-2-demo/full
finish killed
query "SELECT subject, before, after, reason FROM event WHERE job > 0 ORDER BY id" >events.txt
next_run killed

start_coordinator
sed -i 's/"always"/"never"/' grid.toml
check "the longer grid is submitted for single cells" hactl_here submit grid.toml
start_worker w1
worker=$HA_PID
start_judge j4
finish alone
check "kills and a cancelled cell change no byte" cmp alone.txt killed.txt
