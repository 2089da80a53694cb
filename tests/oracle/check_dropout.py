"""LoRA dropout in DPO against TRL and PEFT with the same masks: two epochs in fp32.

PEFT's lora_dropout modules get the engine's masks, computed by masks.py from their definition: then
every figure and the adapter's change agree within the limits of check_dpo.py. TRL by itself drops a
prompt once for each answer, the engine alike for both; masks.py drops as the engine does.
"""

import json

import torch
from datasets import disable_caching
from safetensors.torch import load_file

from check_dpo import above, all_errors, judge, oracle_run, our_run
from common import DATA, FAMILIES, Check, Failure, read_lines, scratch_folder, write_lines
from masks import Masks

PAIRS, EPOCHS, SHARE, SEED = 19, 2, 0.1, 2**32 + 5      # five steps in each epoch
STRATEGIES = {"llama-2-demo": "local", "llama-3.1-demo": "full", "qwen2.5-demo": "global",
              "qwen3-demo": "mid"}
SETTINGS = {"train.epochs": EPOCHS, "train.disable_dropout": "false", "train.lora_dropout": SHARE,
            "train.dropout_seed": SEED}


def given(**changes):
    values = {**SETTINGS, **{f"train.{key}": value for key, value in changes.items()}}
    return [f"{key}={value}" for key, value in values.items()]


def write_data(path):
    """The demo data without pairs that have a text in common: a row must tell its pair."""
    seen, lines = set(), []
    for line in read_lines(DATA / "train.jsonl"):
        texts = {line["chosen"], line["rejected"]}
        if len(texts) == 2 and not texts & seen:
            lines.append(line)
            seen |= texts
    return write_lines(path, lines)


def compare(check, rows, family, scratch):
    strategy, data, start = STRATEGIES[family], scratch / "unique.jsonl", scratch / "start"
    name = f"{family} {strategy}"

    def oracle(dtype, **faults):
        return oracle_run(family, strategy, dtype, start, PAIRS, data=data,
                          masks=Masks(SHARE, SEED, **faults), num_train_epochs=EPOCHS,
                          disable_dropout=False)

    def ours(**changes):
        return our_run(check, family, strategy, start, scratch, *given(**changes), pairs=PAIRS,
                       data=data)

    single, mine = oracle(torch.float32), ours()
    first = load_file(start / "adapter_model.safetensors")
    with rows["figures"].case(name):
        errors = judge(mine, single, first, lambda: oracle(torch.float64), name)
        if above(errors):
            raise Failure(", ".join(f"{figure} {error[0]:.2g}, limit {error[1]:.2g}"
                                    for figure, error in above(errors).items()))
        rows["figures"].error(max(error[0] / error[1] for error in errors.values()
                                  if error[1] > 0))
    with rows["step 0"].case(name):
        rows["step 0"].error(max(abs(mine.log[0][f"rewards/{what}"])
                                 for what in ("chosen", "rejected", "margins")))
    with rows["config"].case(name):
        config = json.loads((scratch / "ours" / "adapter_config.json").read_text())
        if config["lora_dropout"] != SHARE:
            raise Failure(f"adapter_config.json says {config['lora_dropout']}")
    if family != "qwen3-demo":
        return
    wrong = {"another seed": (ours(dropout_seed=SEED + 1), single),
             "the seed's low word": (ours(dropout_seed=SEED % 2**32), single),
             "nothing dropped": (ours(disable_dropout="true"), single),
             "the same masks in each epoch": (mine, oracle(torch.float32, ignore_epoch=True)),
             "prompts dropped apart": (mine, oracle(torch.float32, sides_apart=True))}
    for fault, (a, b) in wrong.items():
        with rows["faults"].case(f"{name}: {fault}"):
            if not above(all_errors(a, b, first)):
                raise Failure("the comparison does not tell it apart")


def main():
    check = Check(__doc__.split("\n")[0])
    disable_caching()
    rows = {"figures": check.row("dropout, largest share of a figure's limit", 1.0),
            "step 0": check.row("dropout, rewards at step 0", 0.0),
            "config": check.row("dropout, lora_dropout in adapter_config.json"),
            "faults": check.row("dropout, planted faults that are caught")}
    with scratch_folder() as scratch:
        write_data(scratch / "unique.jsonl")
        for family in FAMILIES:
            if check.wanted(f"{family} {STRATEGIES[family]}"):
                compare(check, rows, family, scratch)
    check.finish()


if __name__ == "__main__":
    main()
