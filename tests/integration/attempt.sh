#!/bin/sh
# ha-attempt by hand: every command on the demo models, resuming, threads, a
# daemon's job without a daemon.
. "$(dirname "$0")/lib.sh"

DEMO=$HA_ROOT/deploy/demo
PAIRS=$DEMO/data/train.jsonl
HELD_OUT=$DEMO/data/eval.jsonl
ONE="--threads 1 --backend cpu"

# status NAME WANTED COMMAND...: its exit status.
status() {
    status_name=$1 status_want=$2
    shift 2
    "$@" >"$HA_TMP/status.out" 2>"$HA_TMP/status.err"
    equal "$status_name" $? "$status_want"
}

# ---- the command line -----------------------------------------------------------

for command in tokenize rows score train probe generate plan job backend merge; do
    ha-attempt $command --help >help.txt 2>&1 && grep -q "^example: .*ha-attempt $command " help.txt
    equal "$command --help shows an example" $? 0
done
status "without a command" 2 ha-attempt
status "an unknown command" 2 ha-attempt teach
status "an unknown option" 2 ha-attempt plan --modell x
status "a missing option" 2 ha-attempt train --model x
status "a misspelt setting" 2 ha-attempt plan --model x --set train.bta=1
grep -q 'did you mean beta' status.err
equal "its nearest key is named" $? 0
status "no number of threads" 2 ha-attempt score --model x --data y --threads many

# ---- each family -----------------------------------------------------------------

head -n 6 "$HELD_OUT" >six.jsonl

