#!/usr/bin/env python3
"""Make the four demo models of deploy/demo/models.

Each is a small Hugging Face model directory of one supported family, with a tokenizer trained for
it and weights trained on the dialogues of hh-rlhf helpful-base, so that it writes text of that
form. They are small enough to be committed and odd enough to be useful in tests: the numbers of
layers, head sizes, ratios of query to key heads, tied and untied heads all differ.

    HA_TEST_DATA=... python3 tests/tools/make_demo_models.py [--family NAME ...] [--steps N]

Needs torch, transformers, tokenizers, safetensors and numpy (tests/golden/requirements.txt).
Everything is drawn from fixed seeds; another thread count or CPU changes the last bits.
"""

import argparse
import gzip
import importlib.util
import json
import math
import os
import pathlib
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = 20240601
HELD_OUT = 100            # dialogues at the end of the file that only measure the loss
MAX_POSITIONS = 2048
MAX_BYTES = 2_000_000     # of weights, so that the models can live in the repository

# The chat templates of the real families: Llama 2's as published, the others as TRL has them.
LLAMA2_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def published_chat(name):
    folder = pathlib.Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    return (folder / f"{name}.jinja").read_bytes().decode()


# The pre-tokenizers of the real families; they differ only in how digits are grouped.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = WORDS % r"\p{N}{1,3}"
QWEN_WORDS = WORDS % r"\p{N}"

LLAMA3_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
] + [f"<|reserved_special_token_{i}|>" for i in range(3, 8)]
# Words that are in the vocabulary without a merge that makes them, so that ignore_merges shows.
LLAMA3_WHOLE_WORDS = ["Human", "Assistant", "ĠHuman", "ĠAssistant"]

QWEN25_ADDED = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]
QWEN3_ADDED = QWEN25_ADDED + ["<tool_response>", "</tool_response>", "<think>", "</think>"]
QWEN_FIRST_PLAIN = QWEN25_ADDED.index("<tool_call>")   # added from here on: not "special"


# ---------------------------------------------------------------------------- text

def read_dialogues(data_dir):
    """All chosen and rejected texts of helpful-base, in file order, without empty ones."""
    path = data_dir / "hh-rlhf/helpful-base/test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [text for record in records for text in (record["chosen"], record["rejected"]) if text]


# ---------------------------------------------------------------------------- tokenizers

def added_token(token_id, content, special=True):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": special}


def bos_template(bos, bos_id):
    """The post-processor that puts BOS in front of each sequence."""
    def piece(kind, name, type_id):
        return {kind: {"id": name, "type_id": type_id}}
    first = [piece("SpecialToken", bos, 0), piece("Sequence", "A", 0)]
    second = [piece("SpecialToken", bos, 1), piece("Sequence", "B", 1)]
    return {"type": "TemplateProcessing", "single": first, "pair": first + second,
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}}


def byte_level(add_prefix_space, trim_offsets, use_regex):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets, "use_regex": use_regex}


def split_then_bytes(words, trim_offsets):
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level(False, trim_offsets, False)]}


def tokenizer_file(added, model, **parts):
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": None, "pre_tokenizer": None, "post_processor": None,
                "decoder": None, "model": None}
    document.update(parts)
    base = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
    document["model"] = {**base, **model}
    return document


def learn_byte_level_bpe(texts, words, size, nfc=False):
    """A vocabulary (dict in id order) and merges (pairs in rank order) over bytes."""
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return vocabulary_and_merges(tokenizer)


