#!/usr/bin/env python3
"""Write official.jsonl: ids and texts of the published tokenizers for odd strings.

usage: HA_TEST_DATA=... make_official.py > official.jsonl
needs: tokenizers (the version is written into the file); the folder $HA_TEST_DATA/tokenizers

Line 1: {"tokenizers": version}.  Then {"tokenizer", "text", "ids", "decoded", "decoded_no_special"}.
"""
import gzip
import json
import os
import pathlib

from tokenizers import Tokenizer, __version__

TEXTS = [
    "", " ", "Hello, world!", " leading and trailing ", "\n\nHuman: Hi there\n\nAssistant: It's me.\n\nHuman:",
    "I'LL we've don't 'S '\u017f you'RE", "1234567890 12,345.678 \u0661\u0662\u0663 \u00bd \u2167 \U0001d7d9", "a\u00a0b\u2003c\u3000d\u180ee\u0085f\u2028g",
    "tabs\tand\r\nlines\n\n\n  \n   end   ", "caf\u00e9 cafe\u0301 \u212b \uac01 \u1100\u1161\u11a8 \u0928\u093c \u0d46\u0d3e",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \u4e2d\u6587 \ud55c\uad6d\uc5b4 \u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f3f4\U000e0067\U000e007f", "zero\u0000byte \x7f \ufeff \ufffe \U0010ffff \ue000",
    "<s></s><unk> <|begin_of_text|><|eot_id|> <|im_start|>user<|im_end|><|endoftext|> <think>x</think>", "<|eot_id", "</s", "<0x0A><0xE2>",
    "\u2581\u2581 \u2581a \u0120b", "a\u0334\u0301\u0345 \u09c7\u09be \u1df6\u0334 \u32ff \ua7f2", "\U00010d4a \U0001e030 \U00031350 \u0bb6\U00011935\U00011930",
    "x" * 300, "ab" * 120 + " " * 50 + "!?" * 60, "def f(x):\n    return {'a': [x**2 for _ in range(10)]}  # \u2026\n",
    "https://example.org/a?b=c&d=%20#e user@example.com C:\\x\\y", "\u201cquotes\u201d \u2018and\u2019 \u2014 dashes\u2026 \u20ac5 \u00a33", "\u01c5 \u02b0 \u00aa \ufb01 \u0130 \u0131 \u00df \u1e9e",
    "\ucd78\u11a7x \u1112\u1161\u11a7 \uac00\u11a8 \u11a7",
]


def main():
    root = pathlib.Path(os.environ["HA_TEST_DATA"]) / "tokenizers"
    print(json.dumps({"tokenizers": __version__}))
    for name in ("llama-2", "llama-3.1", "qwen3"):
        plain, packed = root / name / "tokenizer.json", root / name / "tokenizer.json.gz"
        text = plain.read_text("utf-8") if plain.exists() else gzip.open(packed, "rt", encoding="utf-8").read()
        tokenizer = Tokenizer.from_str(text)
        for string in TEXTS:
            ids = tokenizer.encode(string).ids
            print(json.dumps({"tokenizer": name, "text": string, "ids": ids,
                              "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                              "decoded_no_special": tokenizer.decode(ids)}))


main()
