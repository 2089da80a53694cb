"""Every pair of hh-rlhf from texts to token ids, as TRL's preparation makes them, with the four
families' published tokenizers: prompt, boundary, EOS, rows that are dropped, max_length, the subset
and its order. Without $HA_TEST_DATA: the demo data and the demo models' tokenizers.
"""

import json
import subprocess

import numpy
from tokenizers import Tokenizer
from trl.data_utils import extract_prompt

from common import DATA, FAMILIES, MODELS, Check, Failure, scratch_folder
from published import hh_files, published_tokenizers, read_rows

# Samples (0: all), seed, max_length: the defaults' limit, and one that drops and cuts.
WAYS = [(0, 42, 2048), (500, 7, 150)]


def read_eos(folder):
    eos = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["eos_token"]
    return eos["content"] if isinstance(eos, dict) else eos


def oracle_pairs(folder, rows):
    """Per row (prompt ids, chosen ids, rejected ids, cut inside a word, border changed)."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    eos = read_eos(folder)
    parts = [extract_prompt(row) for row in rows]
    for part in parts:
        for side in ("chosen", "rejected"):
            part[f"{side}_text"] = part["prompt"] + part[side] + \
                ("" if part[side].endswith(eos) else eos)
    ids = {key: [encoding.ids for encoding in tokenizer.encode_batch([part[key] for part in parts])]
           for key in ("prompt", "chosen_text", "rejected_text")}
    for index, part in enumerate(parts):
        prompt, sides = ids["prompt"][index], [ids[f"{side}_text"][index]
                                               for side in ("chosen", "rejected")]
        inside = part["prompt"][-1:].isalnum() and any(part[side][:1].isalnum()
                                                       for side in ("chosen", "rejected"))
        changed = any(side[:len(prompt)] != prompt for side in sides)
        yield prompt, *(side[len(prompt):] for side in sides), inside, changed


def wanted(pairs, samples, seed, max_length):
    """The lines that the program should print."""
    order = numpy.random.default_rng(seed).permutation(len(pairs))
    lines, counts = [], {"dropped": 0, "cut_inside_word": 0, "border_changed": 0}
    for row in order[:samples or None].tolist():
        prompt, chosen, rejected, inside, changed = pairs[row]
        counts["cut_inside_word"] += inside
        counts["border_changed"] += changed
        if len(prompt) >= max_length:
            counts["dropped"] += 1
            continue
        room = max_length - len(prompt)
        lines.append({"row": row, "prompt": prompt, "chosen": chosen[:room],
                      "rejected": rejected[:room]})
    return [*lines, counts]


def ask(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], text=True, capture_output=True,
                          check=False)
    if done.returncode != 0:
        raise Failure(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(row, name, mine, theirs):
    """One case per pair; the counts are one more."""
    if len(mine) != len(theirs):
        raise Failure(f"{len(mine) - 1} pairs, not {len(theirs) - 1}")
    for got, want in zip(mine, theirs):
        with row.case(f"{name}, row {want.get('row', 'counts')}"):
            if got != want:
                raise Failure(f"{got}, not {want}")


def main():
    check = Check(__doc__.split("\n\n")[0])
    program = check.args.program.parent / "tests" / "oracle" / "pair_ids"
    files = hh_files() or {path.stem: path for path in sorted(DATA.glob("*.jsonl"))}
    with scratch_folder() as scratch:
        folders = published_tokenizers(scratch) or {name: MODELS / name for name in FAMILIES}
        for family, folder in folders.items():
            row = check.row(f"pairs, {family}", "equal")
            for file, path in files.items():
                pairs = list(oracle_pairs(folder, read_rows(path)))
                for samples, seed, max_length in WAYS:
                    theirs = wanted(pairs, samples, seed, max_length)
                    with row.case(f"{family} {file}"):
                        compare(row, f"{family} {file}",
                                ask(program, folder, path, samples, seed, max_length), theirs)
                    if samples == 0:
                        counts = theirs[-1]
                        print(f"{family}, {file}: of {len(pairs)} pairs TRL's rule cuts "
                              f"{counts['cut_inside_word']} inside a word "
                              f"({100 * counts['cut_inside_word'] / len(pairs):.1f} %) and changes "
                              f"the ids at the border of {counts['border_changed']} "
                              f"({100 * counts['border_changed'] / len(pairs):.1f} %)", flush=True)
    check.finish()


if __name__ == "__main__":
    main()
