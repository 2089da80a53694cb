#!/usr/bin/env python3
"""A model directory with random bf16 weights and the tokenizer of another one.

    python3 tests/tools/make_random_model.py --like deploy/demo/models/qwen3-demo --out DIR
        [--width 384] [--inner 1024] [--layers 11] [--heads 6] [--kv-heads 2] [--head-dim 64]

The defaults give about 20M parameters. Needs nothing but Python; the same arguments give the same
bytes. The weights are small numbers of both signs, so that a forward pass stays finite.
"""

import argparse
import json
import pathlib
import random
import shutil

SMALL = bytes(0x3C | byte & 0x80 for byte in range(256))   # high bytes: 2^-7 to 2^-5, both signs


def tensors(config):
    """(name, shape) in file order."""
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (width,)
        yield layer + "post_attention_layernorm.weight", (width,)
        for name, shape in (("q", (queries, width)), ("k", (keys, width)), ("v", (keys, width)),
                            ("o", (width, queries))):
            yield f"{layer}self_attn.{name}_proj.weight", shape
        if config["model_type"] == "qwen3":
            yield layer + "self_attn.q_norm.weight", (size,)
            yield layer + "self_attn.k_norm.weight", (size,)
        for name, shape in (("gate", (inner, width)), ("up", (inner, width)),
                            ("down", (width, inner))):
            yield f"{layer}mlp.{name}_proj.weight", shape
    yield "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], width)


def values(shape, numbers):
    count = 1
    for extent in shape:
        count *= extent
    if len(shape) == 1:
        return b"\x80\x3f" * count   # norms: 1.0
    data = bytearray(numbers.randbytes(2 * count))
    data[1::2] = data[1::2].translate(SMALL)
    return bytes(data)


def write_weights(path, config):
    header, blocks, at = {}, [], 0
    numbers = random.Random(20260)
    for name, shape in tensors(config):
        blocks.append(values(shape, numbers))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(blocks[-1])]}
        at += len(blocks[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--like", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    sizes = {"width": ("hidden_size", 384), "inner": ("intermediate_size", 1024),
             "layers": ("num_hidden_layers", 11), "heads": ("num_attention_heads", 6),
             "kv-heads": ("num_key_value_heads", 2), "head-dim": ("head_dim", 64)}
    for option, (_, size) in sizes.items():
        parser.add_argument("--" + option, type=int, default=size)
    args = parser.parse_args()
    config = json.loads((args.like / "config.json").read_text())
    if config["model_type"] not in ("llama", "qwen3"):
        parser.error(f"{args.like}: a {config['model_type']} model; llama and qwen3 are known")
    for option, (key, _) in sizes.items():
        config[key] = getattr(args, option.replace("-", "_"))
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(args.like / name, args.out / name)
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_weights(args.out / "model.safetensors", config)


if __name__ == "__main__":
    main()
