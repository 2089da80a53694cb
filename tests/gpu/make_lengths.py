#!/usr/bin/env python3
"""Lengths of real hh-rlhf pairs, as a small file of integers: writes lengths.txt.

    HA_TEST_DATA=... python3 tests/gpu/make_lengths.py build/release/ha-attempt tests/gpu/lengths.txt

2,000 pairs of the files that HA_TEST_DATA has, drawn by a fixed seed in the proportion of the
training sets they belong to. Ids as training sees them (`ha-attempt rows`, split "trl", no chat
template): a BOS of the tokenizer counts to the prompt, the end token to each answer. Pairs with an
answer of fewer than two tokens are left out, as no text of that length can be made up.
"""

import gzip
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

PAIRS, SEED = 2000, 20260
TOKENIZERS = ["llama-2", "llama-3.1", "qwen3"]
TRAINING_ROWS = {"harmless-base": 42537, "helpful-base": 43835, "helpful-rejection-sampled": 52421}


def unpack(folder, out):
    out.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        packed = folder / f"{file}.gz"
        data = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / file).read_bytes()
        (out / file).write_bytes(data)
    return out


def lengths_of(program, tokenizer, data):
    """{row: (prompt, chosen, rejected)}."""
    out = subprocess.run([program, "rows", "--model", tokenizer, "--data", data], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    rows = map(json.loads, out.splitlines())
    return {row["row"]: tuple(len(row[key]) for key in ("prompt", "chosen", "rejected"))
            for row in rows}


def draw(subset, by_tokenizer):
    """Some rows of a subset, each with the lengths of all tokenizers side by side."""
    count = round(PAIRS * TRAINING_ROWS[subset] / sum(TRAINING_ROWS.values()))
    common = sorted(set.intersection(*(set(rows) for rows in by_tokenizer)))
    rows = [sum((rows[row] for rows in by_tokenizer), ()) for row in common]
    rows = [row for row in rows if all(row[0::3]) and min(row[1::3] + row[2::3]) >= 2]
    return random.Random(f"{SEED} {subset}").sample(rows, count)


def main():
    program, out = sys.argv[1:]
    data = pathlib.Path(os.environ["HA_TEST_DATA"])
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [unpack(data / "tokenizers" / name, pathlib.Path(scratch) / name)
                   for name in TOKENIZERS]
        for subset in TRAINING_ROWS:
            file = data / "hh-rlhf" / subset / "test.jsonl.gz"
            pairs += draw(subset, [lengths_of(program, folder, file) for folder in folders])
    random.Random(SEED).shuffle(pairs)
    with open(out, "w", encoding="ascii") as file:
        print("# Tokens of", len(pairs), "pairs of hh-rlhf, made by make_lengths.py: prompt chosen "
              "rejected, with the tokenizers\n# " + ", ".join(TOKENIZERS), file=file)
        for pair in pairs:
            print(*pair, file=file)


if __name__ == "__main__":
    main()
