#!/usr/bin/env python3
"""The golden files in bf16: log-probs and three training steps of the demo models on a device.

    golden_bf16.py --program ha-attempt --models deploy/demo/models --golden tests/golden

bf16.json holds what the oracle computes in fp64, and by how much its own kernels in bf16 (eager and
fused attention, each sequence alone and in a padded batch) are off. A figure of ours may be off by
twice the largest of these: four kernels are a small sample of the roundings that are as good.
Margins before the first step have no limit but 0. Needs nothing but Python.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

FAMILIES = ["llama-2-demo", "llama-3.1-demo", "qwen2.5-demo", "qwen3-demo"]
FACTOR = 2
KEYS = ["loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen",
        "logps/rejected"]
# Of a figure that all kernels of the oracle happen to hit: a rounding of bf16 of its size.
LEAST = 2.0 ** -9


class Golden:
    def __init__(self, args, family, scratch):
        self.args, self.model, self.scratch = args, args.models / family, scratch
        self.folder = args.golden / family
        self.dpo = json.loads((self.folder / "dpo.json").read_text())
        self.half = json.loads((self.folder / "bf16.json").read_text())
        self.data = scratch / f"{family}.jsonl"
        pairs = [self.dpo["pairs"][i] for i in self.half["file_order"]]
        self.data.write_text("".join(json.dumps(
            {side: pair[f"{side}_text"] for side in ("chosen", "rejected")}) + "\n" for pair in pairs))

    def attempt(self, command, *more):
        done = subprocess.run(
            [self.args.program, command, "--model", self.model, "--data", self.data, "--backend",
             self.args.backend, *map(str, more)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"ha-attempt {command}: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout

    def logps(self):
        """(what, error, limit) of the log-probs of all completion tokens."""
        lines = {line["row"]: line for line in
                 map(json.loads, self.attempt("score", "--per-token").splitlines())}
        errors = []
        for row, pair in enumerate(self.half["file_order"]):
            for index, side in enumerate(("chosen", "rejected")):
                exact = self.half["logps"]["exact"][2 * pair + index]
                got = lines[row][f"{side}_logps"]
                if len(got) != len(exact):
                    sys.exit(f"{self.model.name}: {len(got)} tokens, not {len(exact)}")
                errors += [a - b for a, b in zip(got, exact)]
        rms = math.sqrt(sum(error * error for error in errors) / len(errors))
        limits = self.half["logps"]
        yield "log-probs, rms", rms, FACTOR * max(limits["rms"])
        yield "log-probs, largest", max(map(abs, errors)), FACTOR * max(limits["largest"])

    def steps(self):
        settings = self.dpo["settings"]
        metrics = self.scratch / "metrics"
        values = {"train.learning_rate": settings["learning_rate"],
                  "train.weight_decay": settings["weight_decay"], "train.beta": settings["beta"],
                  "train.batch_size": settings["per_device_train_batch_size"],
                  "train.gradient_accumulation": settings["gradient_accumulation_steps"],
                  "train.lora_rank": settings["lora_r"], "train.lora_alpha": settings["lora_alpha"],
                  "data.seed": settings["seed"], "train.precision": "bf16"}
        self.attempt("train", "--strategy", settings["block"], "--out", self.scratch / "out",
                     "--init-adapter", self.folder / "adapter-zero", "--metrics", metrics,
                     *(word for key, value in values.items() for word in ("--set", f"{key}={value}")))
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        if len(lines) != len(self.half["steps"]):
            sys.exit(f"{self.model.name}: {len(lines)} steps, not {len(self.half['steps'])}")
        for line, step in zip(lines, self.half["steps"]):
            for key in KEYS:
                exact = step["log_fp64"][key]
                least = LEAST * abs(step["log_fp64"]["logps/chosen"] if "rewards" in key else exact)
                if "rewards" in key:
                    least *= settings["beta"]
                limit = 0 if line["step"] == 1 and "rewards" in key else \
                    FACTOR * max(step["gap"][key], least)
                yield f"step {line['step']}, {key}", abs(line[key] - exact), limit


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=pathlib.Path, required=True, help="ha-attempt")
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--family", action="append", choices=FAMILIES)
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for family in args.family or FAMILIES:
            golden = Golden(args, family, pathlib.Path(scratch))
            worst = ("", 0.0)
            for what, error, limit in [*golden.logps(), *golden.steps()]:
                if not error <= limit:
                    print(f"not ok {family}: {what}: off by {error:.3g}, the limit is {limit:.3g}")
                    failed += 1
                worst = max(worst, (what, error / limit if limit else 0.0), key=lambda pair: pair[1])
            print(f"{family}: at most {100 * worst[1]:.0f} % of a limit ({worst[0]})", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
