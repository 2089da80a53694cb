#!/bin/sh
# Gangs: 1, 2 and 4 ranks give the adapter the same bytes and the same answers, at unequal speeds,
# after one of them was killed, and as jobs of a coordinator of which a rank is killed or stopped in
# every phase: the gang is tried again whole, from its checkpoint, and for the answers that are not
# there.
. "$(dirname "$0")/lib.sh"

cat >settings.txt <<TEXT
train.learning_rate=1e-3 train.precision=fp32 train.batch_size=3 train.gradient_accumulation=4
train.checkpoint_every=1s data.train_samples=24 data.eval_samples=2
TEXT

cat >by_hand.py <<'PYTHON'
import filecmp, json, math, pathlib, re, signal, subprocess, sys, time

root, WHOLE_SECONDS = sys.argv[1], 3
settings = [part for setting in open("settings.txt").read().split() for part in ("--set", setting)]
demo = f"{root}/deploy/demo"

def start(name, rank, ranks, *more):
    log = open(f"{name}-{rank}.log", "a")
    return subprocess.Popen(
        ["ha-attempt", "train", "--model", f"{demo}/models/qwen2.5-demo", "--strategy", "mid",
         "--data", f"{demo}/data/train.jsonl", "--eval", f"{demo}/data/eval.jsonl", "--backend", "cpu",
         "--threads", "1", "--out", name, "--ranks", str(ranks), "--rank", str(rank),
         "--comm", f"{name}.id", "--gang-minutes", "1", *settings, *more], stderr=log)

def gang(name, ranks, *more):
    return [start(name, rank, ranks, *more) for rank in range(ranks)]

def end(processes):
    codes = [process.wait(60) for process in processes]
    assert codes == [0] * len(codes), codes

def same(name):
    assert filecmp.cmp(f"{name}/adapter_model.safetensors", "one/adapter_model.safetensors",
                       shallow=False), f"{name} differs"

def checkpoints(name):
    return sorted(int(re.fullmatch(r"checkpoint-(\d+)\.safetensors", path.name)[1])
                  for path in pathlib.Path(name).glob("checkpoint-*.safetensors"))

# ---- answers: those of a base model, as no adapter is there yet

def answer(name, rank, ranks, *more):
    gang = ["--ranks", str(ranks), "--rank", str(rank), "--comm", f"{name}.id", "--gang-minutes", "1"]
    return subprocess.Popen(
        ["ha-attempt", "generate", "--model", f"{demo}/models/qwen2.5-demo", "--prompts", f"{demo}/data/eval.jsonl",
         "--backend", "cpu", "--threads", "1", "--out", f"{name}.jsonl", "--sequences", "8",
         "--set", "data.eval_samples=16", "--set", "generate.max_new_tokens=48", "--set", "generate.temperature=0.8",
         "--set", "generate.repetition_penalty=1.1", "--set", "generate.samples=3", *more,
         *(gang if ranks > 1 else [])], stderr=open(f"{name}-{rank}.log", "a"))

def answers(name):
    try:
        return open(f"{name}.jsonl").read().splitlines()
    except OSError:
        return []

def answering(name, ranks, *more):
    return [answer(name, rank, ranks, *more) for rank in range(ranks)]

def dawdle(process, other):
    while other.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)

SHARED = ("--set", "train.shard_weights=always")
end(answering("answers", 1))
wanted = sorted(answers("answers"))
assert len(wanted) == 48, len(wanted)
for name, ranks, more in (("answers2", 2, ()), ("answers2s", 2, SHARED), ("answers3s", 3, SHARED), ("answers4", 4, ())):
    processes = answering(name, ranks, *more)
    if name == "answers2":
        dawdle(processes[1], processes[0])
    end(processes)
    assert sorted(answers(name)) == wanted, f"{name} differ"
    assert more == () or f"shared by {ranks} ranks" in open(f"{name}-1.log").read()

