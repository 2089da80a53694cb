#!/bin/sh
# The memory plan against what a process takes: training of one strategy, of four
# in lock-step and under a tight limit, generation, and what is refused.
. "$(dirname "$0")/lib.sh"

DEMO=$HA_ROOT/deploy/demo
python3 "$HA_ROOT/tests/tools/make_random_model.py" --like "$DEMO/models/qwen3-demo" --out m20 \
    --width 512 --inner 1408 --layers 7
mkdir -p inputs && cp "$DEMO/data/train.jsonl" inputs/
head -n 24 "$DEMO/data/eval.jsonl" >inputs/eval.jsonl

# job FOLDER KIND MODEL SETTINGS CELLS: its lines go to FOLDER.lines.
job() {
    mkdir -p "$1/inputs"
    cp -r inputs/* "$1/inputs/"
    cat >"$1/job.json" <<JSON
{"kind": "$2", "sweep": "memory", "job": 7, "threads": 2, "backend": "cpu",
 "model": {"name": "m", "path": "$3", "hub_id": "", "template": "hh"},
 "data": {"train": ["inputs/train.jsonl"], "eval": ["inputs/eval.jsonl"]},
 "settings": {"data": {"train_samples": 10, "eval_samples": ${SAMPLES:-6}},
              "train": {"batch_size": 5, "gradient_accumulation": 2, "checkpoint_every": 600, $4},
              "probe": {"pairs": 8}, "generate": {"max_new_tokens": 24}},
 "cells": [$5], "skip_answers": {}}
JSON
    (exec ha-attempt job --dir "$1" --contract-fd 3 3>"$1.lines" 2>"$1.log")
}

cell() { # id, layers, adapter
    printf '{"id": %s, "name": "m/%s", "layers": [%s], "settings": {}, "adapter": %s, "checkpoint": null}' \
        "$1" "$1" "$2" "${3:+\"}${3:-null}${3:+\"}"
}
ALL=0,1,2,3,4,5,6

# Measured own memory against the plan: within 10 % or 24 MiB of it.  Prints layers run again.
near_plan() {
    python3 - "$1.lines" <<'PYTHON'
import json, sys
cells = [row for row in map(json.loads, open(sys.argv[1])) if row["type"] == "cell"]
assert cells and all(row["done"] for row in cells), cells
for row in cells:
    planned, peak = row["summary"]["memory_planned"], row["summary"]["memory_peak"]
    assert peak > 0 and abs(peak - planned) <= max(planned / 10, 24 << 20), (planned, peak)
    print(f"{planned / 2**20:.0f} MiB planned, {peak / 2**20:.0f} MiB measured", file=sys.stderr)
print(cells[0]["summary"].get("layers_run_again"))
PYTHON
}

answers_of() { # folder: cell, prompt and text of each, in one order
    python3 -c 'import json, sys
rows = [row for row in map(json.loads, open(sys.argv[1])) if row["type"] == "answer"]
print(sorted((row["cell"], row["prompt"], row["raw"]) for row in rows))' "$1.lines" | sha256sum
}

adapters() { # folder: one digest for all adapters
    cat "$1"/out/*/adapter/adapter_model.safetensors | sha256sum
}

