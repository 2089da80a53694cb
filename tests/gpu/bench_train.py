"""Training for bench_models.py: the four strategies in lock-step and each alone, then TRL.

TRL's cost is the same for every strategy, because gradients go through all layers to the embedding
whatever LoRA covers; `full` is measured and counts for each of the four. Where TRL cannot be
imported, dpo_plain.py does what it does.
"""

import dataclasses
import json
import subprocess

from jobs import blocks, run_job

TRAIN = {"learning_rate": 1e-5, "beta": 0.1, "weight_decay": 0.01, "batch_size": 6,
         "gradient_accumulation": 4, "epochs": 1, "lora_rank": 16, "lora_alpha": 32,
         "max_length": 2048, "init_seed": 42}
WINDOW, SEED, MODULES = 24, 42, ["q_proj", "k_proj", "v_proj", "o_proj"]
# Of the mean loss of a step: other adapters at the start, other rounding.
LOSS_LIMITS = {"fp32": 1e-3, "bf16": 2e-2}


@dataclasses.dataclass
class Steps:
    """Seconds and tokens of every optimizer step."""

    seconds: list
    tokens: list

    def rate(self):
        """Tokens a second without the first step."""
        from_step = 1 if len(self.seconds) > 1 else 0
        return sum(self.tokens[from_step:]) / sum(self.seconds[from_step:])

    def warm(self):
        """Share of the time that the steps would take without the first one's warm-up."""
        return sum(self.tokens) / self.rate() / sum(self.seconds)


def tokens_of_steps(lines):
    """From the running count that a cell's metrics have."""
    counts = [line["values"]["num_tokens"] for line in lines
              if line["cell"] == 1 and "num_tokens" in line["values"]]
    return [after - before for before, after in zip([0, *counts], counts)]