# One is killed, one is told to stop, while there is still much to do: what was written is right.
for name, ranks, number, codes, more in (("killed", 2, signal.SIGKILL, [1, -9], ()),
                                         ("killed-s", 4, signal.SIGKILL, [1, -9, 1, 1], SHARED),
                                         ("told", 3, signal.SIGTERM, [75] * 3, ())):
    processes = answering(name, ranks, *more, "--set", "generate.samples=400")
    while len(answers(name)) < 10:
        assert processes[0].poll() is None, "it ended before it had answered"
        time.sleep(0.02)
    processes[1].send_signal(number)
    ended = [process.wait(20) for process in processes]
    assert ended == codes, (name, ended)
    first = [line for line in answers(name) if json.loads(line)["sample"] < 3]
    assert set(first) <= set(wanted), f"{name}: others than one process gives"
assert "rank 1 of the gang is gone" in open("killed-0.log").read()

# Ranks of different jobs do not answer together.
processes = [answer("mixed", 0, 2), answer("mixed", 1, 2, "--set", "generate.seed=7")]
assert [process.wait(20) for process in processes] == [1, 1]
assert "another job" in open("mixed-0.log").read() + open("mixed-1.log").read()

# ---- probes

def probe(name, rank, ranks, *more):
    gang = ["--ranks", str(ranks), "--rank", str(rank), "--comm", f"{name}.id", "--gang-minutes", "1"]
    return subprocess.Popen(
        ["ha-attempt", "probe", "--model", f"{demo}/models/qwen2.5-demo", "--data", f"{demo}/data/train.jsonl",
         "--backend", "cpu", "--threads", "1", "--json", "--set", "probe.pairs=11", *more,
         *(gang if ranks > 1 else [])], stdout=open(f"{name}-{rank}.json", "w"), stderr=open(f"{name}-{rank}.log", "a"))

def probing(name, ranks, *more):
    return [probe(name, rank, ranks, *more) for rank in range(ranks)]

end(probing("probe", 1))
for name, ranks, more in (("probe2", 2, ()), ("probe3s", 3, SHARED), ("probe4s", 4, SHARED)):
    end(probing(name, ranks, *more))
    assert filecmp.cmp("probe-0.json", f"{name}-0.json", shallow=False), f"the norms of {name} differ"
    assert more == () or f"shared by {ranks} ranks" in open(f"{name}-1.log").read()
for name, number, codes in (("probe-killed", signal.SIGKILL, [1, -9]), ("probe-told", signal.SIGTERM, [75, 75])):
    processes = probing(name, 2, *SHARED, "--set", "probe.pairs=5000")
    while " of 660" not in open(f"{name}-0.log").read():
        assert processes[0].poll() is None, "it ended before it was disturbed"
        time.sleep(0.01)
    processes[1].send_signal(number)
    ended = [process.wait(20) for process in processes]
    assert ended == codes, (name, ended)

# As many epochs as take some seconds here.
end(gang("speed", 1, "--set", "train.epochs=4"))
summary = json.loads(re.search(r"done: (\{.*)", open("speed-0.log").read())[1])
epochs = min(200, max(6, math.ceil(4 * WHOLE_SECONDS / summary["seconds"])))
open("epochs.txt", "w").write(str(epochs))
settings += ["--set", f"train.epochs={epochs}"]
end(gang("one", 1))

# The second of two is slower by far.
two = gang("two", 2)
while two[0].poll() is None:
    two[1].send_signal(signal.SIGSTOP)
    time.sleep(0.02)
    two[1].send_signal(signal.SIGCONT)
    time.sleep(0.02)
end(two)
same("two")

# Of ranks that share the weights the first keeps its checkpoints in time; the third is killed; all
# of them go on, with whole weights.
four = gang("four", 4, "--set", "train.shard_weights=always")
while not checkpoints("four"):
    assert four[0].poll() is None, "it ended before a checkpoint"
    time.sleep(0.02)
