#!/bin/sh
# Chat templates end to end: message lists train and answer as the dialogues they were, an answer
# ends with the turn, a grid of the four families runs with template = "chat", and a template that
# is not known is refused before any work.
. "$(dirname "$0")/lib.sh"

DEMO=$HA_ROOT/deploy/demo
ONE="--threads 1 --backend cpu"
QWEN=$DEMO/models/qwen2.5-demo # its eos_token is not the token that ends a turn

head -n 60 "$DEMO/data/train.jsonl" >pairs.jsonl
head -n 8 "$DEMO/data/eval.jsonl" >held-out.jsonl
python3 - <<'PYTHON'
import json, re

def messages(text):
    parts = re.split(r"\n\n(Human|Assistant): ?", text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[a], "content": b} for a, b in zip(parts[1::2], parts[2::2])]

with open("pairs.jsonl") as rows, open("yes.jsonl", "w") as out:      # short answers to learn
    for row in map(json.loads, rows):
        prompt = row["chosen"][:row["chosen"].rindex("\n\nAssistant:")] + "\n\nAssistant:"
        out.write(json.dumps({"chosen": prompt + " Yes.", "rejected": prompt + " No."}) + "\n")
for name in ("pairs", "held-out"):
    with open(f"{name}.jsonl") as rows, open(f"{name}-lists.jsonl", "w") as lists:
        for row in map(json.loads, rows):
            lists.write(json.dumps({side: messages(row[side]) for side in ("chosen", "rejected")}) + "\n")
PYTHON

# ---- lists and dialogues are the same ----------------------------------------------

for model in llama-2-demo llama-3.1-demo qwen2.5-demo qwen3-demo; do
    for kind in "" --prompts; do
        for rows in pairs pairs-lists; do
            # shellcheck disable=SC2086
            ha-attempt rows --model "$DEMO/models/$model" --template chat --data $rows.jsonl $kind >$rows.ids
        done
        check "$model: lists have the ids of dialogues ${kind:---pairs}" sh -c 'test -s pairs.ids && cmp pairs.ids pairs-lists.ids'
    done
done

train() { # rows, folder
    # shellcheck disable=SC2086
    ha-attempt train --model "$QWEN" --template chat --strategy full --data "$1" --out "$2" \
        --set train.batch_size=3 --set train.gradient_accumulation=1 --set train.learning_rate=1e-2 \
        --set train.loss=sft $ONE
}
check "training on dialogues" train pairs.jsonl from-text
check "training on lists" train pairs-lists.jsonl from-lists
check "gives the same adapter" cmp from-text/adapter_model.safetensors from-lists/adapter_model.safetensors
# shellcheck disable=SC2086
ha-attempt train --model "$QWEN" --strategy full --data pairs-lists.jsonl --out x $ONE >/dev/null 2>refused.txt
equal "lists without a template are refused" $? 1
check "with the mend" grep -q 'rows of messages need a chat template; set' refused.txt

check "training on short answers" train yes.jsonl yes
answer() { # rows, out
    # shellcheck disable=SC2086
    ha-attempt generate --model "$QWEN" --template chat --adapter yes --prompts "$1" --out "$2" \
        --set generate.max_new_tokens=48 $ONE
}
check "answers to dialogues" answer held-out.jsonl answers.jsonl
check "answers to lists" answer held-out-lists.jsonl answers-lists.jsonl
check "are the same, their prompts' texts too" cmp answers.jsonl answers-lists.jsonl
check "an answer ends with its turn" python3 - <<'PYTHON'
import json
rows = [json.loads(line) for line in open("answers.jsonl")]
ended = [row for row in rows if row["finish"] == "eos"]
assert len(rows) == 8 and ended, [row["raw"] for row in rows]
for row in rows:
    assert row["prompt_text"].startswith("\n\nHuman: ") and row["prompt_text"].endswith("\n\nAssistant:")
    assert "<|im_end|>" not in row["raw"], row["raw"]
    assert row["text"] == "Yes." or row["finish"] == "length", row
PYTHON

# ---- a grid ------------------------------------------------------------------------

start_evaluator
MODELS="llama-2-demo llama-3.1-demo qwen2.5-demo qwen3-demo" TRAIN=24 EVAL=4 TOKENS=8 write_grid plain.toml
sed 's|^path = .*|&\ntemplate = "chat"|' plain.toml >grid.toml
check "a grid of the four families runs" hactl run grid.toml
mkdir -p run && cp runs/grid/coordinator.db* run/
check_complete 8 4
prompts=$(query "SELECT count(*) FROM prompt WHERE text LIKE char(10)||char(10)||'Human: %'")
equal "its prompts are dialogues to the judge" "$prompts" 4

# ---- templates that are not known ---------------------------------------------------

cp -r "$QWEN" tuned
sed -i 's/You are Qwen/You are Quen/g' tuned/tokenizer_config.json
{
    sed '/^\[\[model\]\]/,/^template/d' grid.toml
    printf '[[model]]\npath = "tuned"\ntemplate = "chat"\n'
} >tuned.toml
hactl run tuned.toml --name tuned >refused.txt 2>&1
equal "a template that is not known is refused" "$?" 1
check "with the mend" grep -q 'is none that is known; name the format' refused.txt
check "before any work" test ! -e runs/tuned/work
sed 's/^template = .*/template = "qwen2.5"/' tuned.toml >named.toml
check "and runs with its format named" hactl run named.toml --name named
