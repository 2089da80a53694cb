#!/usr/bin/env python3
"""The demo preference set keeps its promises.

usage: demo_data.py FOLDER.  Checks train.jsonl (at least 600 pairs) and
eval.jsonl (at least 60): hh-rlhf form, 1 to 4 turns, one shared dialogue up to
the last reply, and no two pairs that share more than half of their word 5-grams.
"""
import collections
import itertools
import json
import pathlib
import sys

MARK = '\n\nAssistant:'


def grams(row):
    words = f"{row['chosen']} {row['rejected']}".lower().split()
    return {tuple(words[i:i + 5]) for i in range(len(words) - 4)}


def faults_of_row(row):
    prompts = {text[:text.rindex(MARK) + len(MARK)] for text in (row['chosen'], row['rejected'])}
    turns = row['chosen'].count('\n\nHuman:')
    if len(prompts) != 1:
        yield 'chosen and rejected differ before the last reply'
    if not row['chosen'].startswith('\n\nHuman:') or not 1 <= turns <= 4:
        yield f'{turns} turns'
    if row['chosen'] == row['rejected']:
        yield 'chosen equals rejected'


def overlaps(rows):
    """Yield pairs of rows that share more than half of the smaller one's 5-grams."""
    sets = [grams(row) for row in rows]
    holders = collections.defaultdict(list)
    for i, found in enumerate(sets):
        for gram in found:
            holders[gram].append(i)
    shared = collections.Counter(pair for h in holders.values() for pair in itertools.combinations(h, 2))
    for (a, b), count in shared.items():
        if count > 0.5 * min(len(sets[a]), len(sets[b])):
            yield a, b, count


def main(folder):
    faults, rows = [], []
    for name, least in (('train.jsonl', 600), ('eval.jsonl', 60)):
        part = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        if len(part) < least:
            faults.append(f'{name}: {len(part)} rows, at least {least} wanted')
        faults += [f'{name}:{n}: {fault}' for n, row in enumerate(part, 1) for fault in faults_of_row(row)]
        rows += part
    turns = collections.Counter(row['chosen'].count('\n\nHuman:') for row in rows)
    if set(turns) != {1, 2, 3, 4}:
        faults.append(f'turns {sorted(turns)}: 1 to 4 wanted')
    faults += [f'rows {a} and {b} share {n} 5-grams' for a, b, n in overlaps(rows)]
    print('\n'.join(faults) if faults else f'{len(rows)} pairs keep the rules')
    return bool(faults)


if __name__ == '__main__':
    sys.exit(main(pathlib.Path(sys.argv[1])))
