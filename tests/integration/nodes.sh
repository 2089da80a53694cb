#!/bin/sh
# Gangs over several workers: 2 workers with a rank each, and with two, train the adapter that one
# process does; and so they do after a rank, a daemon or the coordinator was killed, with the attempts
# charged that crashed and no others.  tests/fault has every phase of a gang.
. "$(dirname "$0")/lib.sh"

cat >settings.txt <<TEXT
train.precision=fp32 train.batch_size=3 train.gradient_accumulation=4
train.checkpoint_every=1s data.train_samples=24 data.eval_samples=2
TEXT

by_hand() { # out layers epochs [rate]
    # shellcheck disable=SC2046
    ha-attempt train --model "$HA_ROOT/deploy/demo/models/qwen2.5-demo" --strategy "$2" --backend cpu --threads 1 \
        --data "$HA_ROOT/deploy/demo/data/train.jsonl" --eval "$HA_ROOT/deploy/demo/data/eval.jsonl" \
        --out "$1" --ranks 1 --rank 0 --comm "$1.id" $(for setting in $(cat settings.txt) "train.epochs=$3" "train.learning_rate=${4:-1e-3}"; do echo "--set $setting"; done) 2>"$1.log"
}

# As many epochs as take four seconds here in one process: two ranks then come to a checkpoint, which
# is written after one second, also where this was measured beside other work.
by_hand speed mid 4 || not_ok "an attempt by hand: $(tail -n 1 speed.log)"
EPOCHS=$(python3 -c 'import json, math, re, sys
summary = json.loads(re.search(r"done: (\{.*)", open("speed.log").read())[1])
print(min(1000, max(6, math.ceil(4 * 4 / summary["seconds"]))))')

start_coordinator() {
    background coordinator ha-coordinator --dir "$HA_TMP/run" --listen "${CONTROL:-tcp://127.0.0.1:0}" \
        --files "${FILES:-tcp://127.0.0.1:0}" --insecure-loopback --set heartbeat_ms=500 --set late_ms=1500 \
        --set lost_ms=2500 --set gang_abort=4s
    COORDINATOR=$HA_PID
    until_true 20 grep -q 'tcp://' "$HA_TMP/run/endpoint" || return 1
    CONTROL=$(sed -n 1p "$HA_TMP/run/endpoint")
    FILES=$(sed -n 2p "$HA_TMP/run/endpoint")
    export HA_COORDINATOR="$CONTROL"
}
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"

gang_grid '"mid"' 'gpus = 2
nodes = 2' >grid.toml
sed 's/gpus = 2/gpus = 3/' grid.toml >odd.toml
hactl_here submit odd.toml --name odd >odd.txt 2>&1
check "GPUs that the nodes cannot share equally are refused" grep -q "resources.nodes = 2: each node has an equal part" odd.txt
check "a dry run shows the nodes" sh -c 'hactl submit grid.toml --dry-run | grep -q "nodes *= *2"'
check "a sweep of gangs is submitted" hactl_here submit grid.toml

cat >cluster.py <<'PYTHON'
import json, os, pathlib, re, signal, subprocess, sys, time

control, files, coordinator, root, epochs = sys.argv[1:6]
tmp = pathlib.Path.cwd()
begin = time.time()

class Process:
    def __init__(self, name, *words):
        self.name, self.words = name, words
        self.start()

    def start(self):
        self.child = subprocess.Popen(self.words, stderr=open(f"{self.name}.log", "a"), stdout=subprocess.DEVNULL)

    def kill(self):
        self.child.kill()
        self.child.wait()

def worker(name, gpus):
    return Process(name, "ha-worker", "--connect", control, "--files", files, "--name", name, "--work-dir", str(tmp / name),
                   "--slots", "1", "--threads", "1", "--backend", "cpu", "--model-root", "/", "--insecure-loopback",
                   "--set", f"gpus={gpus}", "--set", "stall_step=24s", "--set", "stall_load=24s", "--set", "stop_grace=2s")

def hactl(*words):
    return subprocess.run(["hactl", *words, "--connect", control, "--insecure-loopback"], capture_output=True,
                          text=True).stdout

def until(what, condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)

def ranks(job=None):
    """{rank: (pid, worker)} of the gang that runs, newest attempt."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "--rank" in words and "--dir" in words and str(tmp) in words[words.index("--dir") + 1]:
            folder = pathlib.Path(words[words.index("--dir") + 1])
            if job is None or folder.name.split("-")[0] == job:
                found[int(words[words.index("--rank") + 1])] = (int(path.name), folder)
    return found

def stages(sweep):
    out = hactl("status", sweep, "--json")
    return [s for c in json.loads(out)["cells"] for s in c["stages"] if s["stage"] == "train"] if out else []

def trained(sweep):
    found = stages(sweep)
    assert not [s for s in found if s["state"] == "failed"], found
    return len([s for s in found if s["state"] == "done"])

def trains(folder):
    try:
        return json.loads((folder / "job.json").read_text())["kind"] == "train"
    except (OSError, ValueError):
        return False

def steps(folder):
    try:
        return "rank 0 of a gang" in (folder / "attempt.log").read_text()
    except OSError:
        return False

def has_checkpoint(folder):
    return any(folder.glob("out/*/checkpoint/checkpoint-*"))

workers = {name: worker(name, 1) for name in ("wa", "wb")}
boss = Process("coordinator", "ha-coordinator", "--dir", str(tmp / "run"), "--listen", control, "--files", files,
               "--insecure-loopback", "--set", "heartbeat_ms=500", "--set", "late_ms=1500", "--set", "lost_ms=2500",
               "--set", "gang_abort=4s")

def owner(rank):
    return workers[rank[1].parent.parent.name if rank[1].parent.parent.name in workers else rank[1].parts[len(tmp.parts)]]

def next_gang(seen):
    """The ranks of a job that was not disturbed yet."""
    found = {}
    def look():
        for rank, (pid, folder) in ranks().items():
            job = folder.name.split("-")[0]
            if trains(folder) and job not in seen and set(gang := ranks(job)) == {0, 1}:
                found[job] = gang
                return True
        return False
    until("the next gang", look)
    return next(iter(found.items()))

def kill_rank(gang):
    until("a checkpoint", lambda: has_checkpoint(gang[0][1]))
    os.kill(gang[1][0], signal.SIGKILL)

def kill_daemon(gang):
    victim = owner(gang[0])
    victim.kill()
    victim.start()

def restart_before_go(gang):
    os.kill(gang[1][0], signal.SIGSTOP)
    time.sleep(0.8)
    assert not steps(gang[0][1]), "it was too fast to be stopped"
    boss.kill()
    os.kill(gang[1][0], signal.SIGCONT)
    time.sleep(0.5)
    boss.start()

plan = [("the coordinator restarts before all are ready", restart_before_go),
        ("a rank is killed", kill_rank),
        ("the daemon of part 0 is killed while they prepare", kill_daemon)]
seen = set()
for what, act in plan:
    job, gang = next_gang(seen)
    seen.add(job)
    print(f"{time.time() - begin:.1f} s: job {job}: {what}", flush=True)
    act(gang)
until("all are trained", lambda: trained("grid") == len(plan), 120)
print(f"{time.time() - begin:.1f} s: all are trained", flush=True)

for name in ("wc", "wd"):
    workers[name] = worker(name, 2)
text = open("grid.toml").read().replace("gpus = 2", "gpus = 4")
text = re.sub(r'(?s)\[\[strategy\]\].*?(?=\[data\])', "", text)
text = text.replace("learning_rate = 1e-3", "learning_rate = 2e-3").replace('name = "grid"', 'name = "wide"', 1)
open("wide.toml", "w").write(text)
print(hactl("submit", "wide.toml"))
until("a gang of four", lambda: {3} <= set(ranks()))
open("wide.txt", "w").write(hactl("workers") + hactl("why", "wide") + hactl("status", "wide"))
until("the wide one is trained", lambda: trained("wide") == 1)
open("history.txt", "w").write(hactl("log"))
until("and answers, two ranks with nothing to say", lambda: json.loads(hactl("status", "wide", "--json"))["answers"] >= 2)
for each in workers.values():
    each.child.terminate()
for each in workers.values():
    each.child.wait(20)
boss.child.terminate()
boss.child.wait(20)
print(f"{time.time() - begin:.1f} s: the end", flush=True)
PYTHON
kill -TERM "$COORDINATOR"
wait "$COORDINATOR" 2>/dev/null
check "every gang ends its training, whatever was killed" python3 cluster.py "$CONTROL" "$FILES" - "$HA_ROOT" "$EPOCHS"
cat "$HA_TMP/check.out" >&2
query "SELECT job, number, outcome, reason FROM attempt WHERE outcome <> 'done'" >&2
equal "the rank that was killed is the only crash" "$(query "SELECT count(*) FROM attempt WHERE outcome = 'failed'")" 1
check "it is named" sh -c "sqlite3 '$HA_TMP/run/coordinator.db' \"SELECT reason FROM attempt WHERE outcome = 'failed'\" | grep -q 'rank 1 of 2 (killed by signal 9'"
equal "a worker that was killed costs no attempt" "$(query "SELECT count(*) FROM attempt WHERE outcome = 'lost'")" 1
check "what it printed last is in the history, with its worker and its log" sh -c "grep -A 40 'log: worker w[ab] (.*attempt-1.log' history.txt | grep -q 'rank 1 of a gang of 2'"
equal "the parts of a gang are in the history" \
    "$(query "SELECT count(DISTINCT reason) > 0 FROM event WHERE reason LIKE '%ranks: 0-0 on w_, 1-1 on w_'")" 1
for pair in "mid 0-1" "1-2 wide"; do
    set -- $pair
    by_hand "hand-$1" "$1" "$EPOCHS" &
    hand=$!
    if [ "$2" = wide ]; then
        by_hand hand-wide mid "$EPOCHS" 2e-3
    else
        by_hand "hand-$2" "$2" "$EPOCHS"
    fi
    wait "$hand"
done
for strategy in mid 0-1 1-2; do
    equal "$strategy has the bytes of one process" \
        "$(query "SELECT count(*) FROM artifact WHERE sha256 = '$(sha256sum "hand-$strategy/adapter_model.safetensors" | cut -d' ' -f1)'")" 1
done
equal "four ranks on two workers have the bytes of one process" \
    "$(query "SELECT count(*) FROM artifact WHERE sha256 = '$(sha256sum "hand-wide/adapter_model.safetensors" | cut -d' ' -f1)'")" 1

# What one process answers with the adapters, and what gangs over workers did.
cat >compare.py <<'PYTHON'
import json, sqlite3, subprocess, sys

db = sqlite3.connect("run/coordinator.db")
for sweep, cell, adapter in (("grid", "mid", "hand-mid"), ("grid", "two", "hand-0-1"), ("wide", "mid", "hand-wide")):
    subprocess.run(["ha-attempt", "generate", "--model", f"{sys.argv[1]}/deploy/demo/models/qwen2.5-demo", "--adapter", adapter,
                    "--prompts", f"{sys.argv[1]}/deploy/demo/data/eval.jsonl", "--backend", "cpu", "--threads", "1",
                    "--out", f"{adapter}.jsonl", "--set", "data.eval_samples=2", "--set", "generate.max_new_tokens=4"],
                   check=True, stderr=subprocess.DEVNULL)
    wanted = {(a["prompt"], a["raw"]) for a in map(json.loads, open(f"{adapter}.jsonl"))}
    got = db.execute("SELECT prompt, raw FROM answer JOIN cell ON cell.id = answer.cell JOIN sweep ON sweep.id = cell.sweep"
                     " WHERE sweep.name = ? AND cell.strategy = ?", (sweep, cell)).fetchall()
    assert len(wanted) == len(got) == 2 and set(got) == wanted, (sweep, cell, got, wanted)
PYTHON
check "answers of gangs over workers are those of one process" python3 compare.py "$HA_ROOT"
cat wide.txt >&2
