"""LoRA dropout in DPO against TRL and PEFT with the same masks: two epochs in fp32.

PEFT's lora_dropout modules get the engine's masks, computed by masks.py from their definition: then
every figure and the adapter's change agree within the limits of check_dpo.py. TRL by itself drops a
prompt once for each answer, the engine alike for both; masks.py drops as the engine does. With PEFT's
own masks an answer's log-probs have the same mean and spread over many draws.
"""

import json
import math
import shutil
import statistics

import torch
from datasets import disable_caching
from safetensors.torch import load_file, save_file

from check_dpo import above, all_errors, judge, oracle_run, our_run
from common import DATA, FAMILIES, ROOT, Check, Failure, read_lines, scratch_folder, write_lines
from masks import Masks
from oracle.cases import BLOCK_OF_FAMILY

PAIRS, EPOCHS, SHARE, SEED = 19, 2, 0.1, 2**32 + 5      # five steps in each epoch
STRATEGIES = {"llama-2-demo": "local", "llama-3.1-demo": "full", "qwen2.5-demo": "global",
              "qwen3-demo": "mid"}
SETTINGS = {"train.epochs": EPOCHS, "train.disable_dropout": "false", "train.lora_dropout": SHARE,
            "train.dropout_seed": SEED}
# Draws of the masks over the same four pairs: an epoch each, nothing learnt.
DRAWS, DRAWN_PAIRS, DRAWN_SHARE = 150, 4, 0.3
SPREAD_FAMILY = "qwen3-demo"


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
                          dropout=SHARE, masks=Masks(SHARE, SEED, **faults),
                          num_train_epochs=EPOCHS, disable_dropout=False)

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


def drawn(run):
    """Per side the answers' log-probs of each draw."""
    return {side: [entry[f"logps/{side}"] for entry in run.log] for side in ("chosen", "rejected")}


def apart(a, b):
    """How far two samples are apart in mean and in spread: 1 is four standard errors."""
    mean = abs(statistics.fmean(a) - statistics.fmean(b))
    error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / DRAWS)
    spread = abs(math.log(statistics.stdev(a) / statistics.stdev(b)))
    return max(mean / error, spread / math.sqrt(1 / DRAWS)) / 4


def compare_draws(check, row, scratch):
    golden = ROOT / "tests" / "golden" / SPREAD_FAMILY / "adapter-random"
    block, start, data = BLOCK_OF_FAMILY[SPREAD_FAMILY], scratch / "drawn", scratch / "unique.jsonl"
    shutil.copytree(golden, start)
    tensors = load_file(start / "adapter_model.safetensors")
    save_file({name: tensor * (10 if ".lora_B." in name else 1)
               for name, tensor in tensors.items()}, start / "adapter_model.safetensors")
    config = json.loads((start / "adapter_config.json").read_text())

    def ours(share):
        (start / "adapter_config.json").write_text(json.dumps({**config, "lora_dropout": share}))
        return drawn(our_run(check, SPREAD_FAMILY, block, start, scratch,
                             *given(epochs=DRAWS, lora_dropout=share, learning_rate=0),
                             pairs=DRAWN_PAIRS, data=data))

    theirs = drawn(oracle_run(SPREAD_FAMILY, block, torch.float64, start, DRAWN_PAIRS, data=data,
                              dropout=DRAWN_SHARE, num_train_epochs=DRAWS, learning_rate=0.0,
                              disable_dropout=False))
    mine, less = ours(DRAWN_SHARE), ours(DRAWN_SHARE / 2)
    for side, sums in mine.items():
        with row.case(f"{SPREAD_FAMILY}: {side}"):
            if len(sums) != DRAWS or len(theirs[side]) != DRAWS:
                raise Failure(f"{len(sums)} and {len(theirs[side])} draws")
            if apart(less[side], theirs[side]) <= 1:
                raise Failure("half the share is not told apart")
            row.error(apart(sums, theirs[side]))


def main():
    check = Check(__doc__.split("\n")[0])
    disable_caching()
    rows = {"figures": check.row("dropout, largest share of a figure's limit", 1.0),
            "step 0": check.row("dropout, rewards at step 0", 0.0),
            "config": check.row("dropout, lora_dropout in adapter_config.json"),
            "faults": check.row("dropout, planted faults that are caught"),
            "draws": check.row("dropout, mean and spread over PEFT's own masks, in 4 errors", 1.0)}
    with scratch_folder() as scratch:
        write_data(scratch / "unique.jsonl")
        for family in FAMILIES:
            if check.wanted(f"{family} {STRATEGIES[family]}"):
                compare(check, rows, family, scratch)
        if check.wanted("draws"):
            compare_draws(check, rows["draws"], scratch)
    check.finish()


if __name__ == "__main__":
    main()
