"""DPO over 20 optimizer steps in fp32 against TRL: the demo models times local, mid, global, full.

Both start from the oracle's initial adapter. Limits are those of the design: per step loss 5e-6,
rewards and margins 5e-5; in the end the change of every B within 1e-4 of the oracle's change, of
every A within 1e-3. Where a case is above a limit, the oracle runs again in fp64: then the fp64 run
is what counts, and a limit is widened to the oracle's own gap between fp32 and fp64, which is said.

A comparison that could not fail would show nothing: training with lr = 0, with beta 1 % too large
and without weight decay must each be told apart from the oracle, and the program from an oracle
whose completion mask begins one token early.
"""

import tempfile

import torch
from datasets import Dataset, disable_caching
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import PrinterCallback
from trl import DPOConfig

from common import (DATA, FAMILIES, MODELS, Check, Failure, load_model, load_tokenizer, read_lines,
                    scratch_folder)
from oracle.cases import block_layers
from oracle.dpo import PlainTrainer, adapter_of, load_adapter, training_log, write_adapter

SEED, STEPS, BATCH, WINDOW = 42, 20, 2, 2
PAIRS = STEPS * BATCH * WINDOW - 1      # the last window is short: micro-batches of 2 and 1
RANK, ALPHA, RATE, DECAY, BETA = 8, 16, 1e-3, 0.1, 0.1
STRATEGIES = ["local", "mid", "global", "full"]
# Absolute, but where a second figure says which share of the value is added.
LIMITS = {"loss": (5e-6, 0), "rewards/chosen": (5e-5, 0), "rewards/rejected": (5e-5, 0),
          "rewards/margins": (5e-5, 0), "rewards/accuracies": (1e-6, 0),
          "logps/chosen": (5e-5 / BETA, 0), "logps/rejected": (5e-5 / BETA, 0),
          "logits/chosen": (5e-5, 0), "logits/rejected": (5e-5, 0), "entropy": (5e-5, 0),
          "mean_token_accuracy": (1e-6, 0), "grad_norm": (1e-6, 1e-4),
          "learning_rate": (1e-9, 0), "num_tokens": (0, 0), "epoch": (1e-9, 0)}
CHANGE = {"B": 1e-4, "A": 1e-3}
FAULTS = {"lr = 0": "train.learning_rate=0", "beta 1 % larger": f"train.beta={BETA * 1.01}",
          "weight decay 0": "train.weight_decay=0"}


class Run:
    """What one training logged and made."""

    def __init__(self, log, adapter):
        self.log, self.adapter = log, adapter


def adapter_settings(model, strategy, dropout):
    count = model.config.num_hidden_layers
    layers = list(range(count)) if strategy == "full" else block_layers(count, strategy)
    return LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, bias="none",
                      task_type="CAUSAL_LM", layers_to_transform=layers,
                      target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])


def shifted(collate):
    """A collator whose completions begin with the last token of the prompt."""
    def collate_shifted(rows):
        inputs = collate(rows)
        mask = inputs["completion_mask"].clone()
        mask[:, :-1] |= inputs["completion_mask"][:, 1:]
        return {**inputs, "completion_mask": mask}
    return collate_shifted


def oracle_run(family, strategy, dtype, start, pairs=PAIRS, shift_mask=False, dropout=0.05,
               masks=None, data=DATA / "train.jsonl", **changes):
    """TRL's run; in fp32 it draws the adapter and writes it to `start`, in fp64 it reads that.

    masks (masks.Masks): take the place of PEFT's own, where disable_dropout is false."""
    rows = Dataset.from_list(read_lines(data))
    rows = rows.shuffle(seed=SEED).select(range(pairs))
    model = load_model(MODELS / family, dtype)
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": WINDOW,
            "num_train_epochs": 1.0, "learning_rate": RATE, "weight_decay": DECAY,
            "lr_scheduler_type": "linear", "max_grad_norm": 1.0, "beta": BETA,
            "max_length": 2048, "seed": SEED, "logging_steps": 1, "bf16": False,
            "gradient_checkpointing": False}
        config = DPOConfig(output_dir=scratch, use_cpu=True, report_to="none", save_strategy="no",
                           disable_tqdm=True, dataloader_pin_memory=False,
                           **{**settings, **changes})
        torch.manual_seed(SEED)
        trainer = PlainTrainer(model=model, args=config, train_dataset=rows,
                               processing_class=load_tokenizer(MODELS / family),
                               peft_config=adapter_settings(model, strategy, dropout))
        trainer.remove_callback(PrinterCallback)
        if shift_mask:
            trainer.data_collator = shifted(trainer.data_collator)
        if dtype == torch.float32:
            write_adapter(start, trainer.model)
        load_adapter(trainer, start)
        if masks:
            masks.install(trainer)
        trainer.train()
        return Run(training_log(trainer), adapter_of(trainer))