for model in "$DEMO/models/llama-3.1-demo" "$HA_TMP/m20"; do
    name=$(basename "$model")
    [ "$name" = m20 ] && all=$ALL || all=$(python3 -c 'import json, sys
n = json.load(open(sys.argv[1]))["num_hidden_layers"]
print(",".join(map(str, range(n))))' "$model/config.json")
    job "$name-one" train "$model" '"lora_rank": 16' "$(cell 1 "$all")"
    equal "$name: one strategy trains" $? 0
    equal "$name: one strategy: measured is planned" "$(near_plan "$name-one")" 0
    job "$name-four" train "$model" '"lora_rank": 16' \
        "$(cell 1 "$all"), $(cell 2 0,1,2), $(cell 3 3,4), $(cell 4 "${all#*,*,*,*,}")"
    equal "$name: four strategies train in lock-step" $? 0
    equal "$name: lock-step: measured is planned" "$(near_plan "$name-four")" 0
done

# The least that fits, from the refusal of less.
job tiny train "$HA_TMP/m20" '"memory_limit": "1MiB"' "$(cell 1 $ALL)"
equal "a plan that does not fit is refused for good" $? 78
grep -q 'may be used (train.memory_limit)' tiny.log
equal "which is said in one line, with what to lower" "$?$(grep -c 'lower train.max_length' tiny.log)" 01
equal "before any work" "$(grep -c '"step"' tiny.lines)" 0
least=$(sed -n 's/.*the training needs \([0-9.]*\) MiB.*/\1/p' tiny.log | head -n 1)
job all train "$HA_TMP/m20" "\"memory_limit\": \"$((least + 2))MiB\"" "$(cell 1 $ALL)"
equal "the least memory that is said to do does" $? 0
equal "every layer but one is run again, measured is planned" "$(near_plan all)" 6
job some train "$HA_TMP/m20" "\"memory_limit\": \"$((least + 100))MiB\"" "$(cell 1 $ALL)"
equal "with a little more fewer are" "$(near_plan some | grep -c '^[1-5]$')" 1
for other in all some; do
    equal "with the same adapter: $other" "$(adapters $other)" "$(adapters m20-one)"
done

# With dropout, which needs room of its own.
job drop train "$HA_TMP/m20" '"disable_dropout": false' "$(cell 1 $ALL)"
equal "a strategy trains with dropout" $? 0
equal "dropout: measured is planned" "$(near_plan drop)" 0
job dropless train "$HA_TMP/m20" \
    "\"disable_dropout\": false, \"memory_limit\": \"$((least + 100))MiB\"" "$(cell 1 $ALL)"
equal "dropout in less memory: layers are run again" "$(near_plan dropless | grep -c '^[1-5]$')" 1
equal "with the same adapter" "$(adapters dropless)" "$(adapters drop)"
equal "which is not that without dropout" \
    "$([ "$(adapters drop)" != "$(adapters m20-one)" ] && echo another)" another

# A probe, with all it wants and with less.
job probe probe "$HA_TMP/m20" '"lora_rank": 16' "$(cell 1 '')"
equal "a probe runs" $? 0
equal "probe: measured is planned" "$(near_plan probe)" None
job refused probe "$HA_TMP/m20" '"memory_limit": "1MiB"' "$(cell 1 '')"
equal "one that does not fit is refused for good" $? 78
grep -q 'the probe needs .* may be used (train.memory_limit); lower train.max_length' refused.log
equal "which is said in one line too" "$?$(grep -c '"probe"' refused.lines)" 01
least=$(sed -n 's/.*the probe needs \([0-9.]*\) MiB.*/\1/p' refused.log | head -n 1)
job close probe "$HA_TMP/m20" "\"memory_limit\": \"$((${least%.*} + 2))MiB\"" "$(cell 1 '')"
equal "the least memory that is said to do does for a probe" $? 0
equal "close: measured is planned" "$(near_plan close)" None
norms_of() {
    grep '"type":"probe"' "$1.lines" | sha256sum
}
equal "with the same norms" "$(norms_of close)" "$(norms_of probe)"

# Answers of three variants, whose caches take most of it; and with room for two at a time.
cp -r m20-four/out/2/adapter inputs/a2
cp -r m20-four/out/4/adapter inputs/a4
variants=$(cell 1 ''),$(cell 2 0,1,2 inputs/a2),$(cell 3 4,5,6 inputs/a4)
cp "$DEMO/data/eval.jsonl" inputs/eval.jsonl
SAMPLES=40
job answers generate "$HA_TMP/m20" '"lora_rank": 16' "$variants"
equal "answers are generated" $? 0
equal "generation: measured is planned" "$(near_plan answers)" None
job narrow generate "$HA_TMP/m20" '"memory_limit": "92MiB"' "$variants"
equal "answers are generated in 92 MiB" $? 0
equal "narrow generation: measured is planned, and less" "$(near_plan narrow)" None
equal "with the same answers" "$(answers_of answers)" "$(answers_of narrow)"

# Of a GPU whose products keep their rows separate: tiles of 256 rows of the longest input and the
# longest results, beside 5 % for what is not counted.
for on in false true; do
    ha-attempt plan --model "$DEMO/models/llama-3.1-demo" --gpu-memory 1GiB --json \
        --set generate.batch_invariant=$on >separate-$on.json
done
check "tiles of separate rows are planned for" python3 - "$DEMO/models/llama-3.1-demo/config.json" <<'PYTHON'
import json, sys
model = json.load(open(sys.argv[1]))
without, with_them = (json.load(open(f"separate-{on}.json"))["gpu"]["generation"]["memory_bytes"]
                      for on in ("false", "true"))
step = 64 << 10
tiles = (256 * 2 * model["intermediate_size"],
         256 * max(2 * 2 * model["intermediate_size"], 4 * model["vocab_size"]))
assert abs(with_them - without - 1.05 * sum(-(-tile // step) * step for tile in tiles)) < 2, (
    without, with_them, tiles)
PYTHON

# ---- by arithmetic: the models of the paper ----------------------------------------------
if [ -n "${HA_TEST_DATA:-}" ] && [ -d "$HA_TEST_DATA/configs" ]; then
    for name in llama-2-7b-hf llama-3.1-8b-instruct qwen3-8b qwen2.5-7b-instruct; do
        ha-attempt plan --model "$HA_TEST_DATA/configs/$name" --gpu-memory 24GiB --json >24.json
        ha-attempt plan --model "$HA_TEST_DATA/configs/$name" --gpu-memory 80GiB --json \
            --set train.tokens_per_microbatch=6768 >80.json
        check "$name: 24 GiB train one strategy, 50 GB all in lock-step" python3 - <<'PYTHON'
import json
small, large = json.load(open("24.json"))["gpu"], json.load(open("80.json"))["gpu"]
for one in small["strategies"].values():
    assert one["fits"] and one["memory_bytes"] <= 24 << 30, one
assert small["strategies"]["full"]["recomputed_layers"] > 0
assert large["lockstep"]["fits"] and large["lockstep"]["recomputed_layers"] == 0
assert large["lockstep"]["memory_bytes"] <= 50e9, large["lockstep"]["memory_bytes"]
assert sum(large["lockstep"]["parts"].values()) >= large["lockstep"]["memory_bytes"]
for one in [*large["strategies"].values(), large["lockstep"]]:
    after = list(one["flops_per_pair_after"].values())
    assert len(after) == 8 and after == sorted(after, reverse=True), after
    assert after[0] > 7.5 * after[-1] and after[-1] == one["lockstep_flops_per_pair"], after
PYTHON
    done
    # Mean tokens of harmless-base's test pairs: prompt, chosen, rejected, padded (performance
    # reference, 2.1, which has no EOS in the answers).
    for row in "llama-3.1 llama-3.1-8b-instruct 111 38 48 717" "llama-2 llama-2-7b-hf 136 43 54 837"; do
        set -- $row
        mkdir -p "$1"
        cp "$HA_TEST_DATA/tokenizers/$1/"* "$HA_TEST_DATA/configs/$2/config.json" "$1/"
        gunzip -f "$1"/*.gz 2>/dev/null
        ha-attempt plan --model "$1" --json \
            --data "$HA_TEST_DATA/hh-rlhf/harmless-base/test.jsonl.gz" >pairs.json 2>pairs.log
        check "$1: mean lengths of real pairs" python3 - $3 $4 $5 $6 <<'PYTHON'
import json, sys
plan = json.load(open("pairs.json"))
got = [plan["pair_tokens"][key] for key in ("prompt", "chosen", "rejected", "padded")]
assert all(abs(a / float(b) - 1) < 0.03 for a, b in zip(got, sys.argv[1:])), got
after = plan["lockstep"]["flops_per_pair_after"]
assert 8.3 < after["trl"] / after["lockstep"] < 8.7, after
PYTHON
    done
    check "a dry run shows the plan" hactl submit --dry-run "$HA_ROOT/deploy/demo/grid.toml" \
        --gpu-memory 80GiB
    equal "for the GPU that is named" "$(grep -c 'GPU of 80GiB' check.out)" 1
else
    echo "skip $HA_TEST: plans of the paper's models: HA_TEST_DATA names no folder with configs"
fi
