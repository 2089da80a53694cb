"""What the checks have in common: the program under test, results, random models, TRL's pairs."""

import argparse
import contextlib
import json
import logging
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

import datasets
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
datasets.disable_progress_bars()
logging.getLogger("trl").setLevel(logging.ERROR)      # it tells every boundary that it cuts

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))

from oracle.models import load_model, load_tokenizer  # noqa: E402, F401

MODELS = ROOT / "deploy" / "demo" / "models"
DATA = ROOT / "deploy" / "demo" / "data"
FAMILIES = ["llama-2-demo", "llama-3.1-demo", "qwen2.5-demo", "qwen3-demo"]


class Failure(Exception):
    """A case that does not agree."""


class Row:
    """One line of the table."""

    def __init__(self, check, limit=None):
        self.record = {"check": check, "passed": 0, "failed": 0, "largest": None, "limit": limit}

    def error(self, value, limit=None):
        """Note an error as a share of a limit (default: the row's) and refuse what is above it."""
        value, limit = float(value), self.record["limit"] if limit is None else limit
        self.record["largest"] = max(value, self.record["largest"] or 0.0)
        if not value <= limit:
            raise Failure(f"{value:.3g} is above {limit:.3g}")

    @contextlib.contextmanager
    def case(self, name):
        try:
            yield
            self.record["passed"] += 1
        except Exception as problem:
            self.record["failed"] += 1
            print(f"not ok {self.record['check']}: {name}: {problem}", flush=True)
            if not isinstance(problem, Failure):
                traceback.print_exc()


class Check:
    """Arguments, the program, a scratch folder, and the rows that are written in the end."""

    def __init__(self, description):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--program", type=pathlib.Path, required=True, help="ha-attempt")
        parser.add_argument("--results", type=pathlib.Path, help="gets a JSON line per row")
        parser.add_argument("--only", help="cases whose name has this in it")
        self.args = parser.parse_args()
        self.rows = []
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)

    def row(self, name, limit=None):
        self.rows.append(Row(name, limit))
        return self.rows[-1]

    def wanted(self, name):
        return not self.args.only or self.args.only in name

    def attempt(self, *arguments, text=None):
        """Standard output of a command that must succeed."""
        done = self.try_attempt(*arguments, text=text)
        if done.returncode != 0:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            raise Failure(f"ha-attempt {arguments[0]}: {said.splitlines()[-1]}")
        return done.stdout

    def try_attempt(self, *arguments, text=None):
        threads = [] if arguments[0] in ("tokenize", "rows") else ["--threads", "1"]
        return subprocess.run([self.args.program, *map(str, arguments), *threads], text=True,
                              encoding="utf-8", input=text, capture_output=True, check=False)

    def score(self, model, pairs, scratch, adapter=None):
        """Per pair the log-probs of both answers' tokens."""
        data = write_lines(scratch / "pairs.jsonl", pairs)
        more = ["--adapter", adapter] if adapter else []
        out = self.attempt("score", "--model", model, "--data", data, "--per-token", *more)
        return [json.loads(line) for line in out.split("\n") if line]

    def finish(self):
        for row in self.rows:
            print(json.dumps(row.record), flush=True)
        if self.args.results:
            write_lines(self.args.results, [row.record for row in self.rows])


@contextlib.contextmanager
def scratch_folder():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ha-oracle-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def demo_pairs(name, count, start=0):
    return read_lines(DATA / f"{name}.jsonl")[start:start + count]


# ---- pairs as TRL makes them ----

def pair_ids(tokenizer, pair):
    """Prompt ids, chosen ids, rejected ids."""
    from trl.data_utils import extract_prompt

    row = extract_prompt(pair)
    eos = tokenizer.eos_token
    prompt = tokenizer(row["prompt"])["input_ids"]
    sides = []
    for side in ("chosen", "rejected"):
        text = row[side] if row[side].endswith(eos) else row[side] + eos
        sides.append(tokenizer(row["prompt"] + text)["input_ids"][len(prompt):])
    return prompt, *sides


@torch.no_grad()
def oracle_logps(model, prompt, completion):
    """Log-prob of each completion token, and the largest logit of the sequence."""
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids, use_cache=False).logits[0].float()
    logps = torch.log_softmax(logits[len(prompt) - 1:-1], dim=-1)
    return (logps.gather(1, ids[0, len(prompt):, None])[:, 0], logits.abs().max().item())


def logp_error(lines, model, tokenizer, pairs):
    """The largest difference of a token's log-prob, as a share of its sequence's largest logit."""
    worst = 0.0
    if len(lines) != len(pairs):
        raise Failure(f"{len(lines)} scores for {len(pairs)} pairs")
    for line, pair in zip(lines, pairs, strict=True):
        prompt, *sides = pair_ids(tokenizer, pair)
        for side, ids in zip(("chosen", "rejected"), sides, strict=True):
            got = torch.tensor(line[f"{side}_logps"])
            if len(got) != len(ids):
                raise Failure(f"{len(got)} tokens of the {side} answer, not {len(ids)}")
            if len(ids) == 0:
                continue
            want, largest = oracle_logps(model, prompt, ids)
            worst = max(worst, ((got.double() - want.double()).abs().max() / largest).item())
    return worst
