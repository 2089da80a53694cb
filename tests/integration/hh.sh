#!/bin/sh
# Real hh-rlhf: training and scoring on pairs of helpful-base, and every kind of
# odd record that the files hold.
. "$(dirname "$0")/lib.sh"

HH=${HA_TEST_DATA:-}/hh-rlhf
if [ -z "${HA_TEST_DATA:-}" ] || [ ! -d "$HH" ]; then
    echo "skip $HA_TEST: HA_TEST_DATA names no folder with hh-rlhf"
    exit 0
fi
MODEL=$HA_ROOT/deploy/demo/models/llama-3.1-demo

gzip -cd "$HH/helpful-base/test.jsonl.gz" | head -n 96 | gzip -c >train.jsonl.gz
gzip -cd "$HH/helpful-base/test.jsonl.gz" | head -n 16 >sixteen.jsonl
check "train on 96 pairs of helpful-base" ha-attempt train --model "$MODEL" --strategy full \
    --data train.jsonl.gz --eval "$HH/harmless-base/test.jsonl.gz" --out adapter \
    --metrics metrics.jsonl --set train.learning_rate=1e-3 --set data.eval_samples=16 --threads 1
check "margins grow from 0" python3 - <<'PYTHON'
import json
rows = [json.loads(line) for line in open("metrics.jsonl")]
steps = [row for row in rows if "loss" in row]
assert len(steps) == 4 and steps[0]["rewards/margins"] == 0, rows
assert steps[-1]["rewards/margins"] > 0 and steps[-1]["loss"] < steps[0]["loss"], rows
assert "eval_loss" in rows[-1], rows
PYTHON
ha-attempt score --model "$MODEL" --data sixteen.jsonl --threads 1 >base.jsonl 2>base.log
ha-attempt score --model "$MODEL" --adapter adapter --data sixteen.jsonl --threads 1 >tuned.jsonl 2>tuned.log
check "chosen answers gain on rejected ones" python3 - <<'PYTHON'
import json
base, tuned = ([json.loads(line) for line in open(name)] for name in ("base.jsonl", "tuned.jsonl"))
assert len(base) == len(tuned) == 16
gain = [(b["chosen"] - a["chosen"]) - (b["rejected"] - a["rejected"]) for a, b in zip(base, tuned)]
assert sum(gain) > 0, gain
PYTHON
ha-attempt generate --model "$MODEL" --adapter adapter --prompts "$HH/harmless-base/test.jsonl.gz" \
    --out answers.jsonl --set data.eval_samples=16 --set generate.max_new_tokens=16 --threads 1 2>generate.log
equal "16 held-out prompts are answered" "$(wc -l <answers.jsonl)" 16

# The odd records by their lines, and what the log must count: by Python, from the texts alone.
python3 - "$HH" <<'PYTHON'
import gzip, json, sys
odd = {"harmless-base": [86, 516, 925, 1103, 1254, 1688, 1950, 1952, 2036],
       "helpful-base": [120, 168, 354, 567, 721, 740, 743, 960, 1011, 1214, 2063, 2168],
       "helpful-rejection-sampled": [200, 237, 285, 305, 355, 382, 719, 1597, 2364]}
rows = []
for part, numbers in odd.items():
    lines = gzip.open(f"{sys.argv[1]}/{part}/test.jsonl.gz", "rt", encoding="utf-8").readlines()
    rows += [lines[number] for number in numbers]
open("odd.jsonl", "w", encoding="utf-8").writelines(rows)

MARK = "\n\nAssistant:"
counts = {"pairs of equal texts": 0, "pairs that part before the last reply": 0,
          "pairs with an empty reply": 0}
for row in map(json.loads, rows):
    sides = [row["chosen"], row["rejected"]]
    ends = [text.rindex(MARK) + len(MARK) for text in sides]
    counts["pairs of equal texts"] += sides[0] == sides[1]
    counts["pairs that part before the last reply"] += sides[0][:ends[0]] != sides[1][:ends[1]]
    counts["pairs with an empty reply"] += any(not t[e:].strip() for t, e in zip(sides, ends))
with open("counts.txt", "w") as out:
    print(f"{len(rows)} rows, {len(rows)} selected, {len(rows)} pairs", file=out)
    for name, count in counts.items():
        assert count > 0, name
        print(f"{name}: {count}", file=out)
PYTHON
for split in trl turn; do
    check "odd records train, split = $split" ha-attempt train --model "$MODEL" --strategy local \
        --data odd.jsonl --out odd --set data.split=$split --threads 1
    while read -r line; do
        grep -q "training pairs: $line\$" check.out
        equal "split = $split: $line" $? 0
    done <counts.txt
    ha-attempt score --model "$MODEL" --data odd.jsonl --set data.split=$split --threads 1 >odd.out 2>odd.log
    check "split = $split: equal texts score equally" python3 - <<'PYTHON'
import json
texts = [json.loads(line) for line in open("odd.jsonl", encoding="utf-8")]
scores = [json.loads(line) for line in open("odd.out")]
assert len(texts) == len(scores)
for text, score in zip(texts, scores):
    if text["chosen"] == text["rejected"]:
        assert score["chosen"] == score["rejected"], score
PYTHON
done