check_peft() { # folder, layers: what PeftModel.from_pretrained reads
    python3 - "$1" "$2" <<'PYTHON'
import json, struct, sys
folder, layers = sys.argv[1], [int(x) for x in sys.argv[2].split(",")]
config = json.load(open(folder + "/adapter_config.json"))
assert config["peft_type"] == "LORA" and config["task_type"] == "CAUSAL_LM", config
assert config["r"] == 4 and config["lora_alpha"] == 32, config
assert sorted(config["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"], config
assert sorted(config["layers_to_transform"]) == layers, config
data = open(folder + "/adapter_model.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + size])
header.pop("__metadata__", None)
want = {f"base_model.model.model.layers.{layer}.self_attn.{module}_proj.lora_{side}.weight"
        for layer in layers for module in "qkvo" for side in "AB"}
assert set(header) == want, sorted(set(header) ^ want)
for name, entry in header.items():
    assert entry["dtype"] == "F32" and 4 in entry["shape"], (name, entry)
    begin, end = (8 + size + x for x in entry["data_offsets"])
    assert any(data[begin:end]), name + " is all zero"
PYTHON
}

check_scores() { # base, adapter: JSON Lines of score
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
base, tuned = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
assert [row["row"] for row in base] == list(range(6)), base
for row in base:
    for side in ("chosen", "rejected"):
        tokens = row[side + "_logps"]
        assert len(tokens) == row[side + "_tokens"] > 0 and max(tokens) < 0
        assert abs(sum(tokens) - row[side]) < 1e-9 * abs(row[side])
assert "chosen_logps" not in tuned[0]
assert any(abs(a["chosen"] - b["chosen"]) > 1e-3 for a, b in zip(base, tuned))
PYTHON
}

check_metrics() { # file, steps
    python3 - "$1" "$2" <<'PYTHON'
import json, math, sys
rows, steps = [json.loads(line) for line in open(sys.argv[1])], int(sys.argv[2])
assert [row["step"] for row in rows] == list(range(1, steps + 1)) + [steps], rows
assert rows[0]["rewards/margins"] == 0, rows[0]
assert abs(rows[0]["loss"] - math.log(2)) < 1e-6, rows[0]
for name in ("rewards/chosen", "rewards/accuracies", "grad_norm", "learning_rate", "logps/chosen"):
    assert name in rows[0], (name, rows[0])
assert rows[-1]["eval_loss"] > 0 and 0 <= rows[-1]["eval_rewards/accuracies"] <= 1, rows[-1]
PYTHON
}

check_answers() { # file
    python3 - "$1" <<'PYTHON'
import json, sys
rows = sorted((json.loads(line) for line in open(sys.argv[1])), key=lambda row: row["prompt"])
assert [row["row"] for row in rows] == list(range(6)), rows
for row in rows:
    assert row["text"] == row["text"].strip() and "\n\nHuman:" not in row["text"], row
    assert row["raw"].strip().startswith(row["text"]), row
    assert row["finish"] in ("eos", "stop", "length") and row["tokens"] <= 16, row
    assert row["prompt_text"].endswith("\n\nAssistant:") and row["prompt_tokens"] > 0, row
PYTHON
}

try_model() { # name, layers of mid
    model=$DEMO/models/$1
    check "$1: plan" ha-attempt plan --model "$model"
    equal "$1: the middle block" "$(ha-attempt plan --model "$model" --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["strategies"]["mid"]["layers"])')" \
        "$(echo "$2" | sed 's/,.*,/-/; s/,/-/')"

    printf '%s\n' '"\n\nHuman: Hi, 12345!\n\nAssistant:"' '"naïve 😀 日本"' '""' >strings.jsonl
    ha-attempt tokenize --model "$model" --no-special <strings.jsonl >ids.jsonl
    ha-attempt tokenize --model "$model" --decode <ids.jsonl >back.jsonl
    check "$1: text comes back from ids" cmp strings.jsonl back.jsonl

    # shellcheck disable=SC2086
    check "$1: train" ha-attempt train --model "$model" --strategy mid --data "$PAIRS" \
        --eval six.jsonl --out "$1" --metrics "$1.jsonl" --set data.train_samples=24 \
        --set train.batch_size=2 --set train.lora_rank=4 --set train.learning_rate=1e-3 $ONE
    check "$1: the adapter is PEFT's" check_peft "$1" "$2"
    check "$1: metrics" check_metrics "$1.jsonl" 3
    # shellcheck disable=SC2086
    ha-attempt score --model "$model" --data six.jsonl --per-token $ONE >base.jsonl 2>score.log
    # shellcheck disable=SC2086
    ha-attempt score --model "$model" --adapter "$1" --data six.jsonl $ONE >tuned.jsonl 2>>score.log
    check "$1: scores" check_scores base.jsonl tuned.jsonl
    # shellcheck disable=SC2086
    check "$1: generate" ha-attempt generate --model "$model" --adapter "$1" --prompts six.jsonl \
        --out answers.jsonl --set generate.max_new_tokens=16 $ONE
    check "$1: answers" check_answers answers.jsonl
}

try_model llama-2-demo 2,3
try_model llama-3.1-demo 3,4
try_model qwen2.5-demo 3,4,5
try_model qwen3-demo 3,4,5

# ---- training again, in other ways --------------------------------------------------

MODEL=$DEMO/models/llama-3.1-demo

train() { # out, further options...
    train_out=$1
    shift
    # exec: a signal sent to the background job reaches the program.
    exec ha-attempt train --model "$MODEL" --strategy mid --data "$PAIRS" --out "$train_out" \
        --set data.train_samples=90 --set train.batch_size=3 --set train.gradient_accumulation=1 \
        --set train.lora_rank=4 --set train.learning_rate=1e-3 --backend cpu "$@"
}

same_adapter() {
    cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" &&
        cmp "$1/adapter_config.json" "$2/adapter_config.json"
}

check "an undisturbed run" eval '(train whole --threads 1 --metrics whole.jsonl)'
check "the same with two threads" eval '(train two --threads 2)'
check "threads do not change a bit" same_adapter whole two
check "the same in packs of one pair" eval '(train again --threads 1)'
check "a run can be repeated bit by bit" same_adapter whole again

DROP="--set train.disable_dropout=false --set train.lora_dropout=0.1 --set train.dropout_seed=7"
# shellcheck disable=SC2086
check "a run with dropout" eval \
    '(train dropped --threads 1 --metrics dropped.jsonl $DROP) 2>dropped.log'
planned=$(sed -n 's/.*"memory_planned":\([0-9]*\).*/\1/p' dropped.log)
# shellcheck disable=SC2086
check "the same with two threads and less memory" eval \
    '(train dropped2 --threads 2 --set train.memory_limit=$((planned / 1048576 - 1))MiB $DROP) \
    2>dropped2.log'
check "where layers are run again" grep -q '"layers_run_again":[1-9]' dropped2.log
check "neither changes a mask" same_adapter dropped dropped2
check "the adapter says what was dropped" grep -q '"lora_dropout": 0.1' dropped/adapter_config.json
# shellcheck disable=SC2086
check "another seed for dropout" eval '(train dropped3 --threads 1 $DROP --set train.dropout_seed=8)'
equal "each is another adapter" "$(for name in whole dropped dropped3; do
    cksum <$name/adapter_model.safetensors
done | sort -u | wc -l)" 3
equal "its first margin is 0" \
    "$(head -n 1 dropped.jsonl | python3 -c 'import json, sys; print(json.load(sys.stdin)["rewards/margins"])')" 0.0

head -n 100 "$PAIRS" >first.jsonl
tail -n +101 "$PAIRS" | gzip -c >rest.jsonl.gz
PAIRS_BEFORE=$PAIRS PAIRS=first.jsonl
check "the same data in two files" eval '(train parts --threads 1 --data rest.jsonl.gz)'
check "files are joined in their order" same_adapter whole parts
PAIRS=$PAIRS_BEFORE

# Stop it after three steps: the metrics come through a pipe, so that this is exact enough.
interrupted() {
    rm -rf cut part.jsonl pipe
    mkfifo pipe
    (train cut --threads 1 --metrics pipe) 2>cut.log &
    pid=$!
    {
        for line in 1 2 3; do
            read -r text && printf '%s\n' "$text"
        done
        kill -TERM $pid
        cat
    } <pipe >part.jsonl
    wait $pid
}
interrupted
equal "SIGTERM ends training with exit code 75" $? 75
steps=$(wc -l <part.jsonl)
[ "$steps" -lt 30 ] && [ -f "cut/checkpoint-$steps.safetensors" ] && [ ! -f cut/adapter_model.safetensors ]
equal "it leaves a checkpoint of the last step, and no adapter" $? 0
check "training goes on from the checkpoint" eval \
    '(train cut --threads 2 --metrics part.jsonl --resume "cut/checkpoint-$steps.safetensors")'
check "resumed training gives the same adapter" same_adapter whole cut
check "and the same metrics" cmp whole.jsonl part.jsonl

cp "cut/checkpoint-$steps.safetensors" damaged
printf 'x' | dd of=damaged bs=1 seek=20000 conv=notrunc 2>/dev/null
status "a damaged checkpoint is refused" 1 eval '(train bad --threads 1 --resume damaged)'
status "a checkpoint of other settings is refused" 1 eval \
    '(train bad --threads 1 --set train.beta=0.5 --resume "cut/checkpoint-$steps.safetensors")'

# Stop it in its first steps.
(train early --threads 1 --set data.train_samples=600) 2>early.log &
pid=$!
until_true 20 grep -q 'phase step' early.log
kill -TERM $pid
wait $pid
equal "SIGTERM ends the first steps with exit code 75" $? 75

check "the base model's log-probs are kept" eval '(train kept --threads 1 --reference references)'
check "and taken by the next run" eval '(train taken --threads 2 --reference references) 2>taken.log'
grep -q 'taken from references' taken.log
equal "which says so" $? 0
check "with the same adapter" same_adapter whole taken
cp references before
printf 'x' | dd of=references bs=1 seek=2500 conv=notrunc 2>/dev/null
check "a damaged file of them is no error" eval \
    '(train mended --threads 1 --reference references) 2>mended.log'
grep -q 'computed anew' mended.log
equal "they are computed anew, with the reason" $? 0
check "and kept" cmp before references
(train other --threads 1 --reference references --set train.tokens_per_microbatch=300) 2>other.log
grep -q 'computed anew: .*another batch plan' other.log
equal "those of another plan are left aside" $? 0
cp before references
(train any --threads 1 --reference references --set train.tokens_per_microbatch=300 \
    --set train.reference=any) 2>any.log
grep -q 'under another plan: sums differ from this .* by up to ' any.log
equal "unless any will do, which is said" $? 0
check "and they are not kept as its own" cmp before references
check "with the same adapter" same_adapter whole mended

check "training goes on from an adapter" eval \
    '(train second --threads 1 --init-adapter whole --metrics second.jsonl)'
equal "whose policy is then the reference" \
    "$(head -n 1 second.jsonl | python3 -c 'import json, sys; print(json.load(sys.stdin)["rewards/margins"])')" 0.0
check "an adapter is merged into its model" ha-attempt merge --model "$MODEL" --adapter whole --out merged
for form in base adapter merged; do
    case $form in
    base) set -- --model "$MODEL" ;;
    adapter) set -- --model "$MODEL" --adapter whole ;;
    merged) set -- --model merged ;;
    esac
    ha-attempt score "$@" --data six.jsonl --threads 1 >"$form.scores" 2>score.log
