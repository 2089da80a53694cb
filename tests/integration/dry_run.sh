#!/bin/sh
# hactl submit --dry-run: the paper's grid without model files, its layer blocks
# from config.json alone, and errors that name file, line, key and nearest key.
. "$(dirname "$0")/lib.sh"

PAPER=$HA_ROOT/deploy/paper

check "the paper's grid" hactl submit --dry-run "$PAPER/grid.toml"
cp check.out paper.txt
equal "its cells" "$(grep -c '^20 cells$' paper.txt)" 1
equal "its scores" "$(grep -c '320000 scores$' paper.txt)" 1
check "the grid of tuned models" hactl submit --dry-run "$PAPER/grid-instruct.toml"
equal "its cells too" "$(grep -c '^20 cells$' check.out)" 1

# The paper's Table 4.
cat >table4.txt <<'TABLE'
Llama-2-7b 32 0-10 11-21 22-31
Llama-3.1-8B 32 0-10 11-21 22-31
Qwen3-8B 36 0-11 12-23 24-35
Qwen2.5-7B 28 0-9 10-18 19-27
TABLE

blocks() { # output of a dry run: model, layers, blocks
    awk '$1 == "Model" && $3 == "Total" { on = 1; next } on && NF == 0 { exit }
        on { print $1, $3, $4, $5, $6 }' "$1"
}

compare_blocks() { # name, output
    while read -r row; do
        equal "$1: ${row%% *}" "$(blocks "$2" | grep "^${row%% *} ")" "$row"
    done <table4.txt
    equal "$1: no other rows" "$(blocks "$2" | wc -l)" 4
}
compare_blocks "Table 4 from the grid's layers" paper.txt

# The paper's Table 5, each with its source.
while read -r row; do
    grep -q "^$row  *# \(paper\|user\);" paper.txt
    equal "Table 5: $row" $? 0
done <<'TABLE'
learning_rate = 1e-5
weight_decay = 0.01
beta1 = 0.9
beta2 = 0.999
batch_size = 6
gradient_accumulation = 4
epochs = 1
beta = 0.1
lora_rank = 16
lora_alpha = 32
lora_dropout = 0.05
precision = "bf16"
max_length = 2048
TABLE

if [ -n "${HA_TEST_DATA:-}" ] && [ -d "$HA_TEST_DATA/configs" ]; then
    for name in llama-2-7b-hf llama-3.1-8b-instruct qwen3-8b qwen2.5-7b-instruct; do
        mkdir -p "models/$name"
        cp "$HA_TEST_DATA/configs/$name/config.json" "models/$name/"
    done
    sed -e 's|^path = "meta-llama/Llama-2-7b-hf"|path = "models/llama-2-7b-hf"|' \
        -e 's|^path = "meta-llama/Llama-3.1-8B"|path = "models/llama-3.1-8b-instruct"|' \
        -e 's|^path = "Qwen/Qwen3-8B"|path = "models/qwen3-8b"|' \
        -e 's|^path = "Qwen/Qwen2.5-7B"|path = "models/qwen2.5-7b-instruct"|' \
        -e '/^layers = /d; /^family = /d' "$PAPER/grid.toml" >grid.toml
    check "a grid whose models are config.json alone" hactl submit --dry-run grid.toml
    cp check.out configs.txt
    equal "its cells from config.json" "$(grep -c '^20 cells$' configs.txt)" 1
    compare_blocks "Table 4 from config.json" configs.txt
    cp "$HA_TEST_DATA/configs/qwen3-8b/config.v5-form.json" models/qwen3-8b/config.json
    check "the same with a newer config.json" hactl submit --dry-run grid.toml
    compare_blocks "Table 4 from the newer form" check.out
    sed 's|^path = "models/qwen3-8b"|&\nlayers = 35|' grid.toml >wrong.toml
    if hactl submit --dry-run wrong.toml >wrong.out 2>wrong.err; then
        not_ok "layers that config.json denies are accepted"
    else
        equal "layers that config.json denies: both numbers" "$(grep -c '35.*36\|36.*35' wrong.err)" 1
    fi
else
    echo "skip $HA_TEST: Table 4 from config.json: HA_TEST_DATA names no folder with configs"
fi

hactl submit --dry-run "$PAPER/grid.toml" --set train.disable_dropout=false \
    --set train.dropout_seed=7 >dropout.txt
equal "dropout is asked for" \
    "$(grep -c '^disable_dropout = false  *# user\|^dropout_seed = 7  *# user' dropout.txt)" 2
equal "and is TRL's without" "$(grep -c '^disable_dropout = true  *# TRL' paper.txt)" 1

check "a dry run as JSON" eval 'hactl submit --dry-run --json "$PAPER/grid.toml" >dry.json'
check "which a program can read" python3 -c 'import json; json.load(open("dry.json"))'

# The plan covers a grid's own strategies and what it varies.
sed 's|"models/|"'"$HA_ROOT"'/deploy/demo/models/|; s|"data/|"'"$HA_ROOT"'/deploy/demo/data/|' \
    "$HA_ROOT/deploy/demo/grid.toml" >varied.toml