four[2].kill()
codes = [process.wait(20) for process in four]
assert codes[0] == codes[1] == codes[3] == 1 and codes[2] == -9, codes
said = open("four-0.log").read()
assert "shared by 4 ranks" in said and "device gather" in said, said
assert "rank 2" in said and "collective" in said, said
last = checkpoints("four")[-1]
end(gang("four", 4, "--resume", f"four/checkpoint-{last}.safetensors"))
assert f"goes on after step {last} of" in open("four-3.log").read()
same("four")

# One is asked to stop: all do, with a checkpoint, and a gang of another size goes on.
four = gang("stopped", 4)
while "rank 3 of a gang" not in open("stopped-3.log").read():
    time.sleep(0.02)
time.sleep(0.3)
four[3].terminate()
codes = [process.wait(30) for process in four]
assert codes == [75] * 4, codes
last = checkpoints("stopped")[-1]
end(gang("stopped", 2, "--resume", f"stopped/checkpoint-{last}.safetensors",
         "--set", "train.shard_weights=always"))
assert "shared by 2 ranks" in open("stopped-1.log").read()
same("stopped")
PYTHON
check "1, 2, 3 and 4 ranks by hand give one adapter, the same answers and norms" python3 by_hand.py "$HA_ROOT"

EPOCHS=$(cat epochs.txt)
echo "train.epochs=$EPOCHS" >>settings.txt

# ---- as jobs ----------------------------------------------------------------------------------

ha-attempt train --model "$HA_ROOT/deploy/demo/models/qwen2.5-demo" --strategy mid --out x --ranks 5 --rank 0 \
    --comm x.id --data "$HA_ROOT/deploy/demo/data/train.jsonl" 2>refused.txt
grep -q "more ranks than an optimizer step has micro-batches" refused.txt &&
    ok "more ranks than micro-batches are refused" || not_ok "more ranks than micro-batches: $(tail -n 1 refused.txt)"

start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
gang_grid '"local", "mid", "global", "full", "two"' 'gpus = 2' >small.toml
sed -e 's/^eval_samples = .*/eval_samples = 12/' -e 's/^max_new_tokens = .*/max_new_tokens = 64\ntemperature = 0.8\nsamples = 20/' \
    small.toml >grid.toml
sed 's/gpus = 2/gpus = 5/' grid.toml >large.toml
hactl_here submit large.toml --name large >large.txt 2>&1 && not_ok "more GPUs than micro-batches were taken" ||
    { grep -q "resources.gpus = 5.*gradient_accumulation = 4" large.txt && ok "more GPUs than micro-batches are refused" ||
        not_ok "more GPUs than micro-batches: $(tail -n 1 large.txt)"; }
check "a sweep of gangs is submitted" hactl_here submit grid.toml
hactl_here why grid >why.txt 2>&1
background w1 ha-worker --connect "$CONTROL" --files "$FILES" --name w1 --work-dir "$HA_TMP/w1" --slots 1 --threads 2 \
    --backend cpu --model-root / --insecure-loopback --set gpus=2 --set stall_step=10s --set stall_load=14s --set stop_grace=3s
WORKER=$HA_PID

# What undisturbed gangs give, while those of the sweep are waited for; that of mid is there.
mkdir hand
mv one hand/mid
for strategy in local global full 0-1; do
    # shellcheck disable=SC2046
    nice ha-attempt train --model "$HA_ROOT/deploy/demo/models/qwen2.5-demo" --strategy $strategy --backend cpu \
        --threads 2 --data "$HA_ROOT/deploy/demo/data/train.jsonl" --eval "$HA_ROOT/deploy/demo/data/eval.jsonl" \
        --out "hand/$strategy" --ranks 1 --rank 0 --comm "hand-$strategy.id" \
        $(for setting in $(cat settings.txt); do echo "--set $setting"; done) 2>>hand.log