done
check "the merged model scores nearly as the adapter does" python3 - <<'PYTHON'
import json
base, adapter, merged = ([json.loads(line)["chosen"] for line in open(name + ".scores")]
                         for name in ("base", "adapter", "merged"))
moved = sum(abs(a - b) for a, b in zip(adapter, base))
apart = sum(abs(a - m) for a, m in zip(adapter, merged))
assert 0 <= apart < moved / 4, (apart, moved)
PYTHON
status "an adapter of another rank is refused" 1 eval \
    '(train bad --threads 1 --init-adapter whole --set train.lora_rank=8)'
grep -q 'rank is 4, train.lora_rank is 8' status.err
equal "both ranks are named" $? 0

# ---- generation in other ways --------------------------------------------------------

generate() { # out, options...
    generate_out=$1
    shift
    ha-attempt generate --model "$MODEL" --prompts "$HELD_OUT" --out "$generate_out" \
        --set data.eval_samples=12 --set generate.max_new_tokens=24 --backend cpu "$@" 2>generate.log &&
        sort -o "$generate_out" "$generate_out"
}

generate greedy.jsonl --threads 1
generate one.jsonl --threads 2 --sequences 1
check "answers do not depend on what runs beside them" cmp greedy.jsonl one.jsonl
generate warm.jsonl --threads 1 --set generate.temperature=1 --set generate.top_p=0.9
generate warm2.jsonl --threads 2 --sequences 5 --set generate.temperature=1 --set generate.top_p=0.9
generate warm3.jsonl --threads 1 --set generate.temperature=1 --set generate.top_p=0.9 --set generate.seed=7
check "sampled answers can be repeated" cmp warm.jsonl warm2.jsonl
if cmp -s warm.jsonl warm3.jsonl; then not_ok "another seed gives other answers"; else ok "another seed gives other answers"; fi
generate both.jsonl --threads 1 --adapter whole --adapter llama-3.1-demo
equal "each adapter answers every prompt" \
    "$(grep -c '"adapter":"whole"' both.jsonl) $(grep -c '"adapter":"llama-3.1-demo"' both.jsonl)" "12 12"
