"""Per-token log-probs in fp32 against Transformers: random models of every form, demo models."""

import json

import torch

from common import (FAMILIES, MODELS, Check, Failure, demo_pairs, load_model, load_tokenizer,
                    logp_error, scratch_folder)
from tiny import Form, forms, write_model

LIMIT = 1e-5      # of the largest logit


def compare(check, row, name, folder, pairs, scratch):
    with row.case(name):
        model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
        row.error(logp_error(check.score(folder, pairs, scratch), model, tokenizer, pairs))


def planted(check, row, pairs, scratch):
    """The comparison must tell apart what a mistake in one number of config.json would do."""
    faults = [("llama2", "rms_norm_eps", 1e-4), ("qwen2", "rope_theta", 510000.0),
              ("llama3", "original_max_position_embeddings", 256), ("llama3", "factor", 8.1),
              ("llama3", "low_freq_factor", 1.1), ("qwen3", "num_attention_heads", 3)]
    for kind, key, value in faults:
        with row.case(f"{kind}: {key}"):
            form = Form(kind, 2, original=32 if kind == "llama3" else 0, head_dim=24)
            folder = write_model(scratch / "model", form)
            model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
            path = folder / "config.json"
            config = json.loads(path.read_text())
            place = config if key in config else config["rope_parameters"]
            if place[key] == value:
                raise Failure("this is no fault")
            place[key] = value
            path.write_text(json.dumps(config))
            try:
                error = logp_error(check.score(folder, pairs, scratch), model, tokenizer, pairs)
            except Failure:
                continue      # refused: shapes that do not fit
            if error <= LIMIT:
                raise Failure(f"an error of {error:.2g} passes")


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
        planted(check, check.row("forward, planted faults that are caught"), pairs, scratch)
    check.finish()


if __name__ == "__main__":
    main()