def vocabulary_and_merges(tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    return vocabulary, [tuple(merge) for merge in model["merges"]]


def learn_sentence_piece_bpe(texts, size):
    """Pieces with U+2581 for a space: merged pieces first, then single characters.

    Lines are learnt one by one and rare characters are left out, so that a newline and everything
    unusual is written with byte tokens.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"▁?\p{L}+|\p{N}|▁?[^▁\p{L}\p{N}]|▁+"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=96,
                                  special_tokens=["<unk>"])
    lines = (line for text in texts for line in text.split("\n") if line)
    tokenizer.train_from_iterator(lines, trainer)
    vocabulary, merges = vocabulary_and_merges(tokenizer)
    pieces = [piece for piece in vocabulary if piece != "<unk>"]
    return [p for p in pieces if len(p) > 1] + [p for p in pieces if len(p) == 1], merges


def llama2_tokenizer(texts, size):
    controls = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    # <unk> is counted by both sides of the sum.
    pieces, merges = learn_sentence_piece_bpe(texts, size - len(controls) - len(byte_tokens) + 1)
    vocabulary = {token: i for i, token in enumerate(controls + byte_tokens + pieces)}
    return tokenizer_file(
        [added_token(i, token) for i, token in enumerate(controls)],
        {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocabulary,
         "merges": [" ".join(merge) for merge in merges]},
        normalizer={"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        post_processor=bos_template("<s>", 1),
        decoder={"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})


def all_merges_by_rank(vocabulary):
    """Every pair of tokens that makes a token, ordered by the rank of what it makes.

    This is how a rank-only vocabulary such as Llama-3's is written as merges.
    """
    merges = []
    for token in vocabulary:
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        found = [pair for pair in splits if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(found, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def llama31_tokenizer(texts, size):
    plain = size - len(LLAMA3_SPECIAL)
    learnt, _ = learn_byte_level_bpe(texts, LLAMA3_WORDS, plain)
    kept = [token for token in learnt if token not in LLAMA3_WHOLE_WORDS]
    kept = kept[:plain - len(LLAMA3_WHOLE_WORDS)]
    merges = all_merges_by_rank({token: i for i, token in enumerate(kept)})
    vocabulary = {token: i for i, token in enumerate(kept + LLAMA3_WHOLE_WORDS)}
    bos = {"type": "Sequence", "processors": [
        byte_level(True, False, True), bos_template("<|begin_of_text|>", plain)]}
    return tokenizer_file(
        [added_token(plain + i, token) for i, token in enumerate(LLAMA3_SPECIAL)],
        {"ignore_merges": True, "vocab": vocabulary,
         "merges": [" ".join(merge) for merge in merges]},
        pre_tokenizer=split_then_bytes(LLAMA3_WORDS, True), post_processor=bos,
        decoder=byte_level(True, True, True))


def qwen_tokenizer(texts, size, added, merges_as_pairs):
    vocabulary, merges = learn_byte_level_bpe(texts, QWEN_WORDS, size - len(added), nfc=True)
    written = [list(merge) if merges_as_pairs else " ".join(merge) for merge in merges]
    return tokenizer_file(
        [added_token(len(vocabulary) + i, token, special=i < QWEN_FIRST_PLAIN)
         for i, token in enumerate(added)],
        {"continuing_subword_prefix": "", "end_of_word_suffix": "", "ignore_merges": False,
         "vocab": vocabulary, "merges": written},
        normalizer={"type": "NFC"}, pre_tokenizer=split_then_bytes(QWEN_WORDS, False),
        post_processor=byte_level(False, False, False), decoder=byte_level(False, False, False))


def tokenizer_config(bos=None, eos=None, pad=None, unk=None, template=None):
    """tokenizer_config.json; the generic class makes every reader take tokenizer.json as it is."""
    config = {"bos_token": bos, "clean_up_tokenization_spaces": False, "eos_token": eos,
              "model_max_length": MAX_POSITIONS, "pad_token": pad, "padding_side": "right",
              "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": unk}
    if template:
        config["chat_template"] = template
    return config


# ---------------------------------------------------------------------------- families

@dataclass
class Family:
    """What makes one model directory: config.json without token ids, and its tokenizer."""
    make_tokenizer: callable
    tokenizer_size: int
    names: dict                      # arguments of tokenizer_config
    config: dict
    extra_eos: list = field(default_factory=list)
    generation: dict = field(default_factory=dict)
    shards: int = 1
    steps: int = 4000                # optimizer steps of training


def common_config(architecture, model_type, layers, hidden, intermediate, heads, kv_heads, eps):
    return {
        "architectures": [architecture], "attention_dropout": 0.0, "hidden_act": "silu",
        "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": intermediate,
        "max_position_embeddings": MAX_POSITIONS, "model_type": model_type,
        "num_attention_heads": heads, "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads, "rms_norm_eps": eps, "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def make_families():
    llama2 = common_config("LlamaForCausalLM", "llama", 6, 96, 256, 6, 6, 1e-5)
    llama2 |= {"pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False,
               "transformers_version": "4.31.0", "vocab_size": 1024}
    llama31 = common_config("LlamaForCausalLM", "llama", 7, 96, 224, 4, 2, 1e-5)
    # With this base and original length the first three of twelve frequencies stay, the next two
    # are blended, the others divided.
    llama31 |= {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1,
                "rope_scaling": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 512,
                                 "rope_type": "llama3"},
                "rope_theta": 500000.0, "tie_word_embeddings": False,
                "transformers_version": "4.42.3", "vocab_size": 1280}
    qwen25 = common_config("Qwen2ForCausalLM", "qwen2", 8, 96, 256, 6, 2, 1e-6)
    qwen25 |= {"max_window_layers": 8, "rope_theta": 1000000.0, "sliding_window": MAX_POSITIONS,
               "tie_word_embeddings": True, "transformers_version": "4.43.1",
               "use_sliding_window": False, "vocab_size": 1152}
    qwen3 = common_config("Qwen3ForCausalLM", "qwen3", 9, 80, 176, 8, 2, 1e-6)
    qwen3 |= {"attention_bias": False, "head_dim": 32, "max_window_layers": 9,
              "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
              "tie_word_embeddings": True, "transformers_version": "4.51.0",
              "use_sliding_window": False, "vocab_size": 1216}
    return {
        "llama-2-demo": Family(
            llama2_tokenizer, 1024,
            dict(bos="<s>", eos="</s>", unk="<unk>", template=LLAMA2_CHAT), llama2,
            generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9}, steps=2000),
        "llama-3.1-demo": Family(
            llama31_tokenizer, 1280,
            dict(bos="<|begin_of_text|>", eos="<|eot_id|>", template=published_chat("llama3_1")),
            llama31,
            extra_eos=["<|end_of_text|>", "<|eom_id|>"],
            generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9}, shards=2),
        # The Qwen models have more rows than their tokenizers have tokens, as the real ones do.
        "qwen2.5-demo": Family(
            lambda texts, size: qwen_tokenizer(texts, size, QWEN25_ADDED, False), 1140,
            dict(eos="<|endoftext|>", pad="<|endoftext|>", template=published_chat("qwen2_5")),
            qwen25,
            generation={"do_sample": False, "max_new_tokens": 256}),
        "qwen3-demo": Family(
            lambda texts, size: qwen_tokenizer(texts, size, QWEN3_ADDED, True), 1200,
            dict(eos="<|im_end|>", pad="<|endoftext|>", template=published_chat("qwen3")), qwen3,
            extra_eos=["<|endoftext|>"],
            generation={"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}),
    }


def write_json(path, value):
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_tokenizer(directory, family, texts):
    document = family.make_tokenizer(texts, family.tokenizer_size)
    write_json(directory / "tokenizer.json", document)
    write_json(directory / "tokenizer_config.json", tokenizer_config(**family.names))
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    if tokenizer.get_vocab_size() > family.config["vocab_size"]:
        sys.exit(f"{directory.name}: the tokenizer has more tokens than the model has rows")
    return tokenizer


def write_configs(directory, family, tokenizer):
    """config.json and generation_config.json, with the ids that the tokenizer gave."""
    eos = [tokenizer.token_to_id(t) for t in family.extra_eos + [family.names["eos"]]]
    eos = eos if len(eos) > 1 else eos[0]
    # A Qwen has no BOS; its configs name the id of <|endoftext|> all the same.
    bos = tokenizer.token_to_id(family.names.get("bos") or "<|endoftext|>")
    config = {**family.config, "bos_token_id": bos, "eos_token_id": eos}
    write_json(directory / "config.json", dict(sorted(config.items())))
    generation = {"bos_token_id": bos, **family.generation, "eos_token_id": eos}
    if family.names.get("pad"):
        generation["pad_token_id"] = tokenizer.token_to_id(family.names["pad"])
    generation["transformers_version"] = config["transformers_version"]
    write_json(directory / "generation_config.json", generation)


# ---------------------------------------------------------------------------- training

def pack(texts, tokenizer, eos, length):
    """Dialogues with their EOS, one after the other, cut into rows of `length` tokens."""
    stream = []
    for encoding in tokenizer.encode_batch([text + eos for text in texts]):
        stream += encoding.ids
    rows = len(stream) // length
    return torch.tensor(stream[:rows * length]).view(rows, length)


def initialise(model):
    """Normal(0, 0.02), with the matrices that write to the residual stream made smaller."""
    scale = 1.0 / math.sqrt(2 * model.config.num_hidden_layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, 0.05)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.mul_(scale)


def make_optimizers(model, peak):
    """Muon for the matrices of the layers, which learn much faster with it, AdamW for the rest."""
    inner = {name: p for name, p in model.named_parameters() if p.dim() == 2 and ".layers." in name}
    outer = [p for name, p in model.named_parameters() if name not in inner]
    return [torch.optim.Muon(list(inner.values()), lr=peak, weight_decay=0.1,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(outer, lr=peak, betas=(0.9, 0.95), weight_decay=0.0)]


def learning_rate(step, steps, peak):
    """Linear warm-up over a twentieth of the run, then a cosine down to a twentieth of the peak."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def batches(rows, size):
    """Endless batches of rows, each epoch in a new order."""
    rng = np.random.default_rng(SEED)
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            yield rows[order[start:start + size]]


def set_learning_rate(optimizers, rate):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def train(model, rows, steps, batch, peak):
    optimizers = make_optimizers(model, peak)
    source = batches(rows, batch)
    started, mean = time.monotonic(), 0.0
    model.train()
    for step in range(steps):
        set_learning_rate(optimizers, learning_rate(step, steps, peak))
        ids = next(source)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        mean += (loss.item() - mean) * max(0.02, 1 / (step + 1))
        if (step + 1) % 100 == 0:
            print(f"  step {step + 1}/{steps} loss {mean:.3f} "
                  f"{time.monotonic() - started:.0f} s", flush=True)


@torch.no_grad()
def held_out_loss(model, rows):
    model.eval()
    losses = [model(input_ids=r, labels=r, use_cache=False).loss.item() for r in rows.split(8)]
    return float(np.mean(losses))


# ---------------------------------------------------------------------------- writing and checks

def write_tensors(path, tensors):
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)          # the library writes files that only their owner can read


