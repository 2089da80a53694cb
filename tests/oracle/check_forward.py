"""Per-token log-probs in fp32 against Transformers: random models of every form, demo models."""

import torch

from common import (FAMILIES, MODELS, Check, demo_pairs, load_model, load_tokenizer, logp_error,
                    scratch_folder)
from tiny import forms, write_model

LIMIT = 1e-5      # of the largest logit


def compare(check, row, name, folder, pairs, scratch):
    with row.case(name):
        model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
        row.error(logp_error(check.score(folder, pairs, scratch), model, tokenizer, pairs))


def main():
    check = Check(__doc__)
    pairs = demo_pairs("eval", 3)
    with scratch_folder() as scratch:
        rows = {}
        for form in forms():
            if check.wanted(form.name()):
                row = rows.get(form.kind) or check.row(f"forward, random {form.kind}", LIMIT)
                rows[form.kind] = row
                folder = write_model(scratch / "model", form)
                compare(check, row, form.name(), folder, pairs, scratch)
        row = check.row("forward, demo models", LIMIT)
        for family in FAMILIES:
            if check.wanted(family):
                compare(check, row, family, MODELS / family, demo_pairs("eval", 12), scratch)
    check.finish()


if __name__ == "__main__":
    main()
