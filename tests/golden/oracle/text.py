"""Tokenizer cases, straight from the `tokenizers` library."""

from tokenizers import Tokenizer

from . import cases, files


def decoded(tokenizer, ids):
    return {"decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_no_special": tokenizer.decode(ids, skip_special_tokens=True)}


def make(model_dir, out_dir):
    """tokenizer.jsonl: encode and decode cases, then decode cases that end inside a character."""
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    records = []
    for string in cases.STRINGS:
        ids = tokenizer.encode(string, add_special_tokens=True).ids
        records.append({"text": string, "ids": ids, **decoded(tokenizer, ids)})
    for index in cases.CUT_STRINGS:
        ids = tokenizer.encode(cases.STRINGS[index], add_special_tokens=True).ids[:-1]
        records.append({"ids": ids, **decoded(tokenizer, ids)})
    files.write_json_lines(out_dir / "tokenizer.jsonl", records)