done &
HAND=$!

# Of each job the first attempt is disturbed, each in another way.
cat >disturb.py <<'PYTHON'
import json, os, pathlib, signal, subprocess, sys, time

worker, control = int(sys.argv[1]), sys.argv[2]

def ranks():
    """{folder: {rank: pid}} of the attempts that run."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words = (path / "cmdline").read_text().split("\0")
        except (OSError, IndexError, ValueError):
            continue
        if parent == worker and "--rank" in words:
            folder = words[words.index("--dir") + 1]
            found.setdefault(folder, {})[int(words[words.index("--rank") + 1])] = int(path.name)
    return found

def joined(folder):
    try:
        return "rank 0 of a gang" in open(f"{folder}/attempt.log").read()
    except OSError:
        return False

def has_checkpoint(folder):
    return any(pathlib.Path(folder).glob("out/*/checkpoint/checkpoint-*"))

begun = {}

def answers(folder):
    """It has begun, and some answers were stored since."""
    if not joined(folder):
        return False
    n = status()["answers"]
    return n > begun.setdefault(folder, n) + 5

def spec_of(folder):
    try:
        return json.load(open(f"{folder}/job.json"))
    except (OSError, ValueError):
        return {"kind": ""}

def status():
    return json.loads(subprocess.run(["hactl", "status", "grid", "--json", "--connect", control, "--insecure-loopback"],
                                     capture_output=True, text=True).stdout)

NOW, STEPS = lambda folder: True, has_checkpoint
plans = {"train": [("killed while it prepares", NOW, 1, signal.SIGKILL),
                   ("rank 1 killed in a step", STEPS, 1, signal.SIGKILL),
                   ("rank 0 killed in a step", STEPS, 0, signal.SIGKILL),
                   ("stopped in a step", joined, 1, signal.SIGSTOP),
                   ("stopped while it prepares", NOW, 1, signal.SIGSTOP)],
         "generate": [("rank 1 killed while it answers", answers, 1, signal.SIGKILL),
                      ("stopped while it answers", answers, 1, signal.SIGSTOP)]}
PLANNED = sum(len(plan) for plan in plans.values())
seen, done, answering, skipped = {}, [], set(), 0

def finished():
    stages = [s for c in status()["cells"] for s in c["stages"] if s["stage"] in plans]
    assert not [s for s in stages if s["state"] == "failed"], stages
    return len([s for s in stages if s["state"] == "done"])

begin, looked = time.time(), 0
while True:
    for folder, pids in ranks().items():
        job = pathlib.Path(folder).name.split("-")[0]
        spec = spec_of(folder)
        if job not in seen and plans.get(spec["kind"]):
            seen[job] = (folder, plans[spec["kind"]].pop(0))
            if spec["kind"] == "generate":
                answering.add(job)
        if job in answering and seen[job] is None:
            skipped = max(skipped, sum(len(pairs) for pairs in spec.get("skip_answers", {}).values()))
        if job in seen and seen[job] and seen[job][0] == folder and len(pids) == 2:
            what, due, rank, number = seen[job][1]
            if due(folder):
                os.kill(pids[rank], number)
                done.append(what)
                print(f"{time.time() - begin:.1f} s: job {job}: {what}", flush=True)
                seen[job] = None
    if time.time() - looked > 1:
        looked = time.time()
        if finished() == 10:
            break
    assert time.time() - begin < 150, f"only {done} in {time.time() - begin:.0f} s"
    time.sleep(0.02)
assert len(done) == PLANNED, f"an attempt was too fast to be disturbed: {done}"
assert skipped > 5, f"the answers that were there ({skipped}) were made again"
PYTHON
check "every gang ends its work, however its first attempt was disturbed" python3 disturb.py "$WORKER" "$CONTROL"
cat "$HA_TMP/check.out" >&2
kill -TERM "$WORKER"
wait "$WORKER" 2>/dev/null
stop_coordinator
equal "seven attempts failed, and no more" "$(query "SELECT count(*) FROM attempt WHERE outcome = 'failed'")" 7
query "SELECT reason FROM attempt WHERE outcome = 'failed'" >reasons.txt
check "the rank that was killed is named" test "$(grep -c 'rank [01] of 2 (killed by signal 9' reasons.txt)" = 4
equal "the rank that stood still is named" "$(grep -c 'no sign of rank 1' reasons.txt)" 2
check "the rank that was not ready is named" grep -q "not ready within 10 s: rank 1" reasons.txt
equal "where their logs are is in the history" \
    "$(query "SELECT count(*) FROM event WHERE after = 'log' AND reason LIKE 'worker w1 (%/attempt%.log%'")" 7
cat reasons.txt >&2
wait $HAND
for strategy in local mid global full 0-1; do
    equal "$strategy has the bytes of an undisturbed gang" \
        "$(query "SELECT count(*) FROM artifact WHERE sha256 = '$(sha256sum "hand/$strategy/adapter_model.safetensors" | cut -d' ' -f1)'")" 1
done

# What one process answers with the adapters, and what the gangs did.
cat >compare.py <<'PYTHON'
import json, sqlite3, subprocess, sys

root, db = sys.argv[1], sqlite3.connect("run/coordinator.db")
processes = {name: subprocess.Popen(
    ["ha-attempt", "generate", "--model", f"{root}/deploy/demo/models/qwen2.5-demo", "--adapter", f"hand/{name}",
     "--prompts", f"{root}/deploy/demo/data/eval.jsonl", "--backend", "cpu", "--threads", "1",
     "--out", f"hand-{name}.jsonl", "--set", "data.eval_samples=12", "--set", "generate.max_new_tokens=64",
     "--set", "generate.temperature=0.8", "--set", "generate.samples=20"], stderr=subprocess.DEVNULL)
    for name in ("mid", "full")}
for name, process in processes.items():
    assert process.wait(60) == 0
    wanted = {(a["prompt"], a["sample"], a["raw"], a["finish"]) for a in map(json.loads, open(f"hand-{name}.jsonl"))}
    assert len(wanted) == 240, len(wanted)
    got = db.execute("SELECT prompt, sample, raw, finish FROM answer JOIN cell ON cell.id = answer.cell"
                     " WHERE cell.strategy = ?", (name,)).fetchall()
    assert len(got) == 240 and set(got) == wanted, f"{name}: {len(got)} answers, {len(set(got) & wanted)} of them right"
PYTHON
check "answers of gangs are those of one process" python3 compare.py "$HA_ROOT"

# ---- the embedded form ----------------------------------------------------------------------------

{
    sed -e 's/use = .*/use = ["mid", "two"]/' -e 's/^layers = "0-1"/layers = "auto:2"/' -e 's/^epochs = .*/epochs = 1/' -e '/^fuse/d' small.toml
    sed -n '/^\[\[judge\]\]/,$p' "$HA_ROOT/deploy/demo/grid.toml"
} >run.toml
unset HA_COORDINATOR
check "hactl run trains two cells in a gang" hactl run run.toml --name embedded --backend cpu
check "in two ranks" grep -rq "rank 0 of a gang of 2" runs/embedded
gang_did() { # a phrase of attempts' logs
    for log in $(grep -rl "rank 0 of a gang of 2" runs/embedded); do
        grep -q "$1" "$log" && return
    done
    return 1
}
check "and so it probes for the layers of one" gang_did "pairs, .* tokens in"
check "and answers" gang_did "answers to make"
hactl run run.toml --name twice --slots 2 >slots.txt 2>&1
equal "attempts side by side are refused with it" "$(tail -n 1 slots.txt)" \
    "hactl: --slots 2: with resources.gpus = 2 there is one attempt at a time"
