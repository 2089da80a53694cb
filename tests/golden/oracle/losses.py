"""The DPO loss family: TRL's own _compute_loss on made-up logits, and its trainer on a demo model."""

import contextlib
import tempfile
from collections import defaultdict
from types import SimpleNamespace

import torch
from trl import DPOTrainer

from . import dpo, files

# Vocabulary, spread of the logits, and pairs as (prompt, chosen, rejected) tokens. One side has no
# tokens; one prompt is empty, so that the first token of its completions is counted but not scored.
VOCABULARY = 7
SPREAD = 1.5
LENGTHS = [(2, 3, 2), (1, 1, 4), (3, 5, 1), (0, 2, 3), (2, 2, 0)]
BETA = 0.3
SEED = 11

PLAIN = {"loss_type": ["sigmoid"], "loss_weights": [1.0], "label_smoothing": 0.0,
         "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5,
         "discopop_tau": 0.05, "ld_alpha": None, "use_weighting": False}

SIMPLE = ["sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "apo_zero", "apo_down", "sppo_hard",
          "discopop", "sigmoid_norm", "robust", "aot", "aot_unpaired", "sft"]
SMOOTHED = ["sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"]
WITH_SCORES = ["sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "apo_down", "sppo_hard",
               "sigmoid_norm"]


def cases():
    """Each a change of PLAIN. 0.25 is exact in fp32, where TRL makes exo_pair's constants."""
    for name in SIMPLE:
        yield {"loss_type": [name]}
    for name in SMOOTHED:
        yield {"loss_type": [name], "label_smoothing": 0.25}
    for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
        for name in WITH_SCORES:
            yield {"loss_type": [name], "f_divergence_type": divergence}
    for name in ("aot", "aot_unpaired", "apo_zero"):
        yield {"loss_type": [name], "f_divergence_type": "js_divergence"}
    for coefficient in (1.0, 1.5):
        yield {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": coefficient}
    yield {"loss_type": ["discopop"], "discopop_tau": 2.0}
    yield {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]}
    yield {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}
    yield {"loss_type": ["aot", "ipo"], "loss_weights": [0.5, 2.0], "label_smoothing": 0.25}
    for alpha in (0.0, 0.5, 1.0):
        yield {"ld_alpha": alpha}
    for name in ("ipo", "aot", "sft"):
        yield {"loss_type": [name], "ld_alpha": 0.5}
    for name in ("sigmoid", "ipo", "sppo_hard", "apo_zero"):    # hinge: TRL cannot take its gradient
        yield {"loss_type": [name], "use_weighting": True}
    yield {"loss_type": ["sigmoid", "bco_pair"], "loss_weights": [0.8, 0.2], "use_weighting": True}
    yield {"ld_alpha": 0.5, "use_weighting": True}


# For TRL's trainer, from adapter-random.
FAMILY = "qwen2.5-demo"
TRAINED = [
    *({"loss_type": [name]} for name in SIMPLE),
    {"loss_type": ["exo_pair"], "label_smoothing": 0.25},
    {"loss_type": ["robust"], "label_smoothing": 0.25},
    {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
    {"f_divergence_type": "forward_kl"},
    {"f_divergence_type": "js_divergence"},
    {"f_divergence_type": "alpha_divergence"},
    {"ld_alpha": 0.5},
    {"use_weighting": True},
]
BATCH = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
LOGGED = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins",
          "rewards/accuracies", "logps/chosen", "logps/rejected")


class Fixed(torch.nn.Module):
    """A model that says the same whatever it is asked."""

    is_gradient_checkpointing = False

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, **_):
        return SimpleNamespace(logits=self.logits)


class Alone:
    """An accelerator of one process."""

    device = "cpu"

    @staticmethod
    def gather(value):
        return value

    gather_for_metrics = gather


def stand_in(settings, model, reference):
    """What _compute_loss reads of a trainer."""
    return SimpleNamespace(
        model=model, ref_model=reference, accelerator=Alone(), aux_loss_enabled=False,
        precompute_ref_logps=False, beta=BETA, ld_alpha=settings["ld_alpha"],
        loss_types=settings["loss_type"], loss_weights=settings["loss_weights"],
        label_smoothing=settings["label_smoothing"], use_weighting=settings["use_weighting"],
        f_divergence_type=settings["f_divergence_type"],
        f_alpha_divergence_coef=settings["f_alpha_divergence_coef"],
        args=SimpleNamespace(discopop_tau=settings["discopop_tau"],
                             gradient_checkpointing_kwargs=None),
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0)


