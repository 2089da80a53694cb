"""What the benchmarks of tests/gpu stand on: the models that shape_model writes, smaller, against
Transformers (log-probs in fp32), their published forms in config.json, and DPO as dpo_plain.py
writes it against TRL (losses of two steps)."""

import json
import subprocess
import sys

import torch

from common import ROOT, Check, Failure, load_model, load_tokenizer, logp_error, scratch_folder
from published import data_folder

sys.path.insert(0, str(ROOT / "tests" / "gpu"))

from rows import Writer, read_lengths  # noqa: E402

LIMIT = 1e-5          # of the largest logit
LOSS_LIMIT = 1e-5
SHAPES = {"llama-2-7b": "llama-2-7b-hf", "llama-3.1-8b": "llama-3.1-8b-instruct",
          "qwen2.5-7b": "qwen2.5-7b-instruct", "qwen3-8b": "qwen3-8b"}
# Keys whose value is not the shape's: tokens of its own tokenizer, names, what is not used.
OTHER = {"_name_or_path", "bos_token_id", "eos_token_id", "torch_dtype", "transformers_version",
         "pretraining_tp", "sliding_window", "max_window_layers", "head_dim", "mlp_bias",
         "attention_bias", "use_sliding_window"}


def make(check, scratch, shape, *options):
    maker = check.args.program.parent / "tests" / "gpu" / "shape_model"
    folder = scratch / " ".join([shape, *options])
    done = subprocess.run([maker, shape, folder, *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(done.stderr.strip())
    return folder


def dialogues(folder, shape, count):
    """Pairs as hh-rlhf has them: both texts with their prompt."""
    path = folder / "pairs.jsonl"
    Writer(folder).pairs(path, read_lengths(shape)[:count])
    rows = map(json.loads, path.read_text().splitlines())
    return [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in rows]


def compare(check, row, shape, scratch):
    folder = make(check, scratch, shape, "--shrink", "8", "--layers", "3")
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    pairs = dialogues(folder, shape, 2)
    row.error(logp_error(check.score(folder, pairs, scratch), model, tokenizer, pairs))
    kinds = {type(weight).__name__ for weight in model.parameters()}
    if not kinds or any(not weight.isfinite().all() for weight in model.parameters()):
        raise Failure("a weight is not finite")


def published(check, shape, name, scratch):
    """Every number that the published config.json has is the shape's; the plans are equal then."""
    folder = make(check, scratch, shape, "--no-weights")
    mine = json.loads((folder / "config.json").read_text())
    theirs = json.loads((data_folder() / "configs" / name / "config.json").read_text())
    for key, value in theirs.items():
        if key not in OTHER and mine.get(key) != value:
            raise Failure(f"{key} is {mine.get(key)}, published is {value}")
    plans = [check.attempt("plan", "--model", path, "--gpu-memory", "80GiB", "--json")
             for path in (folder, data_folder() / "configs" / name)]
    if plans[0] != plans[1]:
        raise Failure("the memory plans differ")


def trained(check, row, scratch):
    """The same pairs, order and start: the losses of both scripts."""
    folder = make(check, scratch, "llama-3.1-8b", "--shrink", "16", "--layers", "3")
    data = scratch / "train.jsonl"
    Writer(folder).pairs(data, [(p % 40 + 1, c % 20 + 2, r % 20 + 2)
                                for p, c, r in read_lengths("llama-3.1-8b")[:40]])
    start = scratch / "start"
    check.attempt("train", "--model", folder, "--strategy", "full", "--data", data, "--out", start,
                  "--set", "train.learning_rate=0", "--set", "data.train_samples=1", "--set",
                  "train.init_seed=42")
    losses = []
    for form in ("paper", "tuned"):
        for script in ("tests/gpu/dpo_plain.py", "tests/bench/dpo_trl.py"):
            out = subprocess.run(
                [sys.executable, ROOT / script, "--model", folder, "--data", data, "--adapter", start,
                 "--form", form, "--dtype", "fp32", "--threads", "1"],
                capture_output=True, text=True, check=False)
            if out.returncode != 0:
                raise Failure(f"{script}: {out.stderr.strip().splitlines()[-1]}")
            losses.append(json.loads(out.stdout.splitlines()[-1])["losses"])
        mine, theirs = losses[-2:]
        if len(mine) != len(theirs) or len(mine) != 2:
            raise Failure(f"{form}: {len(mine)} and {len(theirs)} steps")
        if mine[-1] == mine[0]:
            raise Failure("nothing was trained")
        row.error(max(abs(a - b) for a, b in zip(mine, theirs, strict=True)))


def main():
    check = Check(__doc__)
    with scratch_folder() as scratch:
        row = check.row("shapes, smaller, against Transformers", LIMIT)
        for shape in SHAPES:
            if check.wanted(shape):
                with row.case(shape):
                    compare(check, row, shape, scratch)
        row = check.row("shapes, as published")
        for shape, name in SHAPES.items():
            if data_folder() and check.wanted(f"{shape} published"):
                with row.case(shape):
                    published(check, shape, name, scratch)
        row = check.row("dpo_plain.py, losses against TRL", LOSS_LIMIT)
        if check.wanted("plain"):
            with row.case("two steps"):
                trained(check, row, scratch)
    check.finish()


if __name__ == "__main__":
    main()
