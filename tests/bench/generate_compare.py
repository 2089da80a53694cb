"""Answers of five variants of a model by ha-attempt and by Transformers + PEFT, both in one run.

Both sides: one model in fp32, the same prompts and adapters, greedy, the same number of new tokens
for every prompt (ends are ignored), the same number of threads. Loading and tokenisation are not
counted; ours includes writing the texts. Ours answers for all variants in one queue, and once more
for one variant after the other. Transformers answers variant by variant, in the fastest of several
batch sizes, with prompts sorted by length. Beside the wall clock stands processor time, which other
work on the machine disturbs less; the ratio is of that where --by processor is given.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model

from jobs import blocks, run_job
from small_model import make_model, make_tokenizer, read_pairs

HERE = pathlib.Path(__file__).resolve().parent
TURN = "\n\nAssistant:"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
VARIANTS = ["base", "local", "mid", "global", "full"]
BATCHES = [8, 32, 128]
SEED = 20261
AGREE = 0.9            # of all new tokens; greedy answers part where two logits nearly tie


class Bench:
    def __init__(self, args, scratch):
        self.args, self.scratch = args, pathlib.Path(scratch)
        self.model, self.adapters = self.scratch / "model", self.scratch / "adapters"
        pairs = read_pairs(args.data)
        self.tokenizer = make_tokenizer(pairs)
        model = make_model(self.tokenizer)
        model.save_pretrained(self.model)
        self.tokenizer.save_pretrained(self.model)
        self.write_adapters(model)
        self.prompts = self.write_prompts(pairs)
        matrices = sum(weight.numel() for name, weight in model.named_parameters()
                       if weight.ndim == 2 and "embed" not in name and "lora" not in name)
        head = model.lm_head.weight.numel()
        lengths = [len(self.tokenizer(prompt)["input_ids"]) for prompt in self.prompts]
        print(f"model: {matrices / 1e6 + head / 1e6:.1f}M parameters, vocabulary "
              f"{model.config.vocab_size}, head {100 * head / matrices:.0f} % of the matrices; "
              f"{len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens, mean "
              f"{sum(lengths) / len(lengths):.0f}; {len(VARIANTS)} variants, "
              f"{args.new_tokens} new tokens; {args.threads} threads", flush=True)

    @torch.no_grad()
    def write_adapters(self, model):
        """Adapters of rank 16 on q, k, v and o with random A and B, as PEFT writes them."""
        torch.manual_seed(SEED)
        for name, layers in blocks(model.config.num_hidden_layers).items():
            adapted = get_peft_model(model, LoraConfig(
                r=16, lora_alpha=32, bias="none", task_type="CAUSAL_LM", target_modules=MODULES,
                layers_to_transform=list(layers)))
            for key, weight in adapted.named_parameters():
                if "lora_B" in key:
                    weight.normal_(0.0, 0.02)
            adapted.save_pretrained(self.adapters / name)
            model = adapted.unload()

    def write_prompts(self, pairs):
        prompts = []
        for pair in pairs:
            end = pair["chosen"].rfind(TURN)
            if end >= 0 and len(prompts) < self.args.prompts:
                prompts.append(pair["chosen"][:end + len(TURN)])
        (self.scratch / "prompts.jsonl").write_text(
            "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        return prompts

    # ---- ours ----

    def ours(self, variants):
        """Wall and processor seconds from the end of loading, summaries and texts per variant."""
        tokens = self.args.new_tokens
        done = run_job(self.args.program, tempfile.mkdtemp(dir=self.scratch), {
            "kind": "generate",
            "model": {"name": "bench", "path": str(self.model), "template": "hh"},
            "data": {"train": [], "eval": [str(self.scratch / "prompts.jsonl")]},
            "settings": {"data": {"eval_samples": len(self.prompts)},
                         "train": {"precision": "fp32"},
                         "generate": {"temperature": 0, "max_new_tokens": tokens,
                                      "min_new_tokens": tokens}},
            "threads": self.args.threads, "backend": "cpu",
            "cells": [{"id": index + 1, "name": variant, "layers": [],
                       "adapter": None if variant == "base" else str(self.adapters / variant)}
                      for index, variant in enumerate(variants)]})
        return done.wall, done.processor, self.read(done.lines, variants)

    def read(self, lines, variants):
        texts, summaries = {variant: {} for variant in variants}, []
        for line in lines:
            if line["type"] == "answer":
                if line["tokens"] != self.args.new_tokens:
                    sys.exit(f"ours: an answer of {line['tokens']} tokens")
                texts[variants[line["cell"] - 1]][line["prompt_text"]] = line["raw"]
            elif line["type"] == "cell":
                if not line["done"]:
                    sys.exit(f"ours: {line['reason']}")
                summaries.append(line["summary"])
        for variant in variants:
            if len(texts[variant]) != len(set(self.prompts)):
                sys.exit(f"ours: {len(texts[variant])} answers of {variant}")
        return {"texts": texts, "summaries": summaries}

    # ---- Transformers ----

    def theirs(self, sizes, *more):
        out = subprocess.run(
            [sys.executable, HERE / "generate_hf.py", "--model", self.model, "--adapters",
             self.adapters, "--variants", ",".join(VARIANTS), "--prompts",
             self.scratch / "prompts.jsonl", "--new-tokens", str(self.args.new_tokens),
             "--threads", str(self.args.threads), *more,
             *(word for size in sizes for word in ("--batch", str(size)))],
            check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def agreement(self, ours, answers):
        """The share of answers whose text is the same up to where they part."""
        same = total = 0
        for variant, rows in answers.items():
            for prompt, ids in zip(self.prompts, rows, strict=True):
                mine = ours["texts"][variant][prompt]
                theirs = self.tokenizer.decode(ids, skip_special_tokens=True)
                while same_length(mine, theirs) < len(theirs) and ids:
                    ids = ids[:-1]
                    theirs = self.tokenizer.decode(ids, skip_special_tokens=True)
                same, total = same + len(ids), total + self.args.new_tokens
        return same / total


def same_length(a, b):
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=pathlib.Path, required=True, help="ha-attempt")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="hh-rlhf JSON Lines")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--by", choices=["wall", "processor"], default="wall")
    args = parser.parse_args()
    args.program, args.data = args.program.resolve(), args.data.resolve()
    with tempfile.TemporaryDirectory(prefix="ha-bench-") as scratch:
        bench = Bench(args, scratch)
        total = args.prompts * args.new_tokens * len(VARIANTS)
        print(f"{'':40} {'wall s':>9} {'proc. s':>9} {'tokens/s':>9} {'times ours':>11}")
        ours = bench.ours(VARIANTS)
        at = 0 if args.by == "wall" else 1

        def row(label, result):
            print(f"{label:40} {result[0]:9.1f} {result[1]:9.1f} {total / result[at]:9.0f} "
                  f"{result[at] / ours[at]:11.2f}", flush=True)
            return result[at]
        row("ours, one queue", ours)
        alone = [bench.ours([variant]) for variant in VARIANTS]
        row("ours, one variant after the other", [sum(one[i] for one in alone) for i in (0, 1)])
        if any(one[2]["texts"][variant] != ours[2]["texts"][variant]
               for one, variant in zip(alone, VARIANTS, strict=True)):
            sys.exit("an answer of ours depends on what runs beside it")
        peers = {}
        for size in BATCHES:
            said = bench.theirs([size], "--answers")[0]
            peers[size] = row(f"Transformers + PEFT, fp32, batch {size}",
                              (said["wall"], said["processor"]))
        best = min(peers, key=peers.get)
        for label, *more in [(f"the same merged, batch {best}", "--merged"),
                             (f"the same in bf16, batch {best}", "--dtype", "bf16")]:
            other = bench.theirs([best], *more)[0]
            row(label, (other["wall"], other["processor"]))
        agree = bench.agreement(ours[2], said["answers"])
        done = sum(summary["flops"] for summary in ours[2]["summaries"])
        plain = sum(summary["flops_plain"] for summary in ours[2]["summaries"])
    print(f"FLOPs: {done / 1e12:.2f} T, the plain method's {plain / 1e12:.2f} T: "
          f"{100 * (1 - done / plain):.0f} % saved; {done / ours[at] / 1e9:.0f} GFLOP/s; "
          f"{100 * agree:.1f} % of the tokens are the peer's")
    if agree < AGREE:
        sys.exit("the two sides did not answer alike")
    print(f"generate ratio {peers[best] / ours[at]:.2f}")


if __name__ == "__main__":
    main()
