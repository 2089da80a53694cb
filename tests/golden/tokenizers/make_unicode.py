#!/usr/bin/env python3
"""Write worker/tokenizer/unicode.c: where the `tokenizers` library's Unicode differs from ours.

usage: make_unicode.py > worker/tokenizer/unicode.c
needs: Python 3.11 or 3.12's unicodedata (Unicode 14 or 15), tokenizers 0.22.2, unicodedata2 >= 16

The library's regular expressions know Unicode 16, its normal forms Unicode 9. PCRE2 and utf8proc of
the distributions know 14 or later. So this asks the library about every code point and writes
  - letters and numbers that PCRE2 of Unicode 14 does not know yet;
  - code points that a newer utf8proc would decompose, reorder or compose, and the library does not.
"""
import unicodedata as old

import unicodedata2 as new
from tokenizers import Regex, __version__, normalizers, pre_tokenizers

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(pattern):
    """Code points that the library's regular expression matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for i in range(0, len(CODES), 4096):
        part = CODES[i:i + 4096]
        kept = {ord(c) for piece, _ in split.pre_tokenize_str("".join(map(chr, part))) for c in piece}
        found |= set(part) - kept
    return found


def category(first):
    return {c for c in CODES if old.category(chr(c))[0] == first and old.unidata_version >= "14"}


def differs(code):
    """Does Unicode's newest treat this code point otherwise than the library does?"""
    char = chr(code)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        normalize = getattr(normalizers, form)().normalize_str
        if any(normalize(s) != new.normalize(form, s) for s in (char, "\u0345" + char, char + "\u0334")):
            return True
    return False


def inert():
    """Code points that the library takes for characters without decomposition and of class 0."""
    found = {c for c in CODES if differs(c)}
    # A pair that composes today and does not in the library: its new parts may not compose.
    for c in CODES:
        parts = [int(p, 16) for p in new.decomposition(chr(c)).split() if not p.startswith("<")]
        if len(parts) == 2:
            pair = "".join(map(chr, parts))
            if normalizers.NFC().normalize_str(pair) != new.normalize("NFC", pair):
                found |= {c} | {p for p in parts if old.ucd_3_2_0.category(chr(p)) == "Cn"}
    return found


def ranges(codes):
    out = []
    for c in sorted(codes):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, comment, codes):
    rows = ranges(codes)
    print(f"\n/* {comment} */\nconst struct ha_unicode_range ha_unicode_{name}[] = {{")
    for first, last in rows:
        print(f"    {{0x{first:x}, 0x{last:x}}},")
    print(f"}};\n\nconst int64_t ha_unicode_{name}_count = {len(rows)};")


print(f"""/* Made by tests/golden/tokenizers/make_unicode.py with tokenizers {__version__} and Unicode
 * {new.unidata_version}; not to be edited. */
#include "worker/tokenizer/unicode.h\"""")
table("letters", "Letters of Unicode 15 and 16.", members(r"\p{L}") - category("L"))
table("numbers", "Numbers of Unicode 15 and 16.", members(r"\p{N}") - category("N"))
table("inert", "Decomposed, reordered or composed only since Unicode 10.", inert())