generate tight.jsonl --threads 1 --set train.memory_limit=12MiB --set generate.temperature=1 \
    --set generate.top_p=0.9
check "nor on the memory they may take" cmp warm.jsonl tight.jsonl
generate tiny.jsonl --threads 1 --set train.memory_limit=1MiB
equal "too little memory for one answer is refused" $? 1
grep -q 'for one answer at a time and 1 MiB may be used (train.memory_limit)' generate.log
equal "by the setting's name" $? 0
generate samples.jsonl --threads 2 --adapter whole --adapter llama-3.1-demo \
    --set generate.samples=3 --set generate.temperature=1
generate sample0.jsonl --threads 1 --adapter whole --set generate.temperature=1
check "samples are drawn apart, the first as if it were alone" python3 - <<'PYTHON'
import json
rows = [json.loads(line) for line in open("samples.jsonl")]
assert len(rows) == 2 * 12 * 3
texts = {(row["adapter"], row["prompt"], row["sample"]): row["raw"] for row in rows}
assert len(texts) == len(rows)
for row in map(json.loads, open("sample0.jsonl")):
    assert texts["whole", row["prompt"], 0] == row["raw"], row
same = sum(texts["whole", prompt, 1] == texts["whole", prompt, 2] for prompt in range(12))
assert same < 3, same
PYTHON
stop=$(python3 -c 'import json
print(json.loads(open("greedy.jsonl").readline())["text"].split()[2])')
generate stopped.jsonl --threads 1 --set generate.stop="[\"$stop\"]"
check "a stop string ends an answer and is cut" python3 - "$stop" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open("stopped.jsonl")]
whole = {row["prompt"]: row for row in map(json.loads, open("greedy.jsonl"))}
assert any(row["finish"] == "stop" for row in rows)
for row in rows:
    assert sys.argv[1] not in row["text"], row
    assert row["text"] == whole[row["prompt"]]["text"].split(sys.argv[1])[0].strip(), row
    assert whole[row["prompt"]]["raw"].startswith(row["raw"]), row
PYTHON
# Two letters, a space and a letter: no token holds that.
astride=$(python3 -c 'import json, re
print(re.search("[a-z]{2} [a-z]", json.loads(open("greedy.jsonl").readline())["text"]).group())')
generate astride.jsonl --threads 1 --set generate.stop="[\"never there\", \"$astride\"]"
check "also one that lies across tokens" python3 - "$astride" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open("astride.jsonl")]
whole = {row["prompt"]: row for row in map(json.loads, open("greedy.jsonl"))}
assert sum(row["finish"] == "stop" for row in rows) >= 1
for row in rows:
    text = whole[row["prompt"]]["raw"]
    assert row["text"] == text.split("\n\nHuman:")[0].split(sys.argv[1])[0].strip(), row
    assert row["tokens"] <= whole[row["prompt"]]["tokens"], row
PYTHON
generate waited.jsonl --threads 1 --set generate.stop="[\"$stop\"]" --set generate.min_new_tokens=24
check "min_new_tokens keeps the end away, the text is cut all the same" python3 - "$stop" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open("waited.jsonl")]
whole = {row["prompt"]: row for row in map(json.loads, open("greedy.jsonl"))}
assert any(sys.argv[1] in row["raw"] for row in rows)
for row in rows:
    assert row["tokens"] == 24 and row["finish"] in ("length", "stop"), row
    assert sys.argv[1] not in row["text"], row
    assert row["raw"].startswith(whole[row["prompt"]]["raw"]), row
PYTHON
cp -r "$MODEL" own
python3 - <<'PYTHON'
import json
path = "own/generation_config.json"
config = json.load(open(path))
config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, max_new_tokens=5)
json.dump(config, open(path, "w"))
PYTHON
ha-attempt generate --model own --prompts six.jsonl --out own.jsonl --threads 1 \
    --set generate.settings=model 2>own.log
equal "settings = model takes the model's own" \
    "$(python3 -c 'import json; print(max(json.loads(x)["tokens"] for x in open("own.jsonl")))')" 5
