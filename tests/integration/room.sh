#!/bin/sh
# Making room: an attempt stops at a checkpoint for a sweep of higher priority, and before its
# time limit, and goes on from there.
. "$(dirname "$0")/lib.sh"

train() { # sweep, python expression over s, its training
    hactl_here status "$1" --json | python3 -c '
import json, sys
s = [s for c in json.load(sys.stdin)["cells"] for s in c["stages"] if s["stage"] == "train"][0]
sys.exit(not eval(sys.argv[1]))' "$2"
}

sweep() { # name, learning rate, pairs, lines of [sweep], lines at the end
    MODELS=qwen2.5-demo STRATEGIES='"mid"' TRAIN=$3 EVAL=2 TOKENS=4 write_grid part.toml
    sed -e "s/^name = \"grid\"/name = \"$1\"\n$4/" -e "s/^learning_rate = .*/learning_rate = $2/" \
        -e '/^\[\[judge\]\]/,$d' part.toml
    printf '[retry]\nmax_attempts = 100\n%s\n' "$5"
}

echo 0 >evaluator.port
background coordinator ha-coordinator --dir "$HA_TMP/run" --listen tcp://127.0.0.1:0 \
    --files tcp://127.0.0.1:0 --insecure-loopback --set preempt_after=1s --log-format json
COORDINATOR=$HA_PID
until_true 20 grep -q 'tcp://' run/endpoint
CONTROL=$(sed -n 1p run/endpoint)
FILES=$(sed -n 2p run/endpoint)
sweep low 1e-3 2500 '' '' >low.toml
sweep high 2e-3 24 'priority = 5' '' >high.toml
sweep limit 3e-3 1500 '' '[resources]
time_limit = "2s"' >limit.toml
check "a sweep is submitted" hactl_here submit low.toml
background w1 ha-worker --connect "$CONTROL" --files "$FILES" --name w1 --work-dir w1 --slots 1 --threads 1 \
    --backend cpu --model-root / --insecure-loopback --log-format json
check "it trains" until_true 60 train low 's["state"] == "running" and s["done"] > 0'
check "one of higher priority is submitted" hactl_here submit high.toml
check "it gets the only place" until_true 30 train high 's["state"] in ("running", "done")'
check "its answers come first, too" hactl_here wait high --timeout 60
hactl_here log low >low.log 2>&1
check "the other was told why" grep -q 'running -> stopping: job [0-9]* of a sweep with higher priority needs the place' low.log
check "it goes on" hactl_here wait low --timeout 60
check "a sweep with a time limit ends" sh -c "hactl submit limit.toml --connect $CONTROL --insecure-loopback && hactl wait limit --timeout 90 --connect $CONTROL --insecure-loopback"
hactl_here log limit >limit.log 2>&1
check "its attempt was stopped by that" grep -q 'its time limit of 2 s' limit.log
stop_coordinator
equal "logs are JSON when that is asked for" "$(python3 -c '
import json
for name in ("coordinator", "w1"):
    lines = [json.loads(line) for line in open(name + ".log")]
    print(len(lines) > 0, {tuple(line) for line in lines}, {line["program"] for line in lines})')" \
    "True {('time', 'level', 'program', 'message')} {'ha-coordinator'}
True {('time', 'level', 'program', 'message')} {'ha-worker'}"
equal "making room cost no attempt" \
    "$(query "SELECT sum(j.crashes) FROM job j JOIN sweep s ON s.id = j.sweep WHERE s.name IN ('low', 'high')")" 0
for name in low limit; do
    equal "$name: a later attempt went on from the checkpoint of a stopped one" \
        "$(query "SELECT count(*) > 0 FROM attempt a JOIN job j ON j.id = a.job JOIN sweep s ON s.id = j.sweep
            WHERE s.name = '$name' AND a.outcome = 'stopped' AND a.progress = 1 AND j.attempts > a.number")" 1
done
