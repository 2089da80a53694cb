#!/bin/sh
# A small trained model that others have published: greedy text and ids must be
# exactly those that Transformers gives for it.
. "$(dirname "$0")/lib.sh"

STORIES=${HA_TEST_DATA:-}/models/stories260K
if [ -z "${HA_TEST_DATA:-}" ] || [ ! -d "$STORIES" ]; then
    echo "skip $HA_TEST: HA_TEST_DATA names no folder with models/stories260K"
    exit 0
fi

# An empty prompt is BOS alone.
echo '{"prompt": ""}' >prompts.jsonl
for threads in 1 2; do
    check "generate with $threads threads" ha-attempt generate --model "$STORIES" \
        --prompts prompts.jsonl --out answers.jsonl --threads $threads --backend cpu \
        --set generate.max_new_tokens=200
    python3 -c 'import json, sys
sys.stdout.write(json.loads(open("answers.jsonl").readline())["raw"])' >text.txt
    check "greedy text, $threads threads" cmp text.txt "$STORIES/expected-greedy-text.txt"
done
python3 -c 'import json, sys; print(json.dumps(sys.stdin.read()))' \
    <"$STORIES/expected-greedy-text.txt" >line.jsonl
ha-attempt tokenize --model "$STORIES" <line.jsonl >ids.jsonl
equal "the text's ids, BOS first" "$(tr -d '[]' <ids.jsonl | tr ',' ' ')" \
    "$(tr -d '\n' <"$STORIES/expected-greedy-ids.txt")"
ha-attempt tokenize --model "$STORIES" --decode <ids.jsonl >back.jsonl
equal "the ids' text" "$(python3 -c 'import json; print(json.load(open("back.jsonl")) == json.load(open("line.jsonl")))')" True

# With a word of the story the rest follows: the KV cache of a prompt is that of generation.
python3 - "$STORIES/expected-greedy-text.txt" <<'PYTHON' >part.jsonl
import json, sys
text = open(sys.argv[1]).read()
print(json.dumps({"prompt": text[:text.index(" One day")]}))
PYTHON
ha-attempt generate --model "$STORIES" --prompts part.jsonl --out part-answers.jsonl --threads 1 \
    --set generate.max_new_tokens=100 2>part.log
check "a story goes on from its beginning" python3 - "$STORIES/expected-greedy-text.txt" <<'PYTHON'
import json, sys
text, answer = open(sys.argv[1]).read(), json.loads(open("part-answers.jsonl").readline())
# Decoded alone, a Llama answer loses the space before its first word.
assert text.startswith(answer["prompt_text"] + " " + answer["raw"]), answer
assert len(answer["raw"]) > 100, answer
PYTHON
