"""Probes of frozen weights against PyTorch's autograd through TRL's loss, in fp64.

Random models of every form and the demo models; several losses. Every norm, of a layer's module, a
layer, a block and the whole model, must be within 1e-4 of the oracle's. A comparison that could not
fail would show nothing: beta 1 % larger, another sample of pairs, and the norm of the mean gradient
in place of the mean norm must each be told apart.
"""

import json
import tempfile

import torch
from datasets import Dataset, disable_caching
from peft import LoraConfig
from trl import DPOConfig

from common import (DATA, FAMILIES, MODELS, Check, Failure, load_model, load_tokenizer, read_lines,
                    scratch_folder)
from oracle import probe
from oracle.dpo import PlainTrainer
from oracle.models import precision
from tiny import forms, write_model

LIMIT = 1e-4
SEED, PAIRS = 42, 6
LOSSES = {
    "ipo": {}, "hinge": {}, "robust": {"label_smoothing": 0.1}, "nca_pair": {}, "apo_down": {},
    "aot": {"label_smoothing": 0.1}, "sft": {}, "sigmoid + sft": {
        "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    "sigmoid, WPO": {"loss_type": ["sigmoid"], "use_weighting": True},
    "sigmoid, ld_alpha 0.3": {"loss_type": ["sigmoid"], "ld_alpha": 0.3},
    "sigmoid, forward KL": {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    "sigmoid, truncated": {"loss_type": ["sigmoid"], "max_length": 96},
}
NAMES = {"loss_type": "loss", "f_divergence_type": "f_divergence"}


def make_trainer(folder, scratch, dtype, changes):
    rows = Dataset.from_list(read_lines(DATA / "train.jsonl"))
    model = load_model(folder, dtype)
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "beta": 0.1,
                "max_length": 2048, "seed": SEED, "bf16": False, "gradient_checkpointing": False}
    config = DPOConfig(output_dir=scratch, use_cpu=True, report_to="none", save_strategy="no",
                       disable_tqdm=True, dataloader_pin_memory=False, **{**settings, **changes})
    # B is 0: the policy is the reference, and y = W x has the gradient that it has by itself.
    adapter = LoraConfig(r=1, lora_dropout=0.0, task_type="CAUSAL_LM",
                         target_modules=probe.MODULES)
    return PlainTrainer(model=model, args=config, processing_class=load_tokenizer(folder),
                        train_dataset=rows.shuffle(seed=SEED).select(range(PAIRS)),
                        peft_config=adapter)


def oracle_norms(folder, dtype=torch.float64, **changes):
    with tempfile.TemporaryDirectory() as scratch, precision(dtype):
        norms, count = probe.mean_norms(make_trainer(folder, scratch, dtype, changes))
    if count != PAIRS:
        raise Failure(f"the oracle has {count} pairs")
    return norms


def norm_of_mean(folder):
    """What a mean of gradients would give."""
    with tempfile.TemporaryDirectory() as scratch, precision(torch.float64):
        trainer, mean = make_trainer(folder, scratch, torch.float64, {}), {}
        for gradients in probe.pair_gradients(trainer):
            for key, gradient in gradients.items():
                mean[key] = mean.get(key, 0.0) + gradient / PAIRS
        return probe.norms_of(probe.squares_of(mean), trainer.model.config.num_hidden_layers)


def our_norms(check, folder, *settings):
    sets = [part for value in ["train.beta=0.1", 'train.precision="fp32"', f"data.seed={SEED}",
                               f"probe.pairs={PAIRS}", *settings] for part in ("--set", value)]
    out = json.loads(check.attempt("probe", "--model", folder, "--data", DATA / "train.jsonl",
                                   "--json", *sets))
    if out["pairs"] != PAIRS:
        raise Failure(f"{out['pairs']} pairs were taken")
    return {(norm["block"], norm["layer"], norm["module"]): norm["norm"] for norm in out["norms"]}


def largest_error(mine, theirs):
    if sorted(mine) != sorted(theirs):
        raise Failure("other layers, blocks or modules than the oracle's")
    return max(abs(mine[key] - norm) / norm for key, norm in theirs.items())


def compare_loss(check, row, folder, name, changes):
    changes = {"loss_type": [name], **changes}
    given = [f"train.{NAMES.get(key, key)}={json.dumps(value)}" for key, value in changes.items()]
    with row.case(name):
        theirs = oracle_norms(folder, **changes)
        row.error(largest_error(our_norms(check, folder, *given), theirs))


def planted(check, row, folder):
    theirs = oracle_norms(folder)
    faults = {"beta 1 % larger": lambda: our_norms(check, folder, "train.beta=0.101"),
              "other pairs": lambda: our_norms(check, folder, "data.seed=43"),
              "the norm of the mean": lambda: norm_of_mean(folder)}
    for name, wrong in faults.items():
        with row.case(name):
            if largest_error(wrong(), theirs) <= LIMIT:
                raise Failure("the comparison does not tell it apart")


def main():
    check = Check(__doc__.split("\n")[0])
    disable_caching()
    with scratch_folder() as scratch:
        row = check.row("probe, random models", LIMIT)
        for form in forms():
            if check.wanted(form.name()):
                folder = write_model(scratch / "model", form)
                with row.case(form.name()):
                    row.error(largest_error(our_norms(check, folder), oracle_norms(folder)))
        row = check.row("probe, demo models", LIMIT)
        for family in FAMILIES:
            if check.wanted(family):
                with row.case(family):
                    row.error(largest_error(our_norms(check, MODELS / family),
                                            oracle_norms(MODELS / family)))
        row = check.row("probe, losses", LIMIT)
        for name, changes in LOSSES.items():
            if check.wanted(name):
                compare_loss(check, row, MODELS / "qwen3-demo", name, changes)
        planted(check, check.row("probe, planted faults that are caught"), MODELS / "qwen2.5-demo")
    check.finish()


if __name__ == "__main__":
    main()
