#!/bin/sh
# The engine on a device whose memory the host cannot touch: the CUDA backend's own code over
# the emulated device of tests/cuda, against the CPU.  A pointer of the device that the host
# follows, or one of the host that the device is given, ends the program.
. "$(dirname "$0")/lib.sh"

MODULE=$HA_BUILD/tests/cuda/ha-kernels-cuda-emulated.so
if [ ! -f "$MODULE" ]; then
    echo "skip device: the emulated device is built where nvcc is"
    exit 0
fi
HA_CUDA_MODULE=$(realpath "$MODULE")
export HA_CUDA_MODULE
unset HA_GPU_MEMORY_LIMIT

DEMO=$HA_ROOT/deploy/demo
PAIRS=$HA_TMP/four.jsonl
MODEL=$DEMO/models/llama-3.1-demo

# The shortest rows: each thread of a kernel is a fiber here.
python3 - "$DEMO/data" <<'PYTHON'
import sys
for name, out, n in (("train", "four", 4), ("eval", "two", 2)):
    rows = sorted(open(f"{sys.argv[1]}/{name}.jsonl"), key=len)[:n]
    open(out + ".jsonl", "w").writelines(rows)
PYTHON

equal "the emulated device is what \"cuda\" opens" \
    "$(ha-attempt backend --backend cuda | grep -c 'cuda: GPU 0, emulated on the CPU')" 1

train() { # backend, out, further options...
    train_on=$1 train_out=$2
    shift 2
    exec ha-attempt train --model "$MODEL" --data "$PAIRS" --out "$train_out" --backend "$train_on" \
        --threads 1 --set data.train_samples=4 --set train.batch_size=2 \
        --set train.gradient_accumulation=1 --set train.lora_rank=4 --set train.max_length=56 \
        --set train.learning_rate=1e-2 --set train.tokens_per_microbatch=64 "$@"
}

same_adapter() {
    cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors"
}

# ---- families: training and scores ------------------------------------------------

# Limits: activations are rounded to bf16, by up to 2^-9 each, about ten times a layer in 7 to 9
# layers: sqrt(90) 2^-9 / sqrt(3), about 1 % of a hidden state, and of the logits of a token.  A sum
# over the tokens of an answer is off by less than that, as its errors differ.  An adapter after two
# steps of AdamW, whose first steps are the sign of the gradient, is compared by what it does.
compare_scores() { # CPU's, device's
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
cpu, gpu = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
assert len(cpu) == len(gpu) > 0
for a, b in zip(cpu, gpu):
    for side in ("chosen", "rejected"):
        x, y = a[side + "_logps"], b[side + "_logps"]
        assert len(x) == len(y)
        assert max(abs(p - q) for p, q in zip(x, y)) < 0.15, (a["row"], side)
        assert abs(a[side] - b[side]) < 0.005 * abs(a[side]) + 0.1, (a["row"], side, a[side], b[side])
assert any(a["chosen"] != b["chosen"] for a, b in zip(cpu, gpu)), "the device computes in f32"
PYTHON
}

compare_metrics() { # CPU's, device's
    python3 - "$1" "$2" <<'PYTHON'
import json, math, sys
cpu, gpu = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
assert [row["step"] for row in cpu] == [row["step"] for row in gpu]
assert gpu[0]["rewards/margins"] == 0 and abs(gpu[0]["loss"] - math.log(2)) < 1e-6, gpu[0]
assert gpu[0]["rewards/chosen"] == 0 == gpu[0]["rewards/rejected"], gpu[0]
moved = max(abs(row[name]) for row in cpu for name in row if name.endswith(("/margins", "/chosen"))
            and "rewards" in name)
assert moved > 0.01, cpu
for a, b in zip(cpu, gpu):
    for name in a:
        near = 0.05 * abs(a[name]) + (0.1 if "loss" in name or "rewards" in name else 1e-3)
        if "accurac" not in name:
            assert abs(a[name] - b[name]) <= near, (name, a[name], b[name])
PYTHON
}

# Llama 2 is Llama 3.1 with as many kv heads as heads and plain RoPE (model_device_emulated).
for name in qwen2.5-demo qwen3-demo llama-3.1-demo; do
    MODEL=$DEMO/models/$name
    for on in cpu cuda; do
        check "$name: train on $on" eval \
            '(train $on $name-$on --strategy mid --eval two.jsonl --metrics $name-$on.jsonl)'
        ha-attempt score --model "$MODEL" --adapter "$name-cpu" --data two.jsonl --per-token \
            --set train.max_length=56 --backend $on --threads 1 >"$name-$on.scores" 2>score.log
    done
    check "$name: metrics as on the CPU, first margins of 0" compare_metrics $name-cpu.jsonl $name-cuda.jsonl
    check "$name: scores as on the CPU" compare_scores $name-cpu.scores $name-cuda.scores
