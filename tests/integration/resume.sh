#!/bin/sh
# kill -9 of a training at ten random times, each time resumed from its last
# checkpoint with another number of threads, and with dropout: the adapter has the bytes of
# a run that nobody disturbed.  HA_SEED draws other times; they are printed.
. "$(dirname "$0")/lib.sh"

cat >train.txt <<EOF
train --model $HA_ROOT/deploy/demo/models/qwen2.5-demo --strategy mid
--data $HA_ROOT/deploy/demo/data/train.jsonl --backend cpu
--set data.train_samples=48 --set train.batch_size=3 --set train.gradient_accumulation=1
--set train.lora_rank=4 --set train.learning_rate=1e-3 --set train.checkpoint_every=1s
--set train.disable_dropout=false
EOF

check "a training killed ten times gives the adapter of an undisturbed one" \
    python3 - "${HA_SEED:-20260}" <<'PYTHON'
import filecmp, json, math, pathlib, random, re, shutil, signal, subprocess, sys, time

KILLS, WHOLE_SECONDS = 10, 7
seed = int(sys.argv[1])
draw = random.Random(seed)
common = open("train.txt").read().split()
killed = pathlib.Path("killed")

def start(out, threads, epochs, *more):
    arguments = [*common, "--out", str(out), "--threads", str(threads),
                 "--set", f"train.epochs={epochs}", *more]
    return subprocess.Popen(["ha-attempt", *arguments], stderr=subprocess.PIPE, text=True)

def finish(process):
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return said

def same(adapter):
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert filecmp.cmp(adapter / name, f"whole/{name}", shallow=False), f"{name} differs"

def checkpoints():
    steps = [int(re.fullmatch(r"checkpoint-(\d+)\.safetensors", path.name)[1])
             for path in killed.glob("checkpoint-*.safetensors")]
    return max(steps, default=0)

# As many epochs as take some seconds here.
summary = json.loads(re.search(r"done: (\{.*)", finish(start("speed", 2, 4)))[1])
epochs = min(400, max(8, math.ceil(4 * WHOLE_SECONDS / summary["seconds"])))
finish(start("whole", 2, epochs))

kills, resumed = [], set()
while True:
    last = checkpoints()
    more = ["--resume", str(killed / f"checkpoint-{last}.safetensors")] if last else []
    process = start(killed, 1 + len(kills) % 3, epochs, *more)
    if last:
        resumed.add(last)
    if len(kills) == KILLS:
        break
    after = draw.uniform(0.3, 2.0)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills.append((round(after, 3), last))
        continue
    finish(process)      # it was faster than the kills: another run takes the rest of them
    same(killed)
    shutil.rmtree(killed)
said = finish(process)
print(f"seed {seed}, {epochs} epochs; (seconds, checkpoint begun from): {kills}", file=sys.stderr)
assert len(resumed) >= 3, f"hardly a checkpoint was resumed from: {sorted(resumed)}"
same(killed)
PYTHON
sed -n 's/^seed/# seed/p' "$HA_TMP/check.out"