def make_inputs():
    """Tokens, masks, and logits of policy and reference: chosen rows first, then rejected."""
    generator = torch.Generator().manual_seed(SEED)
    rows = [(p, c) for p, c, _ in LENGTHS] + [(p, r) for p, _, r in LENGTHS]
    width = max(prompt + answer for prompt, answer in rows)
    shape = (len(rows), width)
    inputs = {"input_ids": torch.randint(VOCABULARY, shape, generator=generator),
              "attention_mask": torch.zeros(shape, dtype=torch.long),
              "completion_mask": torch.zeros(shape, dtype=torch.long)}
    for row, (prompt, answer) in enumerate(rows):
        inputs["attention_mask"][row, :prompt + answer] = 1
        inputs["completion_mask"][row, prompt:prompt + answer] = 1
    logits = [SPREAD * torch.randn(*shape, VOCABULARY, generator=generator, dtype=torch.float64)
              for _ in range(2)]
    return inputs, *logits


def by_token(inputs, values):
    """The scored tokens of each row of (2B, L - 1) values."""
    mask = inputs["completion_mask"][:, 1:].bool()
    return [row[wanted].tolist() for row, wanted in zip(values, mask, strict=True)]


def describe_inputs(inputs, policy, reference):
    labels = inputs["input_ids"][:, 1:, None]
    record = {}
    for name, logits in (("policy", policy), ("reference", reference)):
        shifted = logits[:, :-1].log_softmax(-1)
        record[name] = by_token(inputs, shifted.gather(-1, labels).squeeze(-1))
    shifted = policy[:, :-1]
    record["log_square"] = by_token(inputs, torch.logsumexp(2 * shifted, -1)
                                    - 2 * torch.logsumexp(shifted, -1))
    return {"completion_tokens": inputs["completion_mask"].sum(1).tolist(), **record}


def coefficients(inputs, policy, gradient):
    """d loss / d log p of each scored token, out of d loss / d logits = coefficient (onehot - p).

    Both ends of it are checked: what is left over must be nothing.
    """
    chances = policy[:, :-1].softmax(-1)
    onehot = torch.nn.functional.one_hot(inputs["input_ids"][:, 1:], VOCABULARY)
    direction = onehot - chances
    found = gradient[:, :-1].double()
    along = (found * direction).sum(-1) / direction.square().sum(-1)
    left = (found - along[..., None] * direction).abs().max().item()
    if left > 1e-6 * max(1.0, found.abs().max().item()):
        raise RuntimeError(f"a gradient is no multiple of onehot - p: {left} is left over")
    return by_token(inputs, along)


def run_case(change, inputs, policy, reference):
    settings = {**PLAIN, **change}
    settings["loss_weights"] = change.get("loss_weights", [1.0] * len(settings["loss_type"]))
    # TRL's table of alpha_divergence's bounds has no fp64.
    narrow = settings["f_divergence_type"] == "alpha_divergence"
    dtype = torch.float32 if narrow else torch.float64
    model = Fixed(policy.to(dtype).clone())
    frozen = Fixed(reference.to(dtype).clone())
    trainer = stand_in(settings, model, frozen)
    loss = DPOTrainer._compute_loss(trainer, model, dict(inputs), False)
    loss.backward()
    return {"settings": settings, "precision": "fp32" if narrow else "fp64", "loss": loss.item(),
            "coefficients": coefficients(inputs, policy, model.logits.grad)}


def train_case(change, dtype, model_dir, adapter, scratch):
    trainer = dpo.make_trainer(model_dir, FAMILY, dtype, scratch, **BATCH, **change)
    dpo.load_adapter(trainer, adapter)
    trainer.train()
    count = BATCH["gradient_accumulation_steps"]
    log = [{key: entry[key] for key in LOGGED} for entry in dpo.training_log(trainer)]
    for index, entry in enumerate(log):    # the Trainer adds them up in fp32
        micro = trainer.micro_batches[index * count:(index + 1) * count]
        entry["loss"] = sum(batch["loss"] for batch in micro) / count
    return log


def train_both(change, model_dir, adapter):
    """The fp32 run's log and, where TRL can do it, its distance to the fp64 run's."""
    record = {"settings": {**PLAIN, **change}}
    record["settings"]["loss_weights"] = change.get(
        "loss_weights", [1.0] * len(record["settings"]["loss_type"]))
    with tempfile.TemporaryDirectory() as scratch:
        single = train_case(change, torch.float32, model_dir, adapter, scratch)
        double = single
        with contextlib.suppress(KeyError):    # alpha_divergence has no fp64
            double = train_case(change, torch.float64, model_dir, adapter, scratch)
    record["steps"] = [{"log": log, "gap": {key: abs(log[key] - exact[key]) for key in log}}
                       for log, exact in zip(single, double, strict=True)]
    return record


def make(models, out_dir):
    inputs, policy, reference = make_inputs()
    files.write_json(out_dir / "losses.json", {
        "beta": BETA, "pairs": len(LENGTHS),
        "inputs": describe_inputs(inputs, policy, reference),
        "cases": [run_case(change, inputs, policy, reference) for change in cases()],
        "family": FAMILY, "training": {**dpo.SETTINGS, **BATCH},
        "trained": [train_both(change, models / FAMILY, out_dir / FAMILY / "adapter-random")
                    for change in TRAINED],
    })