ha-attempt generate --model own --prompts six.jsonl --out own2.jsonl --threads 1 \
    --set generate.settings=model --set generate.temperature=0 --set generate.max_new_tokens=24 2>own.log
ha-attempt generate --model "$MODEL" --prompts six.jsonl --out plain.jsonl --threads 1 \
    --set generate.max_new_tokens=24 2>own.log
sort -o own2.jsonl own2.jsonl
sort -o plain.jsonl plain.jsonl
check "but not over what is given" cmp own2.jsonl plain.jsonl
gzip -c "$HELD_OUT" >prompts.jsonl.gz
ha-attempt generate --model "$MODEL" --prompts prompts.jsonl.gz --out - --threads 1 \
    --set data.eval_samples=12 --set generate.max_new_tokens=24 2>generate.log | sort >zipped.jsonl
check "prompts may be gzip, answers go to standard output" cmp greedy.jsonl zipped.jsonl

mkfifo answers.pipe
ha-attempt generate --model "$MODEL" --prompts "$HELD_OUT" --out answers.pipe --sequences 1 \
    --threads 1 --set generate.max_new_tokens=200 2>stopped.log &
pid=$!
{
    read -r line && printf '%s\n' "$line"
    kill -TERM $pid
    cat
} <answers.pipe >some.jsonl
wait $pid
equal "SIGTERM ends generation with exit code 75" $? 75
check "the answers so far are whole" python3 -c \
    'import json; assert 1 <= len([json.loads(x) for x in open("some.jsonl")]) < 64'

# ---- a job without a daemon -----------------------------------------------------------

job() { # folder; its lines go to FOLDER.lines
    mkdir -p "$1/inputs"
    cp "$PAIRS" "$1/inputs/train.jsonl"
    cp "$HELD_OUT" "$1/inputs/eval.jsonl"
    cat >"$1/job.json"
    (exec ha-attempt job --dir "$1" --contract-fd 3 3>"$1.lines" 2>"$1.log")
}

