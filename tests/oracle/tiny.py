"""Random tiny models of the four families, in every form of a model directory."""

import dataclasses
import json
import random
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from common import MODELS

KINDS = {"llama2": (LlamaConfig, "llama-2-demo"), "llama3": (LlamaConfig, "llama-3.1-demo"),
         "qwen2": (Qwen2Config, "qwen2.5-demo"), "qwen3": (Qwen3Config, "qwen3-demo")}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass
class Form:
    kind: str
    group: int             # query heads for each key-value head
    dtype: str = "fp32"
    head_dim: int = 0      # 0: the width over the heads
    tied: bool = False
    bias: bool = False     # q, k, v and o, where config.json can say so
    original: int = 0      # llama3: original_max_position_embeddings
    config: str = "v5"     # key forms of config.json
    shards: int = 1
    seed: int = 0

    def name(self):
        values = dataclasses.asdict(self)
        return " ".join(f"{key}={value}" for key, value in values.items())


def forms():
    """Every family with every group twice, the rest drawn so that all values meet all families."""
    draw, result = random.Random(20260), []
    for kind in KINDS:
        for index, group in enumerate([1, 2, 4, 7, 8] * 2):
            result.append(Form(
                kind, group, dtype=list(DTYPES)[index % 3], head_dim=draw.choice([0, 24, 40]),
                tied=index % 2 == 1, bias=kind.startswith("llama") and index % 4 == 2,
                original=draw.choice([32, 128, 4096]) if kind == "llama3" else 0,
                config=["v5", "v4", "v4-type"][(index + index // 5) % 3],
                shards=1 + draw.randrange(3), seed=len(result)))
    return result


def make_config(form):
    config_class, family = KINDS[form.kind]
    source = json.loads((MODELS / family / "config.json").read_text())
    kv_heads = 1 if form.group > 2 else 2
    heads = form.group * kv_heads
    values = {"hidden_size": 16 * heads, "intermediate_size": 72, "num_hidden_layers": 3,
              "num_attention_heads": heads, "num_key_value_heads": kv_heads,
              "vocab_size": source["vocab_size"], "max_position_embeddings": 8192,
              "tie_word_embeddings": form.tied, "rms_norm_eps": source["rms_norm_eps"],
              "bos_token_id": source["bos_token_id"], "eos_token_id": source["eos_token_id"],
              "head_dim": form.head_dim or 16}
    if form.kind.startswith("llama"):
        values["attention_bias"] = form.bias
    rope = {"rope_type": "default", "rope_theta": 10000.0 if form.kind == "llama2" else 500000.0}
    if form.original:
        rope |= {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                 "high_freq_factor": 4.0, "original_max_position_embeddings": form.original}
    return config_class(**values, rope_parameters=rope, dtype=DTYPES[form.dtype])


@torch.no_grad()
def make_model(form):
    """About unit gain everywhere, so that no part hides behind the residual stream."""
    torch.manual_seed(form.seed)
    model = AutoModelForCausalLM.from_config(make_config(form), dtype=torch.float32)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            alone = "embed_tokens" in name and not form.tied
            weight.normal_(0.0, 1.0 if alone else 1.5 / weight.shape[1] ** 0.5)
        elif "norm" in name:
            weight.uniform_(0.6, 1.4)
        else:
            weight.normal_(0.0, 0.3)
    return model.to(DTYPES[form.dtype])


def old_keys(config, with_type):
    """config.json as Transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["torch_dtype"] = config.pop("dtype")
    scaled = rope["rope_type"] != "default"
    if scaled and with_type:
        rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope if scaled else None


def write_shards(folder, count):
    """Cut model.safetensors into shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    names, weight_map = sorted(tensors), {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part = names[shard::count]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def write_model(folder, form):
    """A model directory of this form, with the tokenizer of its family's demo model."""
    shutil.rmtree(folder, ignore_errors=True)
    make_model(form).save_pretrained(folder, max_shard_size="1GB")
    config = json.loads((folder / "config.json").read_text())
    if form.config != "v5":
        old_keys(config, form.config == "v4-type")
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if form.shards > 1:
        write_shards(folder, form.shards)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODELS / KINDS[form.kind][1] / file, folder)
    return folder