cat >>varied.toml <<'GRID'
[[strategy]]
name = "top"
layers = "4-5"
[[strategy]]
name = "picked"
layers = "auto:2"
[vary]
lora_rank = [16, 64]
learning_rate = [1e-3, 2e-3]
GRID
check "a grid of own strategies and varied ranks" eval \
    'hactl submit --dry-run --json varied.toml --gpu-memory 24GiB >varied.json'
check "each of its shapes is planned, on CPU and GPU" python3 - <<'PYTHON'
import json
plans = json.load(open("varied.json"))["plans"]
assert len(plans) == 4, list(plans)
for plan in plans.values():
    names = ["local", "mid", "global", "full"]
    for where in (plan, plan["gpu"]):
        one = where["strategies"]
        assert list(one)[:4] == names and len(one) == 4 + 4 + 2 * 2, list(one)
        few, many = one["mid"], one["mid, rank=64"]
        assert many["trainable_parameters"] == 4 * few["trainable_parameters"], (few, many)
        assert many["memory_bytes"] > few["memory_bytes"] and many["fits"], (few, many)
        assert one["top, rank=16"]["layers"] == "4-5", one["top, rank=16"]
        assert one["picked, rank=16"]["layers"] == "auto:2", one["picked, rank=16"]
        assert one["picked, rank=16"]["memory_bytes"] >= one["top, rank=16"]["memory_bytes"]
    assert plan["cells_left_out"] == 0
PYTHON

# A model that no GPU of the gang holds: its weights are shared, in training and generation.
mkdir -p models/70b
cat >models/70b/config.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
 "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
 "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
 "torch_dtype": "bfloat16", "tie_word_embeddings": false}
JSON
{
    sed -n '1,/^\[\[model\]\]/p' "$HA_ROOT/deploy/demo/grid.toml" |
        sed 's|"models/|"'"$HA_ROOT"'/deploy/demo/models/|; s|"data/|"'"$HA_ROOT"'/deploy/demo/data/|'
    printf 'path = "models/70b"\nname = "large"\n'
    printf '[strategies]\nuse = ["mid"]\n[data]\ntrain = ["%s/deploy/demo/data/train.jsonl"]\n' "$HA_ROOT"
    printf 'eval = ["%s/deploy/demo/data/eval.jsonl"]\n[resources]\ngpus = 4\n' "$HA_ROOT"
    sed -n '/^\[\[judge\]\]/,/^$/p' "$HA_ROOT/deploy/demo/grid.toml"
} >large.toml
hactl submit --dry-run large.toml --gpu-memory 80GiB >large.txt
equal "weights are shared where no GPU holds them" "$(grep -c 'weights in 4 shares' large.txt)" 5
equal "for answers, too" "$(grep -c 'large: answers are made with weights shared by 4 ranks, [0-9]* MiB' large.txt)" 1
equal "the setting is shown" "$(grep -c '^shard_weights = "auto"  *# ours' large.txt)" 1
hactl submit --dry-run large.toml --gpu-memory 80GiB --set train.shard_weights=never >never.txt
equal "and heeded" "$(grep -c 'weights in 4 shares' never.txt)" 0
equal "for answers, too, which then do not fit" "$(grep -c 'large: answers need [0-9]* MiB on each GPU' never.txt)" 1

# ---- errors of a grid: file, line, key, nearest key ------------------------------------

error_of() { # sed expression over the paper's grid; prints the error
    sed "$1" "$PAPER/grid.toml" >bad.toml
    hactl submit --dry-run bad.toml 2>&1 >bad.out
}
line_of() {
    grep -n "$1" bad.toml | head -n 1 | cut -d: -f1
}
names() { # name, error, texts...
    names_name=$1 names_error=$2
    shift 2
    for text in "$@"; do
        case $names_error in
        *"$text"*) ;;
        *) not_ok "$names_name: '$names_error' does not say '$text'" && return ;;
        esac
    done
    ok "$names_name"
}
error=$(error_of 's/^train_samples/train_sample/')
names "a misspelt key" "$error" "bad.toml:$(line_of '^train_sample ')" train_sample 'mean train_samples'
error=$(error_of 's/^max_new_tokens = 256/max_new_tokens = "many"/')
names "a value of another type" "$error" "bad.toml:$(line_of '^max_new_tokens')" generate.max_new_tokens
error=$(error_of 's/^temperature = 0/temperature = -1/')
names "a value out of range" "$error" "bad.toml:$(line_of '^temperature')" generate.temperature
error=$(error_of 's/^\[data\]/[datas]/')
names "a misspelt section" "$error" "bad.toml:$(line_of '^\[datas\]')" '[datas]' 'mean [data]'
error=$(error_of 's/^use = .*/use = ["base", "loacl"]/')
names "a misspelt strategy" "$error" "bad.toml:" loacl
error=$(error_of 's/^layers = 28/layers = 2.5/')
names "layers that are no number" "$error" "bad.toml:$(line_of '^layers = 2.5')" layers
error=$(hactl submit --dry-run "$PAPER/grid.toml" --set train.lerning_rate=1 2>&1 >/dev/null)
names "a misspelt --set" "$error" 'train.lerning_rate' 'mean learning_rate'
