#!/bin/sh
# What runs on a GPU, without one: every part of tests/gpu/run.sh at a small size, from the build
# folder and from a packed one, and what it says where something is missing.
. "$(dirname "$0")/lib.sh"

GPU=$HA_ROOT/tests/gpu
python=${HA_ORACLE_PYTHON:-python3}

if [ ! -e /dev/nvidiactl ]; then
    equal "without a GPU it is skipped" "$(sh "$GPU/run.sh" | cut -c1-8)$?" skipped:0
fi
if [ ! -f "$HA_BUILD/ha-kernels-cuda.so" ]; then
    echo "skip $HA_TEST: built without nvcc, there is no module to pack or to emulate"
    exit 0
fi

# Stand-ins: one runs what it is given, the other answers with tokens.
mkdir -p bin stand-in/vllm/lora stand-in/vllm-0.0.dist-info
printf '#!/bin/sh\nshift 4\nexec "$@"\n' >bin/compute-sanitizer
chmod +x bin/compute-sanitizer
cat >stand-in/vllm/__init__.py <<'PYTHON'
import types
class SamplingParams:
    def __init__(self, max_tokens, ignore_eos, temperature):
        assert ignore_eos and temperature == 0
        self.max_tokens = max_tokens
class LLM:
    def __init__(self, **settings):
        assert settings["dtype"] == "bfloat16" and settings["max_loras"] >= 1
    def generate(self, prompts, settings, lora_request=None):
        assert lora_request is None or len(lora_request) == len(prompts)
        out = types.SimpleNamespace(token_ids=[0] * settings.max_tokens)
        return [types.SimpleNamespace(outputs=[out]) for _ in prompts]
PYTHON
: >stand-in/vllm/lora/__init__.py
echo 'def LoRARequest(name, number, path): assert number > 0; return name' >stand-in/vllm/lora/request.py
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.0\n' >stand-in/vllm-0.0.dist-info/METADATA

PATH=$HA_TMP/bin:$PATH HA_GPU_SCRATCH=$HA_TMP HA_ORACLE_PYTHON=$python sh "$GPU/run.sh" --dry >dry.out 2>&1
equal "every part runs at a small size" $? 0
for part in "kernels/test_rows" "racecheck kernels/test_specials" "bench kernels" "step of llama-3.1-8b" models; do
    equal "$part passed" "$(grep -c "^$part  *ok " dry.out)" 1
done
equal "a model that was made smaller gets no verdict" "$(grep -cE ' (not )?reached' dry.out)" 0
equal "but a line for each goal" "$(grep -cE 'smaller model: no comparison|not measured$' dry.out)" 11
if "$python" -c 'import peft' 2>/dev/null; then
    equal "the other sides are measured" "$(grep -cE '^(train-paper|train-tuned|generate-transformers)-llama-3.1-8b ratio [0-9.]+$' dry.out)" 3
else
    equal "what is missing is said" "$(grep -cE 'not measured.*no (PyTorch|PEFT) here' dry.out)" 5
fi

# With what is only there sometimes: vLLM, and no TRL.
mkdir -p fewer
echo 'raise ImportError("a test hides it")' >fewer/trl.py
if "$python" -c 'import peft' 2>/dev/null; then
    PYTHONPATH=$HA_TMP/fewer:$HA_TMP/stand-in:$GPU:$HA_ROOT/tests/bench "$python" "$GPU/bench_models.py" \
        --program "$HA_BUILD/ha-attempt" --maker "$HA_BUILD/tests/gpu/shape_model" --backend cpu --shrink 16 \
        --layers 3 --steps 2 --alone-steps 1 --prompts 4 --peer-prompts 2 --new-tokens 4 --peer-tokens 4 --peer-batch 2 \
        --threads 1 --models qwen3-8b --budget 3600 --python "$python" >fewer.out 2>&1
    equal "without TRL, with vLLM" $? 0
    equal "Transformers and PEFT take TRL's place" "$(grep -c 'Transformers + PEFT, .* one strategy' fewer.out)" 2
    equal "and vLLM is measured" "$(grep -c 'generation, vLLM .*version 0.0' fewer.out)" 1
fi
PYTHONPATH=$GPU:$HA_ROOT/tests/bench python3 "$GPU/bench_models.py" --program "$HA_BUILD/ha-attempt" \
    --maker "$HA_BUILD/tests/gpu/shape_model" --backend cpu --shrink 16 --layers 3 --models qwen3-8b,llama-2-7b \
    --budget 0 --results late.jsonl >late.out 2>&1
equal "without time nothing fails" $? 0
equal "and everything is named that was not measured" "$(grep -c '"not measured"' late.jsonl)" 5

# ---- a folder for another machine ----
sh "$GPU/pack.sh" pack "$HA_BUILD" >pack.out 2>&1
equal "it is packed" $? 0
equal "in less than 64 MiB" "$(du -sm pack | awk '{ print ($1 < 64) }')" 1
PATH=$HA_TMP/bin:$PATH HA_GPU_MODULE=$HA_BUILD/tests/cuda/ha-kernels-cuda-emulated.so HA_GPU_SCRATCH=$HA_TMP \
    HA_GPU_MODELS=qwen3-8b HA_ORACLE_PYTHON=python3 sh pack/run.sh --dry >packed.out 2>&1
equal "and runs from there" $? 0
HA_GPU_MODULE=$HA_BUILD/tests/cuda/ha-kernels-cuda-emulated.so HA_GPU_SCRATCH=$HA_TMP HA_ORACLE_PYTHON=/no/python \
    sh pack/run.sh --dry >bare.out 2>&1
equal "also without Python" "$?$(grep -c '^models  *no Python' bare.out)" 01

# ---- the lengths are hh-rlhf's ----
if [ -n "${HA_TEST_DATA:-}" ] && [ -d "$HA_TEST_DATA/tokenizers" ]; then
    python3 "$GPU/make_lengths.py" "$HA_BUILD/ha-attempt" lengths.txt
    check "lengths.txt is what the data gives" cmp lengths.txt "$GPU/lengths.txt"
else
    echo "skip $HA_TEST: lengths of hh-rlhf: HA_TEST_DATA names no folder with tokenizers"
fi
