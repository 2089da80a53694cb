"""ha-attempt merge against PEFT's merge_and_unload; the result is loaded by Transformers."""

import shutil

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from check_adapters import FORMS, make_peft
from common import (FAMILIES, MODELS, ROOT, Check, Failure, demo_pairs, load_model,
                    load_tokenizer, logp_error, scratch_folder)
from tiny import DTYPES, KINDS, Form, write_model

STEP = {torch.float32: 2.0 ** -23, torch.bfloat16: 2.0 ** -7, torch.float16: 2.0 ** -10}
DIFFERING = 1e-3      # share of the weights that may be rounded to the other neighbour


def compare_weights(row, merged, peft_model, dtype):
    """The largest difference in steps of the type, and the share of weights that differ."""
    want = peft_model.merge_and_unload().state_dict()
    got = AutoModelForCausalLM.from_pretrained(merged, dtype="auto").state_dict()
    if sorted(got) != sorted(want):
        raise Failure("other tensors")
    count = differing = 0
    for name, tensor in want.items():
        if got[name].dtype != dtype or tensor.dtype != dtype:
            raise Failure(f"{name} is {got[name].dtype}, PEFT's {tensor.dtype}, not {dtype}")
        gap = (got[name].double() - tensor.double()).abs()
        row.error((gap / (tensor.double().abs() + 1e-3)).max().item() / STEP[dtype])
        count, differing = count + gap.numel(), differing + (gap > 0).sum().item()
    if dtype != torch.float32 and differing > DIFFERING * count:
        raise Failure(f"{differing} of {count} weights differ")


def random_models(check, row, scores, scratch, pairs):
    number = 0
    for kind in KINDS:
        for dtype_name, dtype in DTYPES.items():
            form = Form(kind, 2, dtype=dtype_name, tied=number % 2 == 1, shards=1 + number % 3,
                        config=["v5", "v4"][number % 2], seed=200 + number)
            name, settings = list(FORMS.items())[number % len(FORMS)]
            number += 1
            with row.case(f"{form.name()}: {name}"):
                folder, merged = write_model(scratch / "model", form), scratch / "merged"
                shutil.rmtree(merged, ignore_errors=True)
                base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
                peft_model = make_peft(base, number, **settings)
                peft_model.save_pretrained(scratch / "adapter")
                check.attempt("merge", "--model", folder, "--adapter", scratch / "adapter",
                              "--out", merged)
                compare_weights(row, merged, peft_model, dtype)
            with scores.case(form.name()):
                model = load_model(merged, torch.float32)
                scores.error(logp_error(check.score(merged, pairs, scratch), model,
                                        load_tokenizer(merged), pairs))


def demo_models(check, row, scratch):
    for family in FAMILIES:
        with row.case(family):
            merged = scratch / family
            adapter = ROOT / "tests" / "golden" / family / "adapter-random"
            check.attempt("merge", "--model", MODELS / family, "--adapter", adapter,
                          "--out", merged)
            base = AutoModelForCausalLM.from_pretrained(MODELS / family, dtype=torch.bfloat16)
            compare_weights(row, merged, PeftModel.from_pretrained(base, adapter), torch.bfloat16)


def main():
    check = Check(__doc__)
    with scratch_folder() as scratch:
        row = check.row("merged weights, in steps of their type", 1.0)
        scores = check.row("merged models, scored", 1e-5)
        random_models(check, row, scores, scratch, demo_pairs("eval", 2))
        demo_models(check, row, scratch)
    check.finish()


if __name__ == "__main__":
    main()
