#!/usr/bin/env python3
"""The last table of run.sh: what bench_models.py measured against the first goals of the design.

    table.py RESULTS.jsonl

The goals are for an NVIDIA H200, Llama-3.1-8B and pairs of 282 tokens (prompt once, both answers);
rates of training are therefore shown per 282 tokens too, and no verdict is given for a model that
was made smaller.
"""

import json
import sys

from rows import read_lengths

MODEL, GOAL_TOKENS = "llama-3.1-8b", 282
GOALS = [      # name of a result, what to call it, goal, at least or at most
    ("alone with known references, full", "alone, full", 57, ">="),
    ("alone with known references, mid", "alone, mid", 68, ">="),
    ("alone with known references, global", "alone, global", 84, ">="),
    ("lock-step, full", "in lock-step, full", 57, ">="),
    ("lock-step, mid", "in lock-step, mid", 85, ">="),
    ("lock-step, global", "in lock-step, global", 155, ">="),
    ("lock-step, four strategies and reference", "all four and reference", 16, ">="),
    ("train-paper ratio", "times the paper's settings", 12, ">="),
    ("train-tuned ratio", "times the best tuned", 4.5, ">="),
    ("generation, ends ignored", "generation", 18000, ">="),
    ("memory, measured", "memory in lock-step", 50, "<="),
]


def verdict(result, value, goal, sense):
    if result["shrunk"]:
        return "smaller model: no comparison"
    return "reached" if (value >= goal if sense == ">=" else value <= goal) else "not reached"


def main():
    with open(sys.argv[1], encoding="utf-8") as lines:
        results = [json.loads(line) for line in lines]
    mine = {one["name"]: one for one in results if one["model"] == MODEL}
    lengths = read_lengths(MODEL)
    tokens = sum(map(sum, lengths)) / len(lengths)
    print(f"{MODEL}, goals of an H200; pairs of {tokens:.0f} tokens, rates of training per "
          f"{GOAL_TOKENS}")
    print(f"{'':30} {'first goal':>12} {'measured':>12} {'unit':10}")
    for name, label, goal, sense in GOALS:
        result = mine.get(name)
        if not result or not isinstance(result["value"], (int, float)):
            print(f"{label:30} {sense + format(goal, 'g'):>12} {'':>12} {'':10} not measured")
            continue
        value = result["value"] * (tokens / GOAL_TOKENS if result["unit"] == "pairs/s" else 1)
        print(f"{label:30} {sense + format(goal, 'g'):>12} {value:12.4g} {result['unit']:10} "
              f"{verdict(result, value, goal, sense)}")
    missing = [f"{one['model']}: {one['name']} ({one['note']})" for one in results
               if one["value"] == "not measured"]
    if missing:
        print("not measured: " + "; ".join(missing))
    for one in results:
        if one["name"].endswith(" ratio"):
            kind = one["name"].removesuffix(" ratio")
            print(f"{kind}-{one['model']} ratio {one['value']:.2f}")


if __name__ == "__main__":
    main()