done

# ---- probe, generation, merge ------------------------------------------------------------

for on in cpu cuda; do
    ha-attempt probe --model "$MODEL" --data "$PAIRS" --set probe.pairs=1 --set train.max_length=56 --backend $on --threads 1 \
        >$on.norms 2>probe.log
    ha-attempt generate --model "$MODEL" --prompts two.jsonl --adapter llama-3.1-demo-cpu \
        --adapter llama-3.1-demo-cuda --out $on.answers --set generate.max_new_tokens=8 --backend $on \
        --threads 1 2>generate.log || not_ok "generate on $on: $(tail -n 1 generate.log)"
    sort -o $on.answers $on.answers
done
check "a probe's norms as on the CPU" python3 - <<'PYTHON'
import re
cpu, gpu = (open(name + ".norms").read() for name in ("cpu", "cuda"))
number = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
a, b = ([float(x) for x in number.findall(text)] for text in (cpu, gpu))
assert len(a) == len(b) > 20, (len(a), len(b))
assert all(abs(x - y) <= 0.05 * abs(x) + 1e-6 for x, y in zip(a, b)), [p for p in zip(a, b)]
assert a != b
PYTHON
check "answers as on the CPU, but for a near tie" python3 - <<'PYTHON'
import json
cpu, gpu = ([json.loads(line) for line in open(name + ".answers")] for name in ("cpu", "cuda"))
assert len(cpu) == len(gpu) == 4
same = sum(a["raw"] == b["raw"] for a, b in zip(cpu, gpu))
assert same >= 3, (same, [(a["raw"], b["raw"]) for a, b in zip(cpu, gpu)])
PYTHON
planned=$(sed -n 's/.*"memory_planned":\([0-9]*\).*/\1/p' generate.log | tail -n 1)
peak=$(sed -n 's/.*"memory_peak":\([0-9]*\).*/\1/p' generate.log | tail -n 1)
[ "$peak" -le "$planned" ] && [ $((peak * 100)) -ge $((planned * 95)) ]
equal "answers take what was planned for them, within 5 % ($peak of $planned)" $? 0
ha-attempt generate --model "$MODEL" --prompts two.jsonl --adapter llama-3.1-demo-cpu \
    --adapter llama-3.1-demo-cuda --out invariant.answers --set generate.max_new_tokens=8 \
    --set generate.batch_invariant=true --backend cuda --threads 1 2>invariant.log
equal "answers of separate rows are made" $? 0
sort -o invariant.answers invariant.answers
check "and are the others, but for a near tie" python3 - <<'PYTHON'
import json, re
one, other = ([json.loads(line) for line in open(name + ".answers")] for name in ("cuda", "invariant"))
assert len(one) == len(other) == 4
assert sum(a["raw"] == b["raw"] for a, b in zip(one, other)) >= 3
def summaries(name):
    return [json.loads(text) for text in re.findall(r"done: (\{.*)", open(name + ".log").read())]
for name, on in (("generate", False), ("invariant", True)):
    found = summaries(name)
    assert len(found) == 2 and all(one["batch_invariant"] is on for one in found), found
for one in summaries("invariant"):
    assert 0.95 * one["memory_planned"] <= one["memory_peak"] <= one["memory_planned"], one
PYTHON
check "an adapter of the device merges" ha-attempt merge --model "$MODEL" \
    --adapter llama-3.1-demo-cuda --out merged

# ---- bits: again, resumed, in lock-step ----------------------------------------------------

unset HA_EMULATED_NAME
check "a run" eval '(train cuda whole --strategy mid --choices choices --metrics whole.jsonl) 2>whole.log'
equal "times its products" "$(grep -c 'products are timed' whole.log)" 1
equal "and keeps that" "$(ls choices/*.choices | wc -l)" 1
check "the run again" eval '(train cuda again --strategy mid --choices choices) 2>again.log'
equal "multiplies as the file says" "$(grep -c 'products are multiplied as choices/' again.log)" 1
check "to the same bytes" same_adapter whole again
check "a run without the folder" eval '(train cuda plain --strategy mid) 2>plain.log'
if same_adapter whole plain >/dev/null; then
    not_ok "choices show in bits (else this shows nothing)"
else
    ok "choices show in bits"
fi

