"""Generation for bench_models.py: five variants of a model in one queue, then Transformers and vLLM.

The adapters are those that bench_train.py has just trained. Ends are ignored, so that every answer
has all its tokens; then once more with stop strings that random answers meet by chance after some
hundred tokens, where work ends at different times, as it does for real prompts.
"""

import shutil
import subprocess

from jobs import run_job

STOPS = ["qu", "zy"]      # each in about one word of 225
# Of the prompts: with natural stops, and of models after the first.
FEWER = 4
# Of those prompts: among few sequences at once.
FEW_SHARE = 16


class Generating:
    def __init__(self, bench, model, first):
        self.bench, self.model = bench, model
        self.prompts = bench.scratch / f"{model.name}.prompts.jsonl"
        self.share = 1 if first else 1 / FEWER
        self.count = max(int(bench.args.prompts * self.share), 1)
        self.rate = None

    def adapters(self, training):
        found = training.adapters()
        return {name: path for name, path in found.items() if (path / "adapter_config.json").exists()}

    # ---- ours ----

    def run(self, adapters, label, generate, count=None):
        """Tokens a second of `count` prompts, what a cell's summary says, and the answers."""
        args, count = self.bench.args, count or self.count
        variants = {"base": None, **adapters}
        done = run_job(args.program, self.bench.scratch / f"{self.model.name}.generate", {
            "kind": "generate", "threads": args.threads, "backend": args.backend,
            "choices": str(self.bench.choices),
            "model": {"name": self.model.name, "path": str(self.model.folder), "template": "hh"},
            "data": {"train": [], "eval": [str(self.prompts)]},
            "settings": {"data": {"eval_samples": count},
                         "train": {"precision": self.bench.precision},
                         "generate": {"max_new_tokens": args.new_tokens, **generate}},
            "cells": [{"id": index + 1, "name": name, "layers": [],
                       "adapter": str(path) if path else None}
                      for index, (name, path) in enumerate(variants.items())]},
            limit=max(self.bench.left(), 1))
        if done is None:
            raise subprocess.TimeoutExpired("ha-attempt", 0)
        answers = done.of("answer")
        if len(answers) != len(variants) * count:
            raise SystemExit(f"{self.model.name}: {len(answers)} answers of {len(variants)} variants")
        tokens = sum(answer["tokens"] for answer in answers)
        one = done.of("cell")[0]["summary"]
        self.bench.record(self.model.name, f"generation, {label}", tokens / done.wall, "tokens/s",
                          f"{len(variants)} variants, {count} prompts, "
                          f"{tokens / len(answers):.0f} tokens each")
        return tokens / done.wall, one, {
            (answer["cell"], answer["prompt_text"]): answer["raw"] for answer in answers}

    def ours(self, training):
        adapters = self.adapters(training)
        self.model.writer.prompts(self.prompts, self.model.lengths[-self.count:])
        tokens = self.bench.args.new_tokens
        self.rate, one, _ = self.run(adapters, "ends ignored",
                                  {"temperature": 0, "min_new_tokens": tokens})
        record, name = self.bench.record, self.model.name
        record(name, "generation, memory planned", one["memory_planned"] / 1e9, "GB")
        record(name, "generation, memory measured", one["memory_peak"] / 1e9, "GB",
               f"{100 * (one['memory_peak'] / one['memory_planned'] - 1):+.1f} % of the plan")
        self.count = max(self.count // FEWER, 1)
        self.run(adapters, "natural stops", {"temperature": 1, "stop": STOPS})
        self.batches(adapters, "any batch", {"temperature": 1})
        self.batches(adapters, "batch invariant", {"temperature": 1, "batch_invariant": True})

    def batches(self, adapters, label, generate):
        """Do the answers to a few prompts change with how many others are answered at once?"""
        generate = {**generate, "min_new_tokens": self.bench.args.new_tokens}
        few = max(self.count // FEW_SHARE, 1)
        _, _, many = self.run(adapters, label, generate)
        _, _, alone = self.run(adapters, f"{label}, {few} prompts", generate, few)
        differ = sum(many[key] != text for key, text in alone.items())
        self.bench.record(self.model.name, f"generation, {label}: answers that differ", differ, "",
                          f"of {len(alone)}, between {self.count} prompts and {few}")

    # ---- the others ----

    def others(self, training):
        found = self.bench.peers
        if not (found["transformers"] and found["peft"]):
            missing = "PyTorch" if not found["torch"] else "PEFT"
            self.bench.record(self.model.name, "generation by others", "not measured", "",
                              f"no {missing} here")
            return
        adapters = self.adapters(training)
        folder = self.bench.scratch / f"{self.model.name}.adapters"
        for name, path in adapters.items():
            shutil.copytree(path, folder / name, dirs_exist_ok=True)
        prompts = self.bench.scratch / f"{self.model.name}.fewer.jsonl"
        self.model.writer.prompts(prompts, self.model.lengths[-self.bench.args.peer_prompts:])
        self.transformers(folder, prompts)
        if found["vllm"]:
            self.vllm(folder, prompts, ["base", *adapters])
        else:
            self.bench.record(self.model.name, "generation, vLLM", "not measured", "",
                              "it cannot be imported here")

    def transformers(self, folder, prompts):
        """The variant `full`; the others take as long. The fastest batch counts."""
        args, rates = self.bench.args, {}
        for size in args.peer_batch:
            self.bench.need(10)
            said = self.bench.peer(
                "generate_hf.py", "--model", self.model.folder, "--adapters", folder, "--variants",
                "full", "--prompts", prompts, "--new-tokens", args.peer_tokens, "--batch", size,
                "--dtype", self.bench.precision, "--device", args.device, *self.bench.threads)
            if said:
                rates[size] = args.peer_prompts * args.peer_tokens / said[-1]["wall"]
                self.bench.record(self.model.name, f"generation, Transformers, batch {size}",
                                  rates[size], "tokens/s",
                                  f"one variant, un-merged, {args.peer_tokens} tokens each")
        self.ratio("transformers", max(rates.values(), default=None))

    def vllm(self, folder, prompts, variants):
        args = self.bench.args
        said = self.bench.peer("generate_vllm.py", "--model", self.model.folder, "--adapters", folder,
                               "--variants", ",".join(variants), "--prompts", prompts,
                               "--new-tokens", args.new_tokens)
        if said:
            rate = said[-1]["batch"] * args.new_tokens / said[-1]["wall"]
            self.bench.record(self.model.name, "generation, vLLM", rate, "tokens/s",
                              f"{len(variants)} variants, version {said[-1]['versions']['vllm']}")
            self.ratio("vllm", rate)

    def ratio(self, name, rate):
        if self.rate and rate:
            self.bench.record(self.model.name, f"generate-{name} ratio", self.rate / rate, "")
