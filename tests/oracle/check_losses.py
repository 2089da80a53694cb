"""Every loss of TRL, and what changes a loss, over a few optimizer steps in fp32.

Limits are those of check_dpo.py. AdamW has an eps of 1 here, so that it moves in proportion to the
gradient, as gradient descent with momentum does, and what a loss does to the gradient shows in the
change. With its own eps the first steps go by the sign of the gradient, and after a few of them
elements whose gradient is within rounding of zero weigh as much as others.
"""

import json

import torch
from datasets import disable_caching
from safetensors.torch import load_file

from check_dpo import judge, oracle_run, our_run
from common import Check, Failure, scratch_folder

FAMILY, STRATEGY, PAIRS = "qwen2.5-demo", "mid", 11      # three steps, the last one short
DESCENT = {"adam_epsilon": 1.0, "learning_rate": 0.1, "weight_decay": 0.0}
SMOOTH = {"label_smoothing": 0.1}
CASES = {
    "ipo": {}, "hinge": {}, "robust": SMOOTH, "exo_pair": SMOOTH, "nca_pair": {}, "bco_pair": {},
    "apo_zero": {}, "apo_down": {}, "sppo_hard": {}, "aot": SMOOTH, "aot_unpaired": SMOOTH,
    "discopop": {"discopop_tau": 0.1, "learning_rate": 3.0},      # its gradient is small
    "sigmoid_norm": {}, "sft": {},
    "sigmoid + sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    "robust without smoothing": {"loss_type": ["robust"]},
    "sigmoid, WPO": {"loss_type": ["sigmoid"], "use_weighting": True},
    "ipo, WPO": {"loss_type": ["ipo"], "use_weighting": True},
    "sigmoid, ld_alpha 0.3": {"loss_type": ["sigmoid"], "ld_alpha": 0.3},
    "sigmoid, forward KL": {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    "sigmoid, JS": {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
    "hinge, alpha": {"loss_type": ["hinge"], "f_divergence_type": "alpha_divergence",
                     "f_alpha_divergence_coef": 0.7},
    # Three of the pairs have longer prompts and are dropped; of the others most are cut.
    "sigmoid, max_length 70": {"loss_type": ["sigmoid"], "max_length": 70},
}
NAMES = {"loss_type": "loss", "f_divergence_type": "f_divergence",
         "f_alpha_divergence_coef": "f_alpha", "adam_epsilon": "eps"}


def compare(check, row, name, changes, scratch):
    changes = {"loss_type": [name], **DESCENT, **changes}
    start = scratch / "start"
    given = [f"train.{NAMES.get(key, key)}={json.dumps(value)}" for key, value in changes.items()]
    single = oracle_run(FAMILY, STRATEGY, torch.float32, start, PAIRS, **changes)
    mine = our_run(check, FAMILY, STRATEGY, start, scratch, *given, pairs=PAIRS)
    first = load_file(start / "adapter_model.safetensors")
    errors = judge(mine, single, first,
                   lambda: oracle_run(FAMILY, STRATEGY, torch.float64, start, PAIRS, **changes),
                   name)
    # Each figure as a share of its limit, so that one line can hold them all.
    bad = {figure: error for figure, error in errors.items() if not error[0] <= error[1]}
    if bad:
        raise Failure(", ".join(f"{figure} {error[0]:.2g}, limit {error[1]:.2g}"
                                for figure, error in bad.items()))
    row.error(max(error[0] / error[1] for error in errors.values() if error[1] > 0))


def main():
    check = Check(__doc__.split("\n")[0])
    disable_caching()
    row = check.row("losses, largest share of a figure's limit", 1.0)
    with scratch_folder() as scratch:
        for name, changes in CASES.items():
            if check.wanted(name):
                with row.case(name):
                    compare(check, row, name, changes, scratch)
    check.finish()


if __name__ == "__main__":
    main()
