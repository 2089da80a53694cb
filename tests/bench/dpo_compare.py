"""DPO on the CPU by ha-attempt and by TRL + PEFT, both in one run.

Both sides: one model in the same dtype, the same pairs in the same order, the same initial adapter,
batches of 6 x 4, the loss logged at every step, the same number of threads. Loading and tokenisation
are not counted. Every strategy is a training of its own for TRL; ours trains them in one job.

TRL's rows: the paper's settings in fp32 and in bf16 (gradient checkpointing, as TRL does by default),
and tuned: length-sorted batches, cached references, no checkpointing, the faster dtype. The ratio is
against the faster of the first two. TRL may be given fewer pairs, evenly taken by length from all;
ours then trains on those too, and the ratios are of the same pairs. Beside the wall clock stands
processor time, which other work on the machine disturbs less; the ratio is of that where
--by processor is given.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from jobs import blocks, run_job
from small_model import longest, make_model, make_tokenizer, read_pairs

HERE = pathlib.Path(__file__).resolve().parent
LOSS_LIMIT = 1e-3      # of the mean loss of a step, fp32 against fp32
SETTINGS = {"train": {"learning_rate": 1e-5, "beta": 0.1, "weight_decay": 0.01, "batch_size": 6,
                      "gradient_accumulation": 4, "epochs": 1, "lora_rank": 16, "lora_alpha": 32,
                      "max_length": 2048, "init_seed": 42, "precision": "fp32"},
            "data": {"seed": 42}}


@dataclasses.dataclass
class Result:
    """Pairs, seconds, the loss of every step per strategy, and the operations counted (ours)."""

    pairs: int
    wall: float
    processor: float
    losses: dict
    flops: float = 0.0

    def seconds(self, by):
        return self.wall if by == "wall" else self.processor

    def rate(self, by):
        return self.pairs / self.seconds(by)


class Bench:
    def __init__(self, args, scratch):
        self.args, self.scratch = args, pathlib.Path(scratch)
        self.model = self.scratch / "model"
        pairs = read_pairs(args.data)
        tokenizer = make_tokenizer(pairs)
        model = make_model(tokenizer)
        model.save_pretrained(self.model)
        tokenizer.save_pretrained(self.model)
        self.same = args.data
        if args.peer_pairs < args.pairs:
            self.same = self.scratch / "sample.jsonl"
            write_sample(pairs, args.pairs, args.peer_pairs, tokenizer, self.same)
        self.layers = blocks(model.config.num_hidden_layers)
        matrices = sum(weight.numel() for name, weight in model.named_parameters()
                       if weight.ndim == 2 and "embed" not in name)
        head = model.lm_head.weight.numel()
        print(f"model: {sum(w.numel() for w in model.parameters()) / 1e6:.1f}M parameters, vocabulary "
              f"{model.config.vocab_size}, head {100 * head / matrices:.0f} % of the matrices; "
              f"{args.pairs} pairs of {args.data.name}; {args.threads} threads", flush=True)

    # ---- ours ----

    def initial_adapter(self, strategy):
        """What our training starts from: A as drawn, B = 0, written by a step at rate 0."""
        out = self.scratch / f"start-{strategy}"
        layers = self.layers[strategy]
        subprocess.run(
            [self.args.program, "train", "--model", self.model, "--strategy",
             f"{layers[0]}-{layers[-1]}", "--data", self.args.data, "--out", out,
             "--set", "train.learning_rate=0", "--set", "data.train_samples=1",
             "--set", "train.init_seed=42"], check=True, capture_output=True)
        return out

    def ours(self, strategies, name, data, pairs):
        """A job from the end of loading on."""
        settings = {"data": {**SETTINGS["data"], "train_samples": pairs},
                    "train": SETTINGS["train"]}
        done = run_job(self.args.program, self.scratch / name, {
            "kind": "train", "model": {"name": "bench", "path": str(self.model), "template": "hh"},
            "data": {"train": [str(data)], "eval": []}, "settings": settings,
            "threads": self.args.threads, "backend": "cpu",
            "cells": [{"id": index + 1, "name": strategy, "layers": list(self.layers[strategy]),
                       "adapter": None, "checkpoint": None}
                      for index, strategy in enumerate(strategies)]})
        losses = {}
        for line in done.of("metric"):
            if "loss" in line["values"]:
                losses.setdefault(strategies[line["cell"] - 1], []).append(line["values"]["loss"])
        flops = sum(line["summary"]["flops"] for line in done.of("cell"))
        return Result(pairs * len(strategies), done.wall, done.processor, losses, flops)

    # ---- TRL ----

    def trl(self, strategies, form, dtype):
        """Seconds of one training after the other; the cached references count once."""
        wall = processor = 0.0
        losses = {}
        for index, strategy in enumerate(strategies):
            out = subprocess.run(
                [sys.executable, HERE / "dpo_trl.py", "--model", self.model, "--data",
                 self.same, "--pairs", str(self.args.peer_pairs), "--adapter",
                 self.initial_adapter(strategy), "--form", form, "--dtype", dtype, "--threads",
                 str(self.args.threads)], check=True, capture_output=True, text=True).stdout
            said = json.loads(out.splitlines()[-1])
            wall += said["wall"] + (said["reference_wall"] if index == 0 else 0)
            processor += said["processor"] + (said["reference_processor"] if index == 0 else 0)
            losses[strategy] = said["losses"]
        return Result(self.args.peer_pairs * len(strategies), wall, processor, losses)


def write_sample(pairs, n_all, n_sample, tokenizer, path):
    """n_sample of the n_all pairs that data.seed draws: one of each stretch of their order by length."""
    drawn = [pairs[i] for i in np.random.default_rng(SETTINGS["data"]["seed"])
             .permutation(len(pairs))[:n_all]]
    drawn.sort(key=lambda pair: longest(pair, tokenizer))
    sample = [drawn[(2 * i + 1) * n_all // (2 * n_sample)] for i in range(n_sample)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in sample))
    means = [sum(longest(pair, tokenizer) for pair in some) / len(some) for some in (drawn, sample)]
    print(f"{n_sample} pairs with longer sides of {means[1]:.0f} tokens on average stand for "
          f"{n_all} of {means[0]:.0f}", flush=True)


def check_losses(mine, theirs):
    """Both sides did the same training, or the comparison means nothing."""
    for strategy, losses in theirs.items():
        if len(mine[strategy]) != len(losses):
            sys.exit(f"{strategy}: {len(mine[strategy])} steps, TRL made {len(losses)}")
        gap = max(abs(a - b) for a, b in zip(mine[strategy], losses, strict=True))
        print(f"  {strategy}: losses of {len(losses)} steps agree to {gap:.1e}", flush=True)
        if not gap < LOSS_LIMIT:
            sys.exit(f"{strategy}: the two sides did not train alike")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--program", type=pathlib.Path, required=True, help="ha-attempt")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="hh-rlhf JSON Lines")
    parser.add_argument("--strategies", required=True, help="full, or local,mid,global,full")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--peer-pairs", type=int, help="those of TRL, even by length; all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--by", choices=["wall", "processor"], default="wall")
    args = parser.parse_args()
    args.program, args.data = args.program.resolve(), args.data.resolve()
    args.peer_pairs = args.peer_pairs or args.pairs
    strategies = args.strategies.split(",")
    with tempfile.TemporaryDirectory(prefix="ha-bench-") as scratch:
        bench = Bench(args, scratch)
        print(f"{'':34} {'pairs':>6} {'wall s':>9} {'proc. s':>9} {'pairs/s':>9} {'times ours':>11}")
        kind = f"ours, {len(strategies)} in one job, fp32" if len(strategies) > 1 else "ours, fp32"

        def row(label, result):
            print(f"{label:34} {result.pairs:6} {result.wall:9.1f} {result.processor:9.1f} "
                  f"{result.rate(args.by):9.2f} {times(result):11.2f}", flush=True)
            return result

        def times(result):
            return ours.rate(args.by) / result.rate(args.by)

        ours = bench.ours(strategies, "ours", bench.same, args.peer_pairs)
        if args.peer_pairs < args.pairs:
            row("all pairs: " + kind, bench.ours(strategies, "all", args.data, args.pairs))
        row(kind, ours)
        paper = {dtype: row(f"TRL, the paper's settings, {dtype}",
                            bench.trl(strategies, "paper", dtype)) for dtype in ("fp32", "bf16")}
        best = max(paper, key=lambda dtype: paper[dtype].rate(args.by))
        tuned = row(f"TRL tuned, {best}", bench.trl(strategies, "tuned", best))
        check_losses(ours.losses, paper["fp32"].losses)
    print(f"against TRL tuned: {times(tuned):.2f}")
    print(f"{args.name} ratio {times(paper[best]):.2f}")


if __name__ == "__main__":
    main()
