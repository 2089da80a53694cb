#!/bin/sh
# Bad input: one clear line on standard error (the log's lines apart), an exit
# code that is not zero, and never a crash.
. "$(dirname "$0")/lib.sh"

DEMO=$HA_ROOT/deploy/demo
GOOD=$DEMO/models/llama-3.1-demo
SHARD=model-00001-of-00002.safetensors
PAIRS=$DEMO/data/eval.jsonl

# refuses NAME TEXT COMMAND...: the one line holds TEXT (a basic regular expression).
refuses() {
    refuses_name=$1 refuses_text=$2
    shift 2
    "$@" >out.txt 2>err.txt
    refuses_code=$?
    grep -v '^[0-9-]*T[0-9:.]*Z [a-z-]* info: ' err.txt >lines.txt
    refuses_lines=$(wc -l <lines.txt)
    if [ $refuses_code -eq 0 ] || [ $refuses_code -ge 126 ]; then
        not_ok "$refuses_name: exit code $refuses_code"
    elif [ "$refuses_lines" -ne 1 ]; then
        not_ok "$refuses_name: $refuses_lines lines on standard error"
    elif ! grep -q -e "$refuses_text" lines.txt; then
        not_ok "$refuses_name: '$(cat lines.txt)' does not say '$refuses_text'"
    elif [ -s out.txt ]; then
        not_ok "$refuses_name: results on standard output in spite of the error"
    else
        ok "$refuses_name"
        return
    fi
    cat err.txt >&2
}

score() { # model, options...
    score_model=$1
    shift
    ha-attempt score --model "$score_model" --data "${DATA:-$PAIRS}" --threads 1 --backend cpu "$@"
}

# ---- models ------------------------------------------------------------------------

copy() { # a fresh copy of the good model as ./model
    rm -rf model
    cp -r "$GOOD" model
}

config() { # Python statement over the dict c
    copy
    python3 - "$1" <<'PYTHON'
import json, sys
c = json.load(open("model/config.json"))
exec(sys.argv[1])
json.dump(c, open("model/config.json", "w"))
PYTHON
}

header() { # Python statement over h, the header of the first shard
    copy
    python3 - "$SHARD" "$1" <<'PYTHON'
import json, struct, sys
path = "model/" + sys.argv[1]
data = open(path, "rb").read()
size = struct.unpack("<Q", data[:8])[0]
h = json.loads(data[8:8 + size])
norm = "model.layers.0.input_layernorm.weight"
exec(sys.argv[2])
text = json.dumps(h).encode()
open(path, "wb").write(struct.pack("<Q", len(text)) + text + data[8 + size:])
PYTHON
}

refuses "no model folder" 'no/model.*No such file' score no/model
for file in config.json tokenizer.json $SHARD; do
    copy
    rm "model/$file"
    refuses "a model without $file" "model/$file" score model
    copy
    head -c 700 "$GOOD/$file" >"model/$file"
    refuses "a truncated $file" "model/$file" score model
    : >"model/$file"
    refuses "an empty $file" "model/$file" score model
    rm "model/$file"
    mkdir "model/$file"
    refuses "a folder in the place of $file" "model/$file" score model
done
copy
size=$(wc -c <"model/$SHARD")
head -c $((size - 1)) "$GOOD/$SHARD" >"model/$SHARD"
refuses "a shard that lacks its last byte" "model/$SHARD" score model
copy
rm model/model.safetensors.index.json
refuses "shards without their index" 'model: .*model.safetensors' score model
copy
echo '{"weight_map": {"x": "../../secret"}}' >model/model.safetensors.index.json
refuses "an index that leads out of the folder" 'not the name of a file beside it' score model
header 'h[norm]["dtype"] = "I16"'
refuses "weights of a dtype that is not read" 'input_layernorm.*I16' score model
header 'h[norm]["dtype"] = "F32"'
refuses "a tensor whose bytes are not its shape" "model/$SHARD.*input_layernorm" score model
header 'h[norm]["data_offsets"][1] += 1 << 60'
refuses "a tensor beyond the file" "model/$SHARD.*input_layernorm" score model
header 'h[norm]["shape"] = [1 << 62, 1 << 62]'
refuses "a shape that overflows" 'input_layernorm.*overflows' score model
header 'h["model.layers.0.extra.weight"] = h.pop(norm)'
refuses "a tensor that no layer has" 'extra.weight' score model
config 'c["architectures"] = ["GPT2LMHeadModel"]; c["model_type"] = "gpt2"'
refuses "an architecture that is not built" 'model/config.json.*GPT2LMHeadModel.*not supported' score model
config 'c["num_hidden_layers"] = 10 ** 9'
refuses "a billion layers" 'num_hidden_layers' score model
config 'c["hidden_size"] = -96'
refuses "a negative width" 'hidden_size' score model
config 'c["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}'
refuses "a rope that is not built" 'yarn' score model
config 'c["quantization_config"] = {"quant_method": "gptq"}'
refuses "quantized weights" 'quantization_config' score model
copy
echo '{"version": "1.0", "model": {"type": "WordPiece"}}' >model/tokenizer.json
refuses "a tokenizer that is not built" 'model/tokenizer.json.*WordPiece' score model
config 'c["vocab_size"] = 2000'
refuses "a vocabulary that is not the weights'" 'embed_tokens' score model

