#!/usr/bin/env python3
"""Write parts.json: every supported part of a tokenizer.json, alone, as the library does it.

usage: make_parts.py > parts.json    needs: tokenizers (the version is written into the file)

A case is one tokenizer.json: the shared "base" with some keys replaced. The vocabulary is small, so
that unknown characters, byte tokens and merges across every kind of border occur.
"""
import json
import random

from tokenizers import Tokenizer, __version__

TEXTS = [
    "", " ", "hello", " hello", "hello world", "  hello  hello\n", "hell\u00e9o", "hello<x>hello", "he <x> llo",
    "<x><y> <z>\t<w>", "a<w>b <w> c", "_<w>_ (<w>) \u00e9<w>", "xx xxx x", "12 345\u0662\u2167 a1b", "\u2581\u2581a \u2581",
    "o\u0301 \u00f3 \ufb01 \u212b \uac00 \u1100\u1161", "a\U0001f600a \u65e5\u672c", "hello's 's'S", "a\u00a0b\u3000c\u180ed\u0085e",
    "\r\n\r\n  \n a", "h", "hehe  lo   wo", "aaaaaaaaaa", "bababababab <x", "</s>hello</s> </s>", "Yes YES yes",
    "a" * 60 + "hello" * 30, "\u09c7\u0334\u0345\u09be", "\u1df6\u0334 \ua7f2 \u32ff", "\U00010d4a\U0001e030 \U00031350x \U0001e5f1",
    "\uac00\u11a7x \u1112\u1161\u11a7 \uac00\u11a8 \u11a7",
]
LETTERS = list("abcdehlnorstwxyYES'_<>/.,()\n\t 1234\u0662") + ["\u2581", "\u00e9", "\u00f3", "o\u0301", "f", "i", "\u212b", "\uac00", "\u0120", "\u010a"]
MERGES = ["h e", "l l", "he ll", "hell o", "\u2581 he", "\u2581 hello", "\u2581 \u2581", "w o", "a a", "aa aa", "b a", "ba b",
          "\u0120 he", "\u0120 w", "x x", "l o", "1 2", "< x", " he", "he lo"]
MERGES = [m for m in MERGES if len(m.split(" ")) == 2 and all(m.split(" "))]


def vocab():
    pieces = ["<unk>", "<s>", "</s>"] + LETTERS
    for merge in MERGES:
        a, b = merge.split(" ")
        for piece in (a, b, a + b):
            if piece not in pieces:
                pieces.append(piece)
    return {p: i for i, p in enumerate(pieces)}


VOCAB = vocab()


def model(**changes):
    out = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
           "vocab": VOCAB, "merges": MERGES}
    out.update(changes)
    return out


def token(content, index, **flags):
    out = {"id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": False}
    out.update(flags)
    return out


def with_bytes(n):
    v = dict(VOCAB)
    for b in range(n):
        v[f"<0x{b:02X}>"] = len(v)
    return v


SPECIAL = [token("<unk>", 0, special=True), token("<s>", 1, special=True), token("</s>", 2, special=True)]
NEXT = len(VOCAB)
BASE = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": SPECIAL, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model()}
LLAMA_NORMALIZER = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
LLAMA_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def byte_level(prefix, regex):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def template(single):
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if p == "$A" else {"SpecialToken": {"id": p, "type_id": 0}}
              for p in single]
    return {"type": "TemplateProcessing", "single": pieces, "pair": pieces + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [2, 1], "tokens": ["</s>", "<s>"]}}}