class Training:
    def __init__(self, bench, model):
        self.bench, self.model = bench, model
        self.layers = {name: list(layers)
                       for name, layers in blocks(model.config["num_hidden_layers"]).items() if layers}
        self.pairs = bench.scratch / f"{model.name}.pairs.jsonl"
        self.lengths = model.lengths[:WINDOW * bench.args.steps]
        model.writer.pairs(self.pairs, self.lengths)
        self.job = bench.scratch / f"{model.name}.train"
        self.rate = self.losses = None

    def adapters(self):
        """{strategy: PEFT folder} of the last training."""
        return {name: self.job / "out" / str(index + 1) / "adapter"
                for index, name in enumerate(self.layers)}

    # ---- ours ----

    def run(self):
        args = self.bench.args
        return run_job(args.program, self.job, {
            "kind": "train", "threads": args.threads, "backend": args.backend,
            "choices": str(self.bench.choices),
            "model": {"name": self.model.name, "path": str(self.model.folder), "template": "hh"},
            "data": {"train": [str(self.pairs)], "eval": []},
            "settings": {"data": {"seed": SEED, "train_samples": len(self.lengths)},
                         "train": {**TRAIN, "precision": self.bench.precision}},
            "time_alone_steps": args.alone_steps,
            "cells": [{"id": index + 1, "name": name, "layers": layers, "adapter": None,
                       "checkpoint": None} for index, (name, layers) in enumerate(self.layers.items())]},
            limit=max(self.bench.left(), 1))

    def ours(self):
        done = self.run()
        if done is None:
            raise subprocess.TimeoutExpired("ha-attempt", 0)
        times = [when for when, line in zip(done.times, done.lines)
                 if line["type"] == "progress" and "step" in line]
        tokens = tokens_of_steps(done.of("metric"))
        times = times[:len(tokens) + 1]      # then come those of measuring alone
        steps = Steps([b - a for a, b in zip(times, times[1:])], tokens)
        cells = {name: line["summary"] for name, line in zip(self.layers, done.of("cell"))}
        if len(cells) != len(self.layers):
            raise SystemExit(f"{self.model.name}: a strategy did not end well; see {self.job}/log")
        self.losses = [line["values"]["loss"] for line in done.of("metric")
                       if line["cell"] == len(self.layers) and "loss" in line["values"]]
        self.report(steps, cells)

    def report(self, steps, cells):
        record, name, mean = self.bench.record, self.model.name, self.model.mean_tokens
        one = next(iter(cells.values()))
        self.rate = steps.rate() / mean
        flops = sum(cell["flops"] for cell in cells.values())
        seconds = sum(cell["seconds"] for cell in cells.values()) * steps.warm()
        self.record_loading(one)
        record(name, "lock-step, four strategies and reference", self.rate, "pairs/s",
               use(flops / seconds, one["peak_flops_per_second"]))
        for strategy, cell in cells.items():
            own = cell["train_seconds_own"] * steps.warm()
            record(name, f"lock-step, {strategy}", sum(steps.tokens) / own / mean, "pairs/s",
                   "of its own time")
        plan = self.plan()
        for strategy, cell in cells.items():
            self.record_alone(strategy, cell, plan["strategies"][strategy], steps, one)
        record(name, "memory, planned", one["memory_planned"] / 1e9, "GB",
               f"{one['layers_run_again']} layers run again")
        record(name, "memory, measured", one["memory_peak"] / 1e9, "GB",
               f"{100 * (one['memory_peak'] / one['memory_planned'] - 1):+.1f} % of the plan")

    def record_loading(self, cell):
        self.bench.record(self.model.name, "loading, tokenisation and the peak's measure",
                          cell["load_seconds"], "s",
                          f"{self.model.bytes / cell['load_seconds'] / 1e9:.2f} GB/s of weights")

    def record_alone(self, strategy, cell, plan, steps, one):
        if "seconds_alone_per_step" not in cell:
            return
        count, total = self.bench.args.alone_steps, len(steps.tokens)
        tokens = sum(steps.tokens[i * total // count] for i in range(count)) / count
        pairs = tokens / cell["seconds_alone_per_step"] / self.model.mean_tokens
        # FLOPs by the plan's arithmetic, scaled to what was counted in lock-step.
        alone = sum(plan[f"{part}_flops_per_pair"] for part in ("forward", "backward", "recompute"))
        shared = plan["lockstep_flops_per_pair"] + plan["reference_flops_per_pair"] / len(self.layers)
        flops = cell["flops"] / cell["pairs_trained"] * alone / shared
        flops *= self.model.mean_tokens / (sum(steps.tokens) / cell["pairs_trained"])
        self.bench.record(self.model.name, f"alone with known references, {strategy}", pairs,
                          "pairs/s", use(pairs * flops, one["peak_flops_per_second"]))

    def plan(self):
        out = subprocess.run([self.bench.args.program, "plan", "--model", self.model.folder, "--json"],
                             check=True, capture_output=True, text=True).stdout
        return json.loads(out)

    # ---- the others ----

    def others(self):
        found = self.bench.peers
        if not (found["transformers"] and found["peft"]):
            missing = "PyTorch" if not found["torch"] else "PEFT"
            self.bench.record(self.model.name, "training by others", "not measured", "",
                              f"no {missing} here")
            return
        start, form = self.start_adapter(), [("paper", "the paper's settings", self.pairs),
                                             ("tuned", "tuned", self.sorted_pairs())]
        for name, label, data in form:
            if not (found["trl"] and self.compare("dpo_trl.py", f"TRL, {label}", start, name, data)):
                self.compare("dpo_plain.py", f"Transformers + PEFT, {label}", start, name, data)

    def start_adapter(self):
        """The adapter that ours starts from; on a GPU, where a model takes long to load, its form
        alone, and PEFT draws the values."""
        folder = self.bench.scratch / f"{self.model.name}.start"
        if self.bench.args.device == "cpu":
            subprocess.run(
                [self.bench.args.program, "train", "--model", self.model.folder, "--strategy", "full",
                 "--backend", "cpu", "--data", self.pairs, "--out", folder, "--set",
                 "train.learning_rate=0", "--set", "data.train_samples=1", "--set",
                 "train.init_seed=42"], check=True, capture_output=True)
        else:
            folder.mkdir(exist_ok=True)
            (folder / "adapter_config.json").write_text(json.dumps({
                "r": TRAIN["lora_rank"], "lora_alpha": TRAIN["lora_alpha"],
                "target_modules": MODULES, "layers_to_transform": self.layers["full"]}))
        return folder

    def sorted_pairs(self):
        """As many micro-batches as ours had, evenly spaced over all pairs sorted by length."""
        order = sorted(self.model.lengths, key=lambda pair: pair[0] + max(pair[1:]))
        micro, count = TRAIN["batch_size"], len(self.lengths) // TRAIN["batch_size"]
        starts = [i * (len(order) - micro) // max(count - 1, 1) for i in range(count)]
        path = self.bench.scratch / f"{self.model.name}.sorted.jsonl"
        self.model.writer.pairs(path, [pair for start in starts for pair in order[start:start + micro]])
        return path

    def compare(self, script, label, start, form, data):
        """False where the other side's script failed."""
        args = self.bench.args
        common = ["--model", self.model.folder, "--data", data, "--adapter", start, "--form", form,
                  "--dtype", self.bench.precision, "--weights", self.bench.precision,
                  "--device", args.device, *self.bench.threads]
        said = self.bench.peer(script, *common)
        note = ""
        if said is None and form == "tuned":
            said, note = self.bench.peer(script, *common, "--checkpointing"), "with checkpointing"
        if said is None:
            self.bench.record(self.model.name, label, "not measured", "", "it failed")
            return False
        said = said[-1]
        steps = Steps(*map(list, zip(*said["steps"])))
        rate = steps.rate() / self.model.mean_tokens
        # The cached references are a pass over the same pairs.
        share = said["reference_wall"] / (sum(steps.seconds) * steps.warm() or 1)
        rate /= 1 + share / len(self.layers)
        self.bench.record(self.model.name, f"{label}, one strategy", rate, "pairs/s",
                          " ".join([*map(" ".join, said["versions"].items()), note]).strip())
        self.bench.record(self.model.name, f"{label}, memory", said["memory_peak"] / 1e9, "GB")
        if form == "paper":
            self.check_losses(said["losses"])
        if self.rate:
            self.bench.record(self.model.name, f"train-{form} ratio", self.rate * len(self.layers) / rate,
                              "", f"four strategies against {label}")
        return True

    def check_losses(self, theirs):
        """Both sides did the same training, or the comparison means nothing."""
        if self.losses is None:
            return
        gap = max((abs(a - b) for a, b in zip(self.losses, theirs, strict=True)), default=0.0)
        limit = LOSS_LIMITS[self.bench.precision]
        self.bench.say(f"losses of {len(theirs)} steps agree to {gap:.1e} (limit {limit:g})")
        if not gap < limit:
            raise SystemExit(f"{self.model.name}: the two sides did not train alike")


def use(flops_per_second, peak):
    share = f", {100 * flops_per_second / peak:.0f} % of the peak measured" if peak > 0 else ""
    return f"{flops_per_second / 1e12:.3g} TFLOP/s{share}"