# Stop it after its first step: the metrics come through a pipe.
mkfifo pipe
(train cuda cut --strategy mid --choices choices --metrics pipe) 2>cut.log &
pid=$!
{
    read -r text && printf '%s\n' "$text"
    kill -TERM $pid
    cat
} <pipe >part.jsonl
wait $pid
equal "SIGTERM ends it with exit code 75" $? 75
point=cut/checkpoint-$(wc -l <part.jsonl).safetensors
check "it goes on with the choices of the checkpoint" eval \
    '(train cuda cut --strategy mid --metrics part.jsonl --resume "$point")'
check "to the same bytes" same_adapter whole cut
check "and the same metrics" cmp whole.jsonl part.jsonl
HA_EMULATED_NAME="another device" && export HA_EMULATED_NAME
(train cuda other --strategy mid --resume "$point") 2>other.log
equal "on another kind of device it is refused" $? 1
grep -q 'choices of products in .* are left aside: .*made on emulated on the CPU.*this is another device' other.log
equal "with the reason" $? 0
check "but for --allow-inexact" eval \
    '(train cuda other --strategy mid --resume "$point" --allow-inexact)'
for file in choices/*.choices; do
    printf 'x' | dd of="$file" bs=1 seek=40 conv=notrunc 2>/dev/null
done
for i in $(seq 70); do touch -d '2 days ago' "choices/$i.choices"; done
unset HA_EMULATED_NAME
check "a damaged file of choices is no error" eval '(train cuda mended --strategy mid --choices choices) 2>mended.log'
grep -q 'left aside, products are timed anew: .*check sum' mended.log
equal "products are timed anew, with the reason" $? 0
check "to the same bytes" same_adapter whole mended
equal "and no more than 64 files are kept" "$(ls choices/*.choices | wc -l)" 64

check "another strategy" eval '(train cuda full --strategy full --choices choices --set train.beta=0.5)'
# ---- lock-step, and memory -------------------------------------------------------------------

job() { # folder: mid and full in one job; its lines go to FOLDER.lines
    mkdir -p "$1/inputs"
    cp "$PAIRS" "$1/inputs/train.jsonl"
    cat >"$1/job.json" <<JSON
{"kind": "train", "sweep": "test", "job": 7, "threads": 1, "backend": "cuda",
 "model": {"name": "demo", "path": "$MODEL", "hub_id": "", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": []}, "choices": "$HA_TMP/choices",
 "settings": {"data": {"train_samples": 4},
              "train": {"batch_size": 2, "gradient_accumulation": 1, "lora_rank": 4,
                        "learning_rate": 0.01, "max_length": 56,
                        "tokens_per_microbatch": 64}},
 "cells": [{"id": 21, "name": "demo/mid", "layers": [3, 4]},
           {"id": 22, "name": "demo/full", "layers": [0, 1, 2, 3, 4, 5, 6],
            "settings": {"train": {"beta": 0.5}}}],
 "skip_answers": {}}
JSON
    (exec ha-attempt job --dir "$1" --contract-fd 3 3>"$1.lines")
}

of_summary() { # folder, key: of the first cell
    python3 - "$1.lines" "$2" <<'PYTHON'
import json, sys
cells = [line for line in map(json.loads, open(sys.argv[1])) if line["type"] == "cell"]
print(cells[0]["summary"][sys.argv[2]])
PYTHON
}

check "both in lock-step" job both
check "one is as it was alone" same_adapter whole both/out/21/adapter
check "and so is the other" same_adapter full both/out/22/adapter
planned=$(of_summary both memory_planned)
peak=$(of_summary both memory_peak)
[ "$peak" -le "$planned" ] && [ $((peak * 100)) -ge $((planned * 94)) ]
equal "the device holds what was planned, less 5 % for a driver ($peak of $planned)" $? 0

HA_EMULATED_FAULT=cudaMalloc:20:2 && export HA_EMULATED_FAULT # cudaErrorMemoryAllocation
job starved 2>starved.log
equal "memory that runs out against the plan has its exit code" $? 79
grep '"type":"error"' starved.lines | grep -q 'the device has no memory left'
equal "and its reason" $? 0
unset HA_EMULATED_FAULT

HA_GPU_MEMORY_LIMIT=$((planned - 300000)) && export HA_GPU_MEMORY_LIMIT
check "under a limit" job limited
[ "$(of_summary limited layers_run_again)" -gt 0 ]
equal "layers are run again" $? 0
[ "$(of_summary limited memory_peak)" -le "$HA_GPU_MEMORY_LIMIT" ]
equal "the limit holds" $? 0
check "and changes no bit" same_adapter full limited/out/22/adapter
HA_GPU_MEMORY_LIMIT=37M
(train cuda none --strategy full) 2>none.log
equal "too little is refused" $? 1
grep -q '37 MiB may be used (.*HA_GPU_MEMORY_LIMIT' none.log
equal "by its name" $? 0
ha-attempt plan --model "$MODEL" --json >plan.json
equal "and planned for" \
    "$(python3 -c 'import json; print(json.load(open("plan.json"))["gpu"]["memory_limit_bytes"])')" $((37 << 20))
unset HA_GPU_MEMORY_LIMIT

# ---- a gang whose ranks share the weights ---------------------------------------------

head -n 2 "$PAIRS" >pair.jsonl

gang() { # name, further options...: two ranks on the device, the collective through shared memory
    gang_name=$1
    shift
    for rank in 1 0; do
        ha-attempt train --model "$MODEL" --data pair.jsonl --out "$gang_name" --backend cuda --threads 1 \
            --strategy 6 --ranks 2 --rank $rank --comm "$gang_name.id" --gang-minutes 1 --collective shm \
            --set data.train_samples=2 --set train.batch_size=1 --set train.gradient_accumulation=2 \
            --set train.lora_rank=4 --set train.max_length=56 --set train.tokens_per_microbatch=64 \
            --set train.learning_rate=1e-2 "$@" 2>"$gang_name-$rank.log" &
    done
    wait
}

of_gang() { # name, member of the summary
    python3 - "$1-0.log" "$2" <<'PYTHON'
import json, re, sys
print(json.loads(re.search(r"done: (\{.*)", open(sys.argv[1]).read())[1])[sys.argv[2]])
PYTHON
}

gang whole_gang
equal "a gang keeps weights whole where they fit" "$(of_gang whole_gang weight_shards)" 1
HA_GPU_MEMORY_LIMIT=$(($(of_gang whole_gang memory_planned) - 100000)) && export HA_GPU_MEMORY_LIMIT
gang never --set train.shard_weights=never
grep -q 'let train.shard_weights be "auto"' never-0.log
equal "where they do not, it is refused with the mend" $? 0
gang shared
equal "or they are shared" "$(of_gang shared weight_shards)" 2
[ "$(of_gang shared memory_peak)" -le "$HA_GPU_MEMORY_LIMIT" ]
equal "within the limit" $? 0
[ "$(of_gang shared weights_gathered_bytes)" -gt 0 ]
equal "layer by layer" $? 0
check "and no bit changes" same_adapter whole_gang shared
unset HA_GPU_MEMORY_LIMIT

answering() { # name, further options...: one prompt for each of two ranks
    gang_name=$1
    shift
    for rank in 1 0; do
        ha-attempt generate --model "$MODEL" --prompts two.jsonl --out "$gang_name.answers" --backend cuda --threads 1 \
            --ranks 2 --rank $rank --comm "$gang_name.id" --gang-minutes 1 --collective shm \
            --set generate.max_new_tokens=4 "$@" 2>"$gang_name-$rank.log" &
    done
    wait
    sort -o "$gang_name.answers" "$gang_name.answers"
}

answering whole_answers
equal "two ranks answer with whole weights" "$(wc -l <whole_answers.answers) $(of_gang whole_answers weight_shards)" "2 1"
HA_GPU_MEMORY_LIMIT=$(($(of_gang whole_answers memory_planned) - 100000)) && export HA_GPU_MEMORY_LIMIT
answering shared_answers
equal "or, where they do not fit, with shared ones" "$(of_gang shared_answers weight_shards)" 2
[ "$(of_gang shared_answers memory_peak)" -le "$HA_GPU_MEMORY_LIMIT" ]
equal "within the limit" $? 0
check "and the answers are the same" cmp whole_answers.answers shared_answers.answers
unset HA_GPU_MEMORY_LIMIT

# One device alone needs all weights, which is said before the files are read.
mkdir deep
cp "$MODEL/tokenizer.json" "$MODEL/tokenizer_config.json" "$MODEL/generation_config.json" deep/
sed 's/"num_hidden_layers": [0-9]*/"num_hidden_layers": 500/' "$MODEL/config.json" >deep/config.json
HA_GPU_MEMORY_LIMIT=64M ha-attempt generate --model deep --prompts two.jsonl --out deep.answers --backend cuda \
    --threads 1 2>deep.log
equal "a model larger than the device is refused" $? 1
grep -q "weights take .* in bf16 and this GPU may hold 64 MiB; let several GPUs share them" deep.log
equal "with what can be done" $? 0