def our_run(check, family, strategy, start, scratch, *changes, pairs=PAIRS,
            data=DATA / "train.jsonl"):
    out = scratch / "ours"
    settings = {"data.train_samples": pairs, "train.batch_size": BATCH,
                "train.gradient_accumulation": WINDOW, "train.learning_rate": RATE,
                "train.weight_decay": DECAY, "train.beta": BETA, "train.lora_rank": RANK,
                "train.lora_alpha": ALPHA, "train.precision": '"fp32"'}
    given = [f"{key}={value}" for key, value in settings.items()]
    sets = [part for value in [*given, *changes] for part in ("--set", value)]
    check.attempt("train", "--model", MODELS / family, "--strategy", strategy, "--data",
                  data, "--out", out, "--init-adapter", start,
                  "--metrics", scratch / "metrics.jsonl", *sets)
    return Run(read_lines(scratch / "metrics.jsonl"), load_file(out / "adapter_model.safetensors"))


def log_errors(mine, theirs):
    """Per figure the largest difference over all steps, and the limit at that step."""
    if len(mine.log) != len(theirs.log) or not mine.log:
        raise Failure(f"{len(mine.log)} steps, the oracle made {len(theirs.log)}")
    unknown = {key for entry in theirs.log for key in entry} - set(LIMITS) - {"step"}
    if unknown:
        raise Failure(f"TRL logs {sorted(unknown)}, which nothing compares")
    errors = {}
    for name, (absolute, relative) in LIMITS.items():
        pairs = [(abs(a[name] - b[name]), absolute + relative * abs(b[name]))
                 for a, b in zip(mine.log, theirs.log, strict=True)]
        errors[name] = max(pairs, key=lambda pair: pair[0] - pair[1])
    return errors


def change_errors(mine, theirs, start):
    """The largest relative difference of a tensor's change, for A and for B."""
    errors = dict.fromkeys(CHANGE, 0.0)
    if sorted(mine.adapter) != sorted(theirs.adapter):
        raise Failure("other tensors than the oracle's")
    for name, tensor in theirs.adapter.items():
        first = start[name].double()
        gap = (mine.adapter[name].double() - tensor.double()).norm()
        change = (tensor.double() - first).norm()
        part = "A" if ".lora_A." in name else "B"
        errors[part] = max(errors[part], (gap / change).item())
    return errors


def all_errors(mine, theirs, start):
    """{figure: (error, limit)}"""
    changes = change_errors(mine, theirs, start)
    return {**log_errors(mine, theirs),
            **{f"change of {part}": (changes[part], CHANGE[part]) for part in CHANGE}}


def above(errors):
    return {name: error for name, error in errors.items() if not error[0] <= error[1]}


def judge(mine, single, start, arbiter, name):
    """Errors with their limits, widened by the arbiter where that is needed."""
    errors = all_errors(mine, single, start)
    if not above(errors):
        return errors
    double = arbiter()
    errors, gaps = all_errors(mine, double, start), all_errors(single, double, start)
    for figure in above(errors):
        error, limit = errors[figure]
        print(f"{name}: {figure}: {error:.2g}, limit {limit:.2g}, the oracle's own gap to fp64 "
              f"{gaps[figure][0]:.2g}", flush=True)
        if gaps[figure][0] > limit:
            errors[figure] = (error, gaps[figure][0], "widened")
    return errors


def compare_cell(check, rows, family, strategy, scratch):
    name, start = f"{family} {strategy}", scratch / "start"
    single = oracle_run(family, strategy, torch.float32, start)
    mine = our_run(check, family, strategy, start, scratch)
    first = load_file(start / "adapter_model.safetensors")
    errors = judge(mine, single, first,
                   lambda: oracle_run(family, strategy, torch.float64, start), name)
    for figure, (error, limit, *widened) in errors.items():
        with rows[figure].case(name):
            if widened and error <= limit:
                rows[figure].record.setdefault("widened", []).append((name, error, limit))
            else:
                rows[figure].error(error, limit)
    with rows["step 0"].case(name):
        rows["step 0"].error(max(abs(mine.log[0][f"rewards/{what}"])
                                 for what in ("chosen", "rejected", "margins")))
    if strategy == "mid":
        wrong = {fault: (our_run(check, family, strategy, start, scratch, setting), single)
                 for fault, setting in FAULTS.items()}
        wrong["mask one token early"] = (mine, oracle_run(family, strategy, torch.float32, start,
                                                          shift_mask=True))
        for fault, (ours, theirs) in wrong.items():
            with rows["faults"].case(f"{name}: {fault}"):
                bad = above(all_errors(ours, theirs, first))
                bad.pop("learning_rate", None)      # the log's rate alone would be no proof
                if not bad:
                    raise Failure("the comparison does not tell it apart")


def main():
    check = Check(__doc__.split("\n")[0])
    disable_caching()
    names = {**{figure: f"DPO, {figure}" for figure in LIMITS},
             **{f"change of {part}": f"DPO, change of {part} after {STEPS} steps"
                for part in CHANGE}}
    rows = {figure: check.row(name, (LIMITS.get(figure) or (CHANGE[figure[-1]],))[0])
            for figure, name in names.items()}
    rows["grad_norm"].record["limit"] = "1e-4 of it"
    rows["step 0"] = check.row("DPO, rewards at step 0", 0.0)
    rows["faults"] = check.row("DPO, planted faults that are caught")
    with scratch_folder() as scratch:
        for family in FAMILIES:
            for strategy in STRATEGIES:
                if check.wanted(f"{family} {strategy}"):
                    compare_cell(check, rows, family, strategy, scratch)
    check.finish()


if __name__ == "__main__":
    main()
