#!/usr/bin/env python3
"""Training and generation at the shapes of real models, ours beside the libraries of a user.

Every model is made on the spot with random weights (shape_model) and gets pairs of random words
with the lengths of real hh-rlhf (lengths.txt), so that nothing has to be fetched. The first model is
measured whole, with the other sides; the rest as far as --budget lets, and what had no time is
named. Needs Python alone; the other sides need PyTorch, and "not measured" is said where they cannot
be had.

Rates are pairs of mean length a second: tokens of both answers, each with its prompt, over the time,
divided by the mean of the 2,000 pairs. The first step of a side, in which it warms up, is left out.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from bench_generate import Generating
from bench_train import Training
from rows import LENGTHS, Writer, column_of, read_lengths

MODELS = ["llama-3.1-8b", "qwen3-8b", "qwen2.5-7b", "llama-2-7b"]


class Late(Exception):
    """There is no time left for this part."""


class Bench:
    """Settings, the clock, and the results so far."""

    def __init__(self, args, scratch):
        self.args, self.scratch = args, scratch
        self.end = time.monotonic() + args.budget
        self.took = {}
        self.results = []
        self.choices = scratch / "choices"      # of products, kept from job to job
        self.choices.mkdir()
        self.peers = peers(args.python)
        self.shrunk = args.shrink > 1 or args.shorten > 1 or args.layers is not None
        self.precision = "bf16" if args.backend == "cuda" else "fp32"
        self.threads = ["--threads", args.threads or os.cpu_count()]      # of PyTorch

    def left(self):
        return self.end - time.monotonic()

    def need(self, seconds):
        """Ends a part that cannot be done in time."""
        if self.left() < seconds:
            raise Late(f"{self.left():.0f} s left, {seconds:.0f} needed")

    def run_part(self, model, label, part, share):
        """A part of a model, if it can be done in the time that it took the first model, of which
        later ones take a share; how long it took is remembered."""
        try:
            if label in self.took:
                self.need(1.2 * share * self.took[label])
            begin = time.monotonic()
            done = part()
            self.took.setdefault(label, time.monotonic() - begin)
            return done
        except (Late, subprocess.TimeoutExpired) as late:
            self.record(model, label, "not measured", "", f"no time: {late}"[:90])
            return None

    def record(self, model, name, value, unit, note=""):
        self.results.append({"model": model, "name": name, "value": value, "unit": unit,
                             "note": note, "shrunk": self.shrunk})
        text = f"{value:.4g}" if isinstance(value, (int, float)) else value
        print(f"  {name:52} {text:>10} {unit:14} {note}".rstrip(), flush=True)

    def say(self, text):
        print(f"  {text}", flush=True)

    def peer(self, script, *arguments, share=0.5):
        """The JSON lines of another side's script; None where it failed, which is said. It may take
        a share of the time that is left."""
        done = subprocess.run([self.args.python, find(script), *map(str, arguments)], text=True,
                              capture_output=True, check=False, timeout=max(share * self.left(), 1))
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode == 0 and lines:
            return lines
        reason = done.stderr.strip().splitlines()
        self.say(f"{script}: {reason[-1][:160] if reason else f'exit code {done.returncode}'}")
        return None


def find(script):
    """Beside this file in a packed folder, in tests/bench of a source tree."""
    here = pathlib.Path(__file__).resolve().parent
    return next(path for path in (here / script, here.parent / "bench" / script) if path.exists())


def peers(python):
    """{library: is there}, for the Python of the other sides."""
    names = ["torch", "transformers", "peft", "trl", "vllm"]
    said = subprocess.run(
        [python, "-c", "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))",
         *names], capture_output=True, text=True, check=False).stdout.split()
    return {name: name in said for name in names}


def where_the_time_goes(bench, model):
    """bench_step's table for the step of 24 pairs and a token of all variants' answers at once."""
    args = bench.args
    if not args.steps_of:
        return
    sequences, pairs = (args.prompts, 4) if bench.shrunk else (1000, 24)
    done = subprocess.run(
        [args.steps_of, model.folder, LENGTHS, str(column_of(model.name)), str(pairs),
         str(sequences), str(max(300 // args.shorten, 1)), args.backend], capture_output=True, text=True, check=False,
        timeout=max(bench.left(), 1))
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        bench.record(model.name, "where the time goes", "not measured", "",
                     (done.stderr or done.stdout).strip().splitlines()[-1][:120])


class Model:
    """A model folder and its data."""

    def __init__(self, bench, name):
        args = bench.args
        self.name, self.folder = name, bench.scratch / name
        self.lengths = [(-(-p // args.shorten), max(c // args.shorten, 2), max(r // args.shorten, 2))
                        for p, c, r in read_lengths(name)]
        self.mean_tokens = sum(2 * p + c + r for p, c, r in self.lengths) / len(self.lengths)
        start = time.monotonic()
        said = subprocess.run(
            [args.maker, name, self.folder, "--shrink", str(args.shrink),
             *(["--layers", str(args.layers)] if args.layers else [])],
            check=True, capture_output=True, text=True).stdout.strip()
        print(f"{said}, written in {time.monotonic() - start:.1f} s", flush=True)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.bytes = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        self.writer = Writer(self.folder)

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def run_model(bench, name, first):
    """Ours first; the other sides too where there is time left."""
    model = bench.run_part(name, "model", lambda: Model(bench, name), 1)
    if not model:
        return
    try:
        training, generating = Training(bench, model), Generating(bench, model, first)
        for label, part, share in [
                ("training", training.ours, 1),
                ("where the time goes", lambda: where_the_time_goes(bench, model), 1),
                ("generation", lambda: generating.ours(training), generating.share),
                ("training by others", training.others, 1),
                ("generation by others", lambda: generating.others(training), 1)]:
            bench.run_part(name, label, part, share)
    finally:
        model.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=pathlib.Path, required=True, help="ha-attempt")
    parser.add_argument("--maker", type=pathlib.Path, required=True, help="shape_model")
    parser.add_argument("--steps-of", type=pathlib.Path, help="bench_step")
    parser.add_argument("--python", default=os.environ.get("HA_ORACLE_PYTHON", sys.executable),
                        help="of the other sides")
    parser.add_argument("--backend", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="of the other sides; the backend's")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--layers", type=int, help="the first layers alone, for a dry run")
    parser.add_argument("--shrink", type=int, default=1, help="smaller models, for a dry run")
    parser.add_argument("--shorten", type=int, default=1, help="lengths divided by it, for a dry run")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of 24 pairs")
    parser.add_argument("--alone-steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--peer-prompts", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--peer-tokens", type=int, default=64, help="new ones, of Transformers")
    parser.add_argument("--peer-batch", type=int, action="append", help="of Transformers; 64, 256")
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--budget", type=float, default=420, help="seconds")
    parser.add_argument("--scratch", type=pathlib.Path, help="folder for models of 16 GB")
    parser.add_argument("--results", type=pathlib.Path, help="gets a JSON line per figure")
    args = parser.parse_args()
    args.program, args.maker = args.program.resolve(), args.maker.resolve()
    args.device = args.device or args.backend
    args.peer_batch = args.peer_batch or [64, 256]
    with tempfile.TemporaryDirectory(prefix="ha-models-", dir=args.scratch) as scratch:
        bench = Bench(args, pathlib.Path(scratch))
        for index, name in enumerate(args.models.split(",")):
            run_model(bench, name, index == 0)
    if args.results:
        args.results.write_text("".join(json.dumps(one) + "\n" for one in bench.results))


if __name__ == "__main__":
    main()