# ---- data ----------------------------------------------------------------------------

data() { # name, text, content: every command that reads pairs refuses them
    printf "$3" >data.jsonl
    DATA=data.jsonl
    refuses "score: $1" "data.jsonl.*$2" score "$GOOD"
    refuses "train: $1" "data.jsonl.*$2" ha-attempt train --model "$GOOD" --strategy mid \
        --data data.jsonl --out adapter --threads 1 --backend cpu
}
data "an empty dataset" 'empty' ''
data "blank lines alone" 'empty' '\n \n\n'
data "malformed JSON" '2' '{"chosen": "a", "rejected": "ab"}\n{"chosen": \n'
data "a row that is no object" ':1: not an object' '[1]\n'
data "a row without rejected" ':2.*rejected' '{"chosen": "a", "rejected": "ab"}\n{"chosen": "x"}\n'
data "a number for a text" ':1.*chosen' '{"chosen": 1, "rejected": "x"}\n'
data "an empty list of messages" ':1.*rejected.*empty' '{"chosen": [{"role": "user", "content": "x"}], "rejected": []}\n'
data "a message without a role" ':1.*chosen.*role' '{"chosen": [{"content": "x"}], "rejected": "x"}\n'
data "bytes that are not UTF-8" ':1' '{"chosen": "\377", "rejected": "x"}\n'
data "prompts alone" 'chosen and rejected' '{"prompt": "x"}\n'
data "pairs without a common prompt" 'row 0.*no common beginning' '{"chosen": "yes", "rejected": "no"}\n'
data "an empty text" 'no pair is left' '{"chosen": "", "rejected": "no"}\n'
printf '{"chosen": "abc", "rejected": "abd"}\n' | gzip >whole.gz
DATA=cut.gz
head -c 40 whole.gz >cut.gz
refuses "gzip that is cut off" 'cut.gz.*cut off' score "$GOOD"
{ head -c 20 whole.gz; printf 'garbage'; tail -c 10 whole.gz; } >cut.gz
refuses "gzip that is damaged" 'cut.gz.*gzip' score "$GOOD"
printf 'text' >cut.gz
refuses "text under the name of gzip" 'cut.gz: not a gzip file' score "$GOOD"
DATA=nowhere.jsonl
refuses "a data file that is not there" 'nowhere.jsonl: No such file' score "$GOOD"
DATA=.
refuses "a folder as data" 'directory' score "$GOOD"
printf 'PAR1' >table.parquet
DATA=table.parquet
refuses "a Parquet file" 'table.parquet' score "$GOOD"
DATA=

python3 -c 'import json
print(json.dumps({"prompt": "word " * 4000}))' >long.jsonl
refuses "a prompt longer than the context" 'long.jsonl: no prompt is left of 1 rows: 1 are longer' \
    ha-attempt generate --model "$GOOD" --prompts long.jsonl --out answers.jsonl --threads 1
refuses "prompts longer than max_length" 'no pair is left.*max_length = 4' \
    ha-attempt train --model "$GOOD" --strategy mid --data "$PAIRS" --out adapter --threads 1 \
    --set train.max_length=4
refuses "no room for a prompt" 'max_new_tokens = 4096 leaves no room' \
    ha-attempt generate --model "$GOOD" --prompts "$PAIRS" --out answers.jsonl --threads 1 \
    --set generate.max_new_tokens=4096

# ---- tokenizer's lines, adapters, settings ----------------------------------------------

lines() { # options, then lines on standard input
    ha-attempt tokenize --model "$GOOD" "$@"
}
printf 'hello\n' >in.txt
refuses "a line that is no JSON" 'standard input:1' lines <in.txt
printf '[1]\n' >in.txt
refuses "a line that is no text" 'standard input:1: not a JSON string' lines <in.txt
printf '[1, -1]\n' >in.txt
refuses "an id below zero" 'standard input:1: element 1' lines --decode <in.txt
printf '"x"\n' >in.txt
refuses "text where ids belong" 'standard input:1: not a JSON array' lines --decode <in.txt

ha-attempt train --model "$GOOD" --strategy mid --data "$PAIRS" --out adapter --threads 1 \
    --set data.train_samples=6 --set train.lora_rank=2 2>train.log
refuses "an adapter that is not there" 'nothing/adapter_config.json' score "$GOOD" --adapter nothing
refuses "an adapter of another model" 'adapter_model.safetensors.*shape\|layer' \
    score "$DEMO/models/qwen3-demo" --adapter adapter