def cases():
    yield "unknown", {}
    yield "unknown fused", {"model": model(fuse_unk=True)}
    yield "unknown dropped", {"model": model(unk_token=None)}
    yield "ignore merges", {"model": model(ignore_merges=True)}
    yield "merges as pairs", {"model": model(merges=[m.split(" ") for m in MERGES])}
    yield "some byte tokens", {"model": model(vocab=with_bytes(0xc4), byte_fallback=True, fuse_unk=True)}
    yield "byte tokens", {"model": model(vocab=with_bytes(256), byte_fallback=True), "decoder": LLAMA_DECODER,
                          "normalizer": LLAMA_NORMALIZER, "post_processor": template(["<s>", "$A"])}
    yield "byte tokens that merge", {"model": model(vocab={**with_bytes(256), "<0xC3><0xA9>": NEXT + 256, "a<0xF0>": NEXT + 257},
                                                    merges=MERGES + ["<0xC3> <0xA9>", "a <0xF0>"], byte_fallback=True)}
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            yield f"metaspace {scheme} {cut}", {
                "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut},
                "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}}
    for single in (True, False):
        yield f"digits {single}", {"pre_tokenizer": {"type": "Digits", "individual_digits": single}}
    for behavior in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"):
        for invert in (False, True):
            yield f"split string {behavior} {invert}", {"pre_tokenizer": split({"String": "l"}, behavior, invert)}
            yield f"split regex {behavior} {invert}", {"pre_tokenizer": split({"Regex": "\\s+|l+?|a{2,3}"}, behavior, invert)}
    yield "split at empty matches", {"pre_tokenizer": split({"Regex": "x*"}, "Isolated")}
    yield "split before letters", {"pre_tokenizer": split({"Regex": "(?=\\p{L})"}, "Isolated")}
    for pattern in ("\\p{L}", "[\\p{N}]", "\\s", "\\S", "\\P{L}", "[^\\s\\p{L}]"):
        yield f"split removes {pattern}", {"pre_tokenizer": split({"Regex": pattern}, "Removed")}
    yield "two splits", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        split({"Regex": "(?i:y)|[\\p{N}.'-]+|(?<!h)e"}, "MergedWithNext"), {"type": "Digits", "individual_digits": True}]}}
    for prefix in (True, False):
        for regex in (True, False):
            yield f"byte level {prefix} {regex}", {"pre_tokenizer": byte_level(prefix, regex), "decoder": byte_level(prefix, regex),
                                                   "model": model(fuse_unk=regex, ignore_merges=prefix)}
    yield "byte level with byte tokens", {"pre_tokenizer": byte_level(False, True), "decoder": byte_level(False, True),
                                          "model": model(vocab=with_bytes(256), byte_fallback=True)}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield form, {"normalizer": {"type": form}, "model": model(vocab=with_bytes(256), byte_fallback=True)}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    for mask in range(16):
        chosen = {f: bool(mask >> i & 1) for i, f in enumerate(flags)}
        yield f"added {[f for f in flags if chosen[f]]}", {
            "added_tokens": SPECIAL + [token("<x>", NEXT, **chosen), token("<w>", NEXT + 1, **chosen, special=True),
                                       token("<x><y>", NEXT + 2, **chosen), token("e", VOCAB["e"], single_word=True),
                                       token("<z>", NEXT + 3, normalized=True)],
            "normalizer": LLAMA_NORMALIZER if mask & 1 else {"type": "Replace", "pattern": {"String": "<"}, "content": "("},
            "decoder": LLAMA_DECODER if mask & 1 else None}
    yield "template", {"post_processor": {"type": "Sequence", "processors": [
        byte_level(True, True), template(["<s>", "</s>", "$A", "</s>"])]}}
    yield "strip each piece", {"decoder": {"type": "Strip", "content": "l", "start": 2, "stop": 0}}
    yield "byte level then strip", {"decoder": {"type": "Sequence", "decoders": [
        byte_level(True, True), {"type": "Strip", "content": "h", "start": 2, "stop": 0}]}}


def main():
    chance = random.Random(1)
    out = []
    for name, changes in cases():
        tokenizer = Tokenizer.from_str(json.dumps({**BASE, **changes}))
        ids = [tokenizer.encode(t).ids for t in TEXTS]
        plain = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
        size = tokenizer.get_vocab_size()
        drawn = [[chance.randrange(size + 1) for _ in range(chance.randrange(12))] for _ in range(8)]
        lists = [i for i in ids[8:] if len(i) < 12] + drawn if changes.get("decoder") else drawn[:2]
        out.append({"name": name, "changes": changes, "ids": ids,
                    **({"ids_without_special": plain} if plain != ids else {}),
                    "decode": [[i, tokenizer.decode(i, skip_special_tokens=False), tokenizer.decode(i)] for i in lists]})
    print(json.dumps({"tokenizers": __version__, "base": BASE, "texts": TEXTS}, separators=(",", ":"))[:-1] + ',"cases":[')
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "]}")


main()
