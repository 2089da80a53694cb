"""Texts made to measure: pairs and prompts of random words with the lengths of real hh-rlhf.

The tokenizer that shape_model writes has one token for each word with a space before it, so that a
text of n words has n ids and no template or tokenizer of a real model is needed. The end token of
an answer counts to its length, as in lengths.txt.
"""

import json
import pathlib
import random

LENGTHS = pathlib.Path(__file__).resolve().parent / "lengths.txt"
COLUMNS = {"llama-2": 0, "llama-3.1": 3, "qwen2.5": 6, "qwen3": 6}   # Qwen's share a vocabulary
SPACE = "\u0120"


def column_of(model):
    return next(COLUMNS[name] for name in COLUMNS if model.startswith(name))


def read_lengths(model):
    """(prompt, chosen, rejected) of every pair, as the tokenizer of this model's family counts."""
    column = column_of(model)
    rows = [list(map(int, line.split())) for line in LENGTHS.read_text().splitlines()
            if not line.startswith("#")]
    return [tuple(row[column:column + 3]) for row in rows]


def read_words(folder):
    """The words of a model folder's tokenizer, each with its space."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    return [piece.replace(SPACE, " ") for piece in vocabulary
            if piece.startswith(SPACE) and len(piece) > 1]


class Writer:
    def __init__(self, model_folder, seed=20260):
        self.words, self.draw = read_words(model_folder), random.Random(seed)

    def text(self, count):
        return "".join(self.draw.choices(self.words, k=count))

    def answers(self, chosen, rejected):
        """Two texts that differ from the first word on, so that they share the prompt alone."""
        first, other = self.draw.sample(self.words, 2)
        return first + self.text(chosen - 2), other + self.text(rejected - 2)

    def pairs(self, path, lengths):
        with open(path, "w", encoding="utf-8") as file:
            for prompt, *sides in lengths:
                row = {"prompt": self.text(prompt)}
                row["chosen"], row["rejected"] = self.answers(*sides)
                print(json.dumps(row), file=file)

    def prompts(self, path, lengths):
        with open(path, "w", encoding="utf-8") as file:
            for prompt, *_ in lengths:
                print(json.dumps({"prompt": self.text(prompt)}), file=file)