cp -r adapter dora
sed 's/"use_dora": *false/"use_dora": true/' adapter/adapter_config.json >dora/adapter_config.json
refuses "an adapter of a kind that is not built" 'use_dora' score "$GOOD" --adapter dora
cp -r adapter short
head -c 900 adapter/adapter_model.safetensors >short/adapter_model.safetensors
refuses "a truncated adapter" 'short/adapter_model.safetensors' score "$GOOD" --adapter short

train() {
    ha-attempt train --model "$GOOD" --strategy "${STRATEGY:-mid}" --data "$PAIRS" --out adapter \
        --threads 1 "$@"
}
STRATEGY=base
refuses "a strategy that trains nothing" 'base' train
STRATEGY=middle
refuses "an unknown strategy" 'middle: give local, mid' train
STRATEGY=5-9
refuses "layers that the model has not" 'layer 9 does not exist' train
STRATEGY=
refuses "a value out of range" 'train.beta' train --set train.beta=-1
refuses "a loss that lacks a setting" 'needs a train.label_smoothing' train --set train.loss=exo_pair
refuses "a schedule that is not built" 'train.lr_scheduler = cosine is not built yet' \
    train --set train.lr_scheduler=cosine
refuses "a misspelt key" 'did you mean learning_rate' train --set train.learning_rat=1
refuses "an unknown backend" 'tpu' train --backend tpu
refuses "a checkpoint that is not there" 'none.safetensors' train --resume none.safetensors
refuses "a checkpoint that is none" 'in.txt' train --resume in.txt

# ---- places that cannot be written to ------------------------------------------------------

refuses "a full disk: metrics" '/dev/full.*No space left' train --metrics /dev/full
refuses "a full disk: answers" '/dev/full.*No space left' ha-attempt generate --model "$GOOD" \
    --prompts "$PAIRS" --out /dev/full --threads 1 --set generate.max_new_tokens=2
full() {
    "$@" >/dev/full
}
refuses "a full disk: scores" 'standard output: No space left' full score "$GOOD"
refuses "a full disk: a plan" 'standard output: No space left' full ha-attempt plan --model "$GOOD"
printf '"x"\n' >in.txt
refuses "a full disk: ids" 'standard output: No space left' full lines <in.txt
refuses "a file in the place of the output folder" 'in.txt' train --out in.txt/adapter
refuses "answers into a folder that is not there" 'no/answers.jsonl' ha-attempt generate \
    --model "$GOOD" --prompts "$PAIRS" --out no/answers.jsonl --threads 1
small() { # a command with the folder ./small on a disk of 16 KiB of its own
    unshare -rm sh -c 'mount -t tmpfs -o size=16k none small && exec "$@"' sh "$@"
}
mkdir small
if small true 2>/dev/null; then
    refuses "a full disk: the adapter" 'small/.*\(full\|No space left\)' small ha-attempt train \
        --model "$GOOD" --strategy mid --data "$PAIRS" --out small --threads 1
else
    echo "skip $HA_TEST: a full disk: the adapter: no small disk can be mounted here"
fi
echo old >kept.jsonl
refuses "no model, and answers from before" 'nowhere' ha-attempt generate --model nowhere \
    --prompts "$PAIRS" --out kept.jsonl
equal "they are still there" "$(cat kept.jsonl)" old

# ---- grids ----------------------------------------------------------------------------------

grid() { # sed expression over the demo's grid
    sed -e "s|\"models/|\"$DEMO/models/|; s|\"data/|\"$DEMO/data/|" "$DEMO/grid.toml" |
        sed -e "$1" >grid.toml
    hactl submit --dry-run grid.toml
}
refuses "malformed TOML" 'grid.toml:[0-9]*' grid 's/^name = "demo"/name = "demo/'
refuses "an unknown key" 'grid.toml:[0-9]*.*did you mean.*learning_rate' grid 's/^learning_rate/lerning_rate/'
refuses "an unknown section" 'grid.toml:[0-9]*' grid 's/^\[train\]/[training]/'
refuses "a value of another type" 'grid.toml:[0-9]*.*eval_samples' grid 's/^eval_samples = .*/eval_samples = "all"/'
refuses "a value below its range" 'grid.toml:[0-9]*.*max_new_tokens' grid 's/^max_new_tokens = .*/max_new_tokens = 0/'
refuses "a key given twice" 'grid.toml:[0-9]*' grid 's/^\(train_samples.*\)/\1\n\1/'
refuses "an unknown strategy in a grid" 'grid.toml.*upper' grid 's/"global"/"upper"/'
refuses "no model" 'grid.toml.*model' grid '/^\[\[model\]\]/,/^$/d'
refuses "a model path that is not there" 'nowhere' grid 's|^path = .*qwen3-demo"|path = "nowhere"|'
refuses "a grid that is not there" 'no.toml' hactl submit --dry-run no.toml
