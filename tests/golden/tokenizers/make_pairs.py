#!/usr/bin/env python3
"""Write pairs.json: what TRL makes of odd preference pairs, with the demo models' tokenizers.

usage: make_pairs.py > pairs.json    needs: trl, tokenizers, transformers (versions are written into the file)

{"trl", "tokenizers", "rows": [{"chosen", "rejected", "prompt", "chosen_reply", "rejected_reply"}],
 "models": {name: [[prompt ids, chosen ids, rejected ids], ...]}}
The ids are those of the trainer: EOS appended as text unless it is the suffix, ids of the prompt
alone, and of prompt + reply from that count on.
"""
import json
import pathlib

import tokenizers
import trl
from transformers import PreTrainedTokenizerFast
from trl.data_utils import extract_prompt

MODELS = pathlib.Path(__file__).resolve().parents[3] / "deploy/demo/models"
H, A = "\n\nHuman: ", "\n\nAssistant:"
PAIRS = [
    (f"{H}Hi{A} Hello there.", f"{H}Hi{A} Go away."),
    (f"{H}Hi{A} It is fine.", f"{H}Hi{A} I think so."),  # cut inside a word
    (f"{H}Hi{A} same", f"{H}Hi{A} same"),
    (f"{H}Hi{A} one", f"{H}Hi{A} one and more"),
    (f"{H}Hi{A}", f"{H}Hi{A} text"),
    (f"{H}Hi{A}\nnew line", f"{H}Hi{A} text"),
    (f"{H}Hi{A}: colon", f"{H}Hi{A} text"),
    (f"{H}One{A} Two{H}Three{A} Four", f"{H}One{A} Other{H}Three{A} Four"),
    ("no marker at all here", "no marker of any kind"),
    ("abc ", "xyz"),  # the first characters differ and chosen ends with a space
    ("abc ", "xy\u00e9"),
    ("abc", "xyz "),
    ("a", "a"),
    (" ", " "),
    (" ", "x"),
    ("caf\u00e9 x", "caf\u00e8 x"),  # the same first byte
    ("\U0001f600 a", "\U0001f601 a"),
    ("e\u0301", "e\u0300"),
    (f"{H}Hi{A} done </s>", f"{H}Hi{A} done<|endoftext|>"),
    (f"{H}Hi{A} done</s>", f"{H}Hi{A} not<|im_end|>"),
    (f"{H}Hi{A} done<|eot_id|>", f"{H}Hi{A} x<|eot_id|>"),
    (f"{H}Hi{A}  two spaces", f"{H}Hi{A}  too"),
    (f"{H}Hi{A} 12345", f"{H}Hi{A} 12367"),
    (f"{H}Hi{A} \u65e5\u672c\u8a9e", f"{H}Hi{A} \u65e5\u672c\u4eba"),
    (f"{H}Hi{A}  ", f"{H}Hi{A} "),
    ("x" * 40, "x" * 30 + "y" * 10),
]


def ids(tokenizer, row):
    eos = tokenizer.eos_token
    prompt = tokenizer(row["prompt"])["input_ids"]
    out = [prompt]
    for side in ("chosen", "rejected"):
        reply = row[side] if row[side].endswith(eos) else row[side] + eos
        out.append(tokenizer(row["prompt"] + reply)["input_ids"][len(prompt):])
    return out


def main():
    rows = [extract_prompt({"chosen": c, "rejected": r}) for c, r in PAIRS]
    models = {}
    for folder in sorted(MODELS.iterdir()):
        config = json.loads((folder / "tokenizer_config.json").read_text())
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=config["eos_token"])
        models[folder.name] = [ids(tokenizer, row) for row in rows]
    described = [{"chosen": c, "rejected": r, "prompt": row["prompt"], "chosen_reply": row["chosen"],
                  "rejected_reply": row["rejected"]} for (c, r), row in zip(PAIRS, rows)]
    print(json.dumps({"trl": trl.__version__, "tokenizers": tokenizers.__version__, "rows": described, "models": models},
                     separators=(",", ":")))


main()
