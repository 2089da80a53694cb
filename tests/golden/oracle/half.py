"""bf16: log-probs and three steps of DPO by several kernels of the oracle, and how far they are from
each other: what an engine that computes in bf16 may differ by."""

import tempfile

import numpy
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig

from . import cases, dpo, files
from .forward import target_logps
from .models import load_model, load_tokenizer, precision

KERNELS = ["eager", "sdpa"]


def load_half(model_dir, kernel):
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16,
                                                attn_implementation=kernel).eval()


# ---------------------------------------------------------------------------- log-probs

@torch.no_grad()
def alone(model, sequences):
    """Of every sequence by itself: log-probs of its tokens after the first."""
    with precision(model.dtype):
        return [target_logps(widened(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]),
                             ids) for ids in sequences]


@torch.no_grad()
def padded(model, sequences):
    """The same in one batch, filled up on the right."""
    width = max(map(len, sequences))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in sequences])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sequences])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return [target_logps(widened(row[:len(own)]), own)
            for row, own in zip(logits, sequences, strict=True)]


def widened(logits):
    return logits.float() if logits.dtype == torch.bfloat16 else logits


def describe_logps(model_dir, pairs):
    """Exact log-probs of the completion tokens, and the largest errors of the bf16 kernels."""
    sides = [(pair["prompt_ids"], pair[f"{side}_ids"]) for pair in pairs
             for side in ("chosen", "rejected")]
    sequences = [prompt + answer for prompt, answer in sides]

    def scored(rows):
        return [row[len(prompt) - 1:] for row, (prompt, _) in zip(rows, sides, strict=True)]
    exact = scored(alone(load_model(model_dir, torch.float64), sequences))
    errors = []
    for kernel in KERNELS:
        model = load_half(model_dir, kernel)
        errors += [torch.cat([got.double() - want for got, want in zip(scored(rows), exact, strict=True)])
                   for rows in (alone(model, sequences), padded(model, sequences))]
    return {"exact": [[round(value, 6) for value in row.tolist()] for row in exact],
            "kernels": [f"{kernel}, {how}" for kernel in KERNELS for how in ("alone", "padded")],
            "rms": [error.square().mean().sqrt().item() for error in errors],
            "largest": [error.abs().max().item() for error in errors]}


# ---------------------------------------------------------------------------- training

def train(model_dir, family, kernel, out_dir):
    """Three steps with the base in bf16, the adapter in fp32 and autocast, as TRL trains in bf16."""
    rows = Dataset.from_list([{key: pair[key] for key in ("chosen", "rejected")}
                              for pair in cases.PAIRS])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = dpo.PlainTrainer(
            model=load_half(model_dir, kernel),
            args=DPOConfig(output_dir=scratch, use_cpu=True, report_to="none", save_strategy="no",
                           disable_tqdm=True, dataloader_pin_memory=False,
                           **{**dpo.SETTINGS, "bf16": True}),
            train_dataset=rows, processing_class=load_tokenizer(model_dir),
            peft_config=dpo.lora_config(load_half(model_dir, kernel), family))
        dpo.load_adapter(trainer, out_dir / "adapter-zero")
        trainer.train()
        return dpo.training_log(trainer)


def describe_steps(model_dir, family, steps, out_dir):
    logs = [train(model_dir, family, kernel, out_dir) for kernel in KERNELS]
    return [{"log_fp64": step["log_fp64"],
             "gap": {key: max(abs(log[index][key] - exact) for log in logs)
                     for key, exact in step["log_fp64"].items()}}
            for index, step in enumerate(steps)]


def file_order(count):
    """Pair i stands in row order.index(i) of a file whose shuffled rows are the pairs in order."""
    permutation = numpy.random.default_rng(dpo.SEED).permutation(count).tolist()
    return [permutation.index(row) for row in range(count)]


def make(model_dir, family, golden, out_dir):
    """bf16.json; golden is what dpo.json says."""
    files.write_json(out_dir / "bf16.json", {
        "file_order": file_order(len(golden["pairs"])),
        "logps": describe_logps(model_dir, golden["pairs"]),
        "steps": describe_steps(model_dir, family, golden["steps"], out_dir)})