train_job() { # what replaces the good values: sed expression
    sed "$1" <<JSON
{"kind": "train", "sweep": "test", "job": 7, "threads": 1, "backend": "cpu",
 "model": {"name": "demo", "path": "$MODEL", "hub_id": "org/demo", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": ["inputs/eval.jsonl"]},
 "settings": {"data": {"train_samples": 90, "eval_samples": 6},
              "train": {"batch_size": 3, "gradient_accumulation": 1, "lora_rank": 4,
                        "learning_rate": 0.001}},
 "cells": [{"id": 21, "name": "demo/mid", "layers": [3, 4]},
           {"id": 22, "name": "demo/full", "layers": [0, 1, 2, 3, 4, 5, 6],
            "settings": {"train": {"beta": 0.5}}}],
 "skip_answers": {}}
JSON
}

train_job '' | job trained
equal "a job of two cells trains" $? 0
check "with the same bytes as a run of one cell by hand" \
    cmp whole/adapter_model.safetensors trained/out/21/adapter/adapter_model.safetensors
check "its lines tell phases, metrics, artifacts and cells" python3 - <<'PYTHON'
import json, os
lines = [json.loads(line) for line in open("trained.lines")]
assert [x["phase"] for x in lines if x["type"] == "phase"] == ["load", "step", "evaluate"]
for cell in (21, 22):
    metrics = [x for x in lines if x["type"] == "metric" and x["cell"] == cell]
    assert [x["step"] for x in metrics] == list(range(1, 31)) + [30], metrics
    names = [x["name"] for x in lines if x["type"] == "artifact" and x["cell"] == cell]
    assert names == ["adapter_config.json", "adapter_model.safetensors"], names
    end, = [x for x in lines if x["type"] == "cell" and x["cell"] == cell]
    assert end["done"] and not end["permanent"]
    summary = end["summary"]
    for key in ("trainable_parameters", "steps", "seconds", "tokens", "flops", "eval_loss",
                "eval_rewards/accuracies", "eval_rewards/margins", "rows_dropped", "precision"):
        assert key in summary, key
    for key in ("train_seconds_own", "train_seconds_shared", "load_seconds", "wall_seconds",
                "flops", "flops_plain", "bytes_moved", "pairs_per_second", "tokens_per_second",
                "flops_per_second", "peak_flops_per_second", "utilisation"):
        assert summary[key] > 0, key
    assert abs(summary["utilisation"] * summary["peak_flops_per_second"] /
               summary["flops_per_second"] - 1) < 1e-9, summary
    assert summary["cells_in_job"] == 2 and summary["pairs_trained"] == 90, summary
    assert 0 < summary["saved"] < 1 and summary["seconds"] < summary["wall_seconds"], summary
    assert summary["precision"] == "fp32 (cpu)" and summary["pairs"] == 90, summary
for line in lines:
    if line["type"] == "artifact":
        assert os.path.isfile("trained/" + line["path"]), line
references = [x for x in lines if x["type"] == "artifact" and x["cell"] == 0]
assert [x["kind"] for x in references] == ["reference"], references
assert references[0]["name"] == summary["reference"] and len(summary["reference"]) == 64
assert lines.index(references[0]) < min(lines.index(x) for x in lines if x["type"] == "cell")
progress = [x for x in lines if x["type"] == "progress" and x["steps"] == 30]
assert progress[-1]["pairs_per_second"] > 0 and 0 < progress[-1]["saved"] < 1, progress[-1]
assert progress[-1]["utilisation"] > 0, progress[-1]
config = json.load(open("trained/out/22/adapter/adapter_config.json"))
assert config["base_model_name_or_path"] == "org/demo", config
PYTHON

# Where epochs are left the base model's log-probs are there for others behind the first.
train_job 's|"learning_rate"|"epochs": 2, &|' | job twice
equal "a job of two epochs trains" $? 0
check "and tells of the log-probs behind its first" python3 - <<'PYTHON'
import json
lines = [json.loads(line) for line in open("twice.lines")]
told, = [i for i, x in enumerate(lines) if x["type"] == "artifact" and x["kind"] == "reference"]
steps = {i: x["step"] for i, x in enumerate(lines) if x["type"] == "metric"}
assert max(step for i, step in steps.items() if i < told) == 30, steps
assert min(step for i, step in steps.items() if i > told) == 31, steps
assert not any("eval_loss" in x["values"] for x in lines[:told] if x["type"] == "metric")
PYTHON

# Stopped between two steps and given the checkpoints that its lines name.
mkdir -p halted/inputs
cp "$PAIRS" halted/inputs/train.jsonl
cp "$HELD_OUT" halted/inputs/eval.jsonl
train_job '' >halted/job.json
(exec ha-attempt job --dir halted --contract-fd 3 3>halted.lines 2>halted.log) &
pid=$!
until_true 20 grep -q '"type":"metric"' halted.lines
kill -TERM $pid
wait $pid
equal "SIGTERM ends a job with exit code 75" $? 75
mkdir -p resumed/inputs
for cell in 21 22; do
    path=$(python3 -c 'import json, sys
for line in map(json.loads, open("halted.lines")):
    if line["type"] == "artifact" and line["kind"] == "checkpoint" and line["cell"] == int(sys.argv[1]):
        print(line["path"])' $cell | tail -n 1)
    cp "halted/$path" "resumed/inputs/$cell"
done
train_job 's|"name": "demo/mid"|&, "checkpoint": "inputs/21"|; s|"name": "demo/full"|&, "checkpoint": "inputs/22"|' |
    job resumed
equal "the next attempt goes on from its checkpoints" $? 0
grep -q 'demo/full goes on after step' resumed.log
equal "and says so" $? 0
check "a resumed job gives the same adapters" eval \
    'same_adapter trained/out/21/adapter resumed/out/21/adapter && same_adapter trained/out/22/adapter resumed/out/22/adapter'

mkdir -p uneven/inputs
cp resumed/inputs/22 uneven/inputs/22
cp trained/out/reference.safetensors uneven/inputs/reference
train_job 's|"name": "demo/full"|&, "checkpoint": "inputs/22"|; s|"skip_answers"|"reference": "inputs/reference", "digests": "digests", &|' |
    job uneven
equal "a cell that is behind catches up with the other" $? 0
grep -q 'taken from inputs/reference' uneven.log && [ -s uneven/digests ]
equal "on the log-probs of an earlier job" $? 0
grep -q '"kind":"reference"' uneven.lines
equal "which are not reported once more" $? 1
check "and the adapters are the same" eval \
    'same_adapter trained/out/21/adapter uneven/out/21/adapter && same_adapter trained/out/22/adapter uneven/out/22/adapter'

train_job 's|"name": "demo/mid"|&, "checkpoint": "inputs/train.jsonl"|; /demo\/full/,/settings/d; s|\[3, 4\]},|[3, 4]}],|' |
    job anew
equal "a checkpoint that is none is left aside" $? 0
check "and training begins anew" cmp whole/adapter_model.safetensors anew/out/21/adapter/adapter_model.safetensors

probe_job() { # pairs
    cat <<JSON
{"kind": "probe", "sweep": "test", "job": 9, "threads": 1, "backend": "cpu",
 "model": {"name": "demo", "path": "$MODEL", "hub_id": "", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": []},
 "settings": {"data": {"train_samples": 600}, "train": {"beta": 0.2}, "probe": {"pairs": $1}},
 "cells": [{"id": 41, "name": "demo", "layers": []}], "skip_answers": {}}
JSON
}

probe_job 7 | job probed
equal "a job probes" $? 0
# shellcheck disable=SC2086
check "probe by hand" eval 'ha-attempt probe --model "$MODEL" --data "$PAIRS" --json \
    --set data.train_samples=600 --set probe.pairs=7 --set train.beta=0.2 $ONE >probed.json'
check "with the norms of a probe by hand, per layer and block" python3 - <<'PYTHON'
import json
hand = json.load(open("probed.json"))
lines = [json.loads(line) for line in open("probed.lines")]
rows = [line for line in lines if line["type"] == "probe"]
keys = ["block", "layer", "layers", "module", "norm", "parameters"]
assert [[row[key] for key in keys] for row in rows] == \
       [[norm[key] for key in keys] for norm in hand["norms"]]
assert all(row["cell"] == 41 and row["pairs"] == hand["pairs"] == 7 for row in rows)
blocks = [(row["block"], row["layer"], row["layers"]) for row in rows if row["module"] == "all"]
assert blocks == [("", layer, 1) for layer in range(7)] + \
       [("local", 0, 3), ("mid", 3, 2), ("global", 5, 2), ("full", 0, 7)], blocks
assert all(row["norm"] > 0 and row["parameters"] > 0 for row in rows)
assert lines[-1]["type"] == "cell" and lines[-1]["done"], lines[-1]
assert lines[-1]["summary"]["pairs_probed"] == 7
PYTHON
ha-attempt probe --model "$MODEL" --data "$PAIRS" --set probe.pairs=3 2>probe.log >probe.txt
equal "probe prints a table" "$(grep -c '%$' probe.txt)" 7
mkdir -p unprobed/inputs
cp "$PAIRS" unprobed/inputs/train.jsonl
probe_job 600 >unprobed/job.json
(exec ha-attempt job --dir unprobed --contract-fd 3 3>unprobed.lines 2>unprobed.log) &
pid=$!
until_true 20 grep -q '"type":"progress"' unprobed.lines
kill -TERM $pid
wait $pid
equal "SIGTERM ends a probe with exit code 75" $? 75
equal "and no norm" "$(grep -c '"type":"probe"' unprobed.lines)" 0

mkdir -p answered/inputs
cp -r whole answered/inputs/adapter
job answered <<JSON
{"kind": "generate", "sweep": "test", "job": 8, "threads": 1, "backend": "cpu",
 "model": {"name": "demo", "path": "$MODEL", "hub_id": "", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": ["inputs/eval.jsonl"]},
 "settings": {"data": {"train_samples": 90, "eval_samples": 12}, "generate": {"max_new_tokens": 24}},
 "cells": [{"id": 31, "name": "demo/base", "layers": [], "adapter": null},
           {"id": 32, "name": "demo/mid", "layers": [3, 4], "adapter": "inputs/adapter"}],
 "skip_answers": {"32": [[0, 0], [11, 0]]}}
JSON
equal "a job of two cells generates" $? 0
check "with the answers of a run by hand, less those that are stored" python3 - <<'PYTHON'
import json
lines = [json.loads(line) for line in open("answered.lines")]
for cell, name, skip in ((31, "greedy.jsonl", ()), (32, "both.jsonl", (0, 11))):
    want = {x["prompt"]: x["raw"] for x in map(json.loads, open(name))
            if x.get("adapter", "whole") == "whole" and x["prompt"] not in skip}
    got = {x["prompt"]: x["raw"] for x in lines if x["type"] == "answer" and x["cell"] == cell}
    assert got == want, (cell, got, want)
    end, = [x for x in lines if x["type"] == "cell" and x["cell"] == cell]
    assert end["done"] and end["summary"]["answers"] == 12, end
PYTHON

# A variant whose weights are no numbers ends its cell, and the other answers are as ever.
cp -r answered diverged
cp -r whole diverged/inputs/diverged
python3 - <<'PYTHON'
import struct
path = "diverged/inputs/diverged/adapter_model.safetensors"
data = open(path, "rb").read()
begin = 8 + struct.unpack("<Q", data[:8])[0]
open(path, "wb").write(data[:begin] + struct.pack("<f", float("nan")) * ((len(data) - begin) // 4))
PYTHON
sed 's|\[{"id": 31|[{"id": 30, "name": "demo/x", "layers": [3, 4], "adapter": "inputs/diverged"}, {"id": 31|' \
    answered/job.json | job diverged
equal "a job with a variant that has diverged" $? 0
check "loses that one alone, with its reason" python3 - <<'PYTHON'
import json
def read(name):
    lines = [json.loads(line) for line in open(f"{name}.lines")]
    return ({(x["cell"], x["prompt"]): x["raw"] for x in lines if x["type"] == "answer"},
            {x["cell"]: x for x in lines if x["type"] == "cell"})
answers, ends = read("diverged")
assert answers == read("answered")[0]
assert not ends[30]["done"] and ends[30]["permanent"] and "diverged" in ends[30]["reason"], ends[30]
assert ends[31]["done"] and ends[32]["done"]
PYTHON

# What an attempt left when it was stopped is not made again; the rest is what it would have been.
sampled_job() { # skip_answers
    cat <<JSON
{"kind": "generate", "sweep": "test", "job": 9, "threads": 1, "backend": "cpu",
 "model": {"name": "demo", "path": "$MODEL", "hub_id": "", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": ["inputs/eval.jsonl"]},
 "settings": {"data": {"train_samples": 90, "eval_samples": 40},
              "train": {"memory_limit": "18MiB"},
              "generate": {"max_new_tokens": 160, "temperature": 1, "samples": 2}},
 "cells": [{"id": 31, "name": "demo/base", "layers": [], "adapter": null},
           {"id": 32, "name": "demo/mid", "layers": [3, 4], "adapter": "inputs/adapter"}],
 "skip_answers": $1}
JSON
}
for folder in entire broken mended; do
    mkdir -p $folder/inputs
    cp -r whole $folder/inputs/adapter
done
sampled_job '{}' | job entire
equal "a job of 160 sampled answers" "$? $(grep -c '"type":"answer"' entire.lines)" "0 160"
mkfifo broken.pipe
cp "$PAIRS" broken/inputs/train.jsonl
cp "$HELD_OUT" broken/inputs/eval.jsonl
sampled_job '{}' >broken/job.json
ha-attempt job --dir broken --contract-fd 3 3>broken.pipe 2>broken.log &
pid=$!
{
    while read -r line; do
        printf '%s\n' "$line"
        case $line in *'"type":"answer"'*) break ;; esac
    done
    kill -TERM $pid
    cat
} <broken.pipe >broken.lines
wait $pid
equal "is stopped in its midst" $? 75
skip=$(python3 - <<'PYTHON'
import json
skip = {"31": [], "32": []}
for line in map(json.loads, open("broken.lines")):
    if line["type"] == "answer":
        skip[str(line["cell"])].append([line["prompt"], line["sample"]])
assert 1 <= sum(map(len, skip.values())) < 160, skip
print(json.dumps(skip))
PYTHON
)
sampled_job "$skip" | job mended
equal "and goes on with what is missing" $? 0
check "no answer twice, none lost, none changed" python3 - <<'PYTHON'
import json
def answers(name):
    rows = [x for x in map(json.loads, open(f"{name}.lines")) if x["type"] == "answer"]
    texts = {(x["cell"], x["prompt"], x["sample"]): x["raw"] for x in rows}
    assert len(texts) == len(rows)
    return texts
entire, broken, mended = map(answers, ("entire", "broken", "mended"))
assert not set(broken) & set(mended)
assert {**broken, **mended} == entire
ends = [x for x in map(json.loads, open("mended.lines")) if x["type"] == "cell"]
assert [x["summary"]["answers"] for x in ends] == [80, 80], ends
for name in ("entire", "mended"):
    rows = [json.loads(line) for line in open(f"{name}.lines")]
    work = [x["summary"] for x in rows if x["type"] == "cell"]
    saved = 1 - sum(x["flops"] for x in work) / sum(x["flops_plain"] for x in work)
    told = [x for x in rows if x["type"] == "progress" and x["steps"] > 0][-1]
    assert saved < 1 and abs(told.get("saved", 0) - max(saved, 0)) < 1e-9, (saved, told)
for x in ends:
    assert 0 < x["summary"]["flops"] and x["summary"]["saved"] < 1, x
    assert x["summary"]["utilisation"] > 0 and x["summary"]["peak_flops_per_second"] > 0, x
PYTHON

# Errors: exit code 78 for what comes back in every attempt, 1 for what may heal.
refused() { # name, code, text, sed expression
    train_job "$4" | job refused
    equal "$1: exit code" $? "$2"
    tail -n 1 refused.lines | grep '"type":"error"' | grep -q -e "$3"
    equal "$1: the last line says why" $? 0
}
refused "a job of another kind" 78 'neither train, probe nor generate' 's|"kind": "train"|"kind": "judge"|'
refused "a template that nobody knows" 78 'is none of hh, chat, llama-2' 's|"template": "hh"|"template": "zephyr"|'
refused "a template of another family" 78 'im_start.* is no token of the model' 's|"template": "hh"|"template": "qwen2.5"|'
refused "cells that differ in what they share" 78 'train.epochs' 's|"beta": 0.5|"epochs": 2|'
refused "a model that is not there" 1 '/nowhere/' "s|$MODEL|/nowhere|"
rm -f refused/job.json
ha-attempt job --dir refused 2>refused.log >refused.lines
equal "a folder without a job" $? 1
status "a descriptor that is not open" 1 ha-attempt job --dir refused --contract-fd 77
