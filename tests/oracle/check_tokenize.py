"""Ids and texts of the demo models' tokenizers against the tokenizers library."""

import json
import random

from tokenizers import Tokenizer

from common import DATA, FAMILIES, MODELS, Check, Failure, read_lines

GENERATED = 25_000      # for each tokenizer
RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f),
          (0x590, 0x6ff), (0x900, 0xdff), (0xe00, 0xe7f), (0x1100, 0x11ff), (0x2000, 0x206f),
          (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xe000, 0xf8ff),
          (0xfe00, 0xfe0f), (0x1f300, 0x1faff), (0x10000, 0x10ffff), (0x0, 0x1f)]
PIECES = [" ", "  ", "\n", "\r\n", "\t", "\n\n", "'s", "'LL", "...", "12345678901", "\u200d",
          "\u200f", "\ufeff", "Human:", "Assistant:", "e\u0301", "\u1112\u1161\u11ab",
          "\U0001f468\u200d\U0001f469", "<", ">", "|", "\u0130", "\u017f"]


def generated(draw, specials):
    """A string of a few pieces: words of one script, runs, special tokens, odd characters."""
    parts = []
    for _ in range(draw.randrange(1, 9)):
        kind = draw.random()
        if kind < 0.45:
            low, high = draw.choice(RANGES)
            parts.append("".join(chr(draw.randint(low, high)) for _ in range(draw.randrange(1, 9))))
        elif kind < 0.85:
            parts.append(draw.choice(PIECES) * draw.choice([1, 1, 1, 2, 3, 17]))
        elif kind < 0.92:
            parts.append(draw.choice(specials))
        else:
            parts.append(chr(draw.choice([0xd7ff, 0xe000, 0xfffd, 0xffff, 0x10ffff, 0x378, 0x7f])))
    return "".join(parts)


def compare(row, name, inputs, got, wanted):
    if len(got) != len(wanted):
        raise Failure(f"{name}: {len(got)} results for {len(wanted)} inputs")
    for item, mine, theirs in zip(inputs, got, wanted):
        if mine == theirs:
            row.record["passed"] += 1
        else:
            row.record["failed"] += 1
            print(f"not ok {name}: {item!r}: {mine}, not {theirs}", flush=True)


def run(check, folder, inputs, *options):
    text = "".join(json.dumps(item) + "\n" for item in inputs)
    out = check.attempt("tokenize", "--model", folder, *options, text=text)
    return [json.loads(line) for line in out.split("\n")[:-1]]


def main():
    check = Check(__doc__)
    dialogues = [pair[side] for name in ("train", "eval")
                 for pair in read_lines(DATA / f"{name}.jsonl") for side in ("chosen", "rejected")]
    for family in FAMILIES:
        tokenizer = Tokenizer.from_file(str(MODELS / family / "tokenizer.json"))
        specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        draw = random.Random(family)
        texts = dialogues + [generated(draw, specials) for _ in range(GENERATED)]
        row = check.row(f"tokenize, {family}", "equal")
        wanted = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        compare(row, f"{family} encode", texts, run(check, MODELS / family, texts), wanted)
        for special in (False, True):
            options = ["--keep-special"] if special else []
            compare(row, f"{family} decode", wanted,
                    run(check, MODELS / family, wanted, "--decode", *options),
                    [tokenizer.decode(ids, skip_special_tokens=not special) for ids in wanted])
    check.finish()


if __name__ == "__main__":
    main()