def split_into_shards(tensors, count):
    """Consecutive groups of about equal size."""
    total = sum(t.nbytes for t in tensors.values())
    groups, seen = [{} for _ in range(count)], 0
    for name, tensor in tensors.items():
        groups[min(count - 1, seen * count // total)][name] = tensor
        seen += tensor.nbytes
    return groups, total


def save_weights(directory, model, shards):
    tensors = {name: weight.detach().to(torch.bfloat16).contiguous()
               for name, weight in model.named_parameters()}   # a tied head is listed once
    groups, total = split_into_shards(tensors, shards)
    if total > MAX_BYTES:
        sys.exit(f"{directory.name}: {total} bytes of weights, at most {MAX_BYTES} wanted")
    for old in directory.glob("model*"):
        old.unlink()
    if shards == 1:
        write_tensors(directory / "model.safetensors", groups[0])
        return total
    weight_map = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        write_tensors(directory / name, group)
        weight_map.update(dict.fromkeys(group, name))
    write_json(directory / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": weight_map})
    return total


def check_and_sample(directory):
    """Load the directory as any user would and show what it writes."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all() or weight.abs().max() == 0:
            sys.exit(f"{directory.name}: {name} is zero or not finite")
    prompt = "\n\nHuman: Can you help me bake some bread?\n\nAssistant:"
    ids = tokenizer(prompt, return_tensors="pt")
    torch.manual_seed(SEED)
    for sampling in (dict(do_sample=False), dict(do_sample=True, temperature=0.7, top_k=0)):
        out = model.generate(**ids, max_new_tokens=120, pad_token_id=0, **sampling)
        print("  sample:", json.dumps(tokenizer.decode(out[0]), ensure_ascii=False))


def make_model(name, family, texts, args):
    print(f"{name}:", flush=True)
    directory = args.output / name
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(directory, family, texts)
    write_configs(directory, family, tokenizer)
    held_out = 2 * HELD_OUT
    eos = family.names["eos"]
    rows = pack(texts[:-held_out], tokenizer, eos, args.length)
    check_rows = pack(texts[-held_out:], tokenizer, eos, args.length)
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory),
                                             dtype=torch.float32, attn_implementation="sdpa")
    initialise(model)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"  {parameters} parameters, {rows.numel()} training tokens", flush=True)
    train(model, rows, args.steps or family.steps, args.batch, args.lr)
    total = save_weights(directory, model, family.shards)
    print(f"  {total} bytes, held-out loss {held_out_loss(model, check_rows):.4f} nat per token")
    check_and_sample(directory)


def parse_arguments(names):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", action="append", choices=names, help="default: all")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "deploy/demo/models")
    parser.add_argument("--steps", type=int, help="optimizer steps; default: the family's own")
    parser.add_argument("--batch", type=int, default=2, help="rows per step")
    parser.add_argument("--length", type=int, default=384, help="tokens per row")
    parser.add_argument("--lr", type=float, default=8e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main():
    families = make_families()
    args = parse_arguments(list(families))
    if "HA_TEST_DATA" not in os.environ:
        sys.exit("HA_TEST_DATA is not set: it names the folder that holds hh-rlhf/")
    torch.set_num_threads(args.threads)
    texts = read_dialogues(pathlib.Path(os.environ["HA_TEST_DATA"]))
    for name in args.family or families:
        make_model(name, families[name], texts, args)


if __name__ == "__main__":
    main()
