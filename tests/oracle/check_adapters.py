"""Adapters of PEFT read by ha-attempt, adapters of ha-attempt read by PEFT."""

import json
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from common import (FAMILIES, MODELS, DATA, Check, Failure, demo_pairs, load_model, load_tokenizer,
                    logp_error, scratch_folder)
from tiny import KINDS, Form, write_model

LIMIT = 1e-5      # of the largest logit
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = ATTENTION + ["gate_proj", "up_proj", "down_proj"]
FORMS = {"all layers": {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION},
         "some layers": {"r": 8, "lora_alpha": 4, "target_modules": ATTENTION,
                         "layers_to_transform": [0, 2]},
         "one layer as a number": {"r": 2, "lora_alpha": 2, "target_modules": ["v_proj"],
                                   "layers_to_transform": 1},
         "every module": {"r": 3, "lora_alpha": 6, "target_modules": ALL},
         "all-linear": {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"},
         "rslora": {"r": 16, "lora_alpha": 8, "target_modules": ALL, "use_rslora": True},
         "layers_pattern": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"],
                            "layers_to_transform": [1, 2], "layers_pattern": "layers"},
         "dropout": {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "lora_dropout": 0.05}}
REFUSED = {"rank_pattern": {"rank_pattern": {"q_proj": 2}},
           "alpha_pattern": {"alpha_pattern": {"q_proj": 2}},
           "use_dora": {"use_dora": True},
           "modules_to_save": {"modules_to_save": ["lm_head"]}}


def make_peft(model, seed, **settings):
    torch.manual_seed(seed)
    peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, weight in peft_model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.3 / weight.shape[1])
    return peft_model.eval()


def from_peft(check, row, scratch, pairs):
    for number, (kind, (name, settings)) in enumerate(
            (kind, item) for kind in KINDS for item in FORMS.items()):
        with row.case(f"{kind}: {name}"):
            folder = write_model(scratch / "model", Form(kind, 4, head_dim=24, seed=100 + number))
            model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
            bare = check.score(folder, pairs, scratch)
            peft_model = make_peft(model, number, **settings)
            peft_model.save_pretrained(scratch / "adapter")
            lines = check.score(folder, pairs, scratch, scratch / "adapter")
            if max(abs(a["chosen"] - b["chosen"]) for a, b in zip(lines, bare)) < 0.1:
                raise Failure("the adapter changes nothing, so this shows nothing")
            row.error(logp_error(lines, peft_model, tokenizer, pairs))


def refused(check, row, scratch, pairs):
    folder = write_model(scratch / "model", Form("qwen3", 2))
    check.score(folder, pairs, scratch)
    for field, settings in REFUSED.items():
        with row.case(field):
            model = make_peft(load_model(folder, torch.float32), 1, r=4, lora_alpha=8,
                              target_modules=["q_proj", "v_proj"], **settings)
            model.save_pretrained(scratch / "refused")
            done = check.try_attempt("score", "--model", folder, "--data", scratch / "pairs.jsonl",
                                     "--adapter", scratch / "refused")
            if done.returncode == 0 or field not in done.stderr:
                raise Failure(f"not refused by its name: {done.stderr.strip()}")


def to_peft(check, row, scratch, pairs):
    for family in FAMILIES:
        for number, strategy in enumerate(["mid", "full", "0-1,4"]):
            with row.case(f"{family} {strategy}"):
                out = scratch / "trained" / family / strategy
                modules = ["q_proj", "v_proj"] if number == 2 else ATTENTION
                check.attempt("train", "--model", MODELS / family, "--strategy", strategy,
                              "--data", DATA / "train.jsonl", "--out", out,
                              "--set", "data.train_samples=16", "--set", "train.batch_size=2",
                              "--set", "train.gradient_accumulation=2",
                              "--set", "train.learning_rate=1e-2", "--set", "train.lora_rank=4",
                              "--set", f"train.target_modules={json.dumps(modules)}")
                model = load_model(MODELS / family, torch.float32)
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    peft_model = PeftModel.from_pretrained(model, out).eval()
                now = get_peft_model_state_dict(peft_model)
                for name, tensor in load_file(out / "adapter_model.safetensors").items():
                    if not torch.equal(now.pop(name), tensor):
                        raise Failure(f"{name} was not loaded")
                if now:
                    raise Failure(f"PEFT has tensors that the file has not: {sorted(now)[:3]}")
                lines = check.score(MODELS / family, pairs, scratch, out)
                row.error(logp_error(lines, peft_model, load_tokenizer(MODELS / family), pairs))


def main():
    check = Check(__doc__)
    pairs = demo_pairs("eval", 3)
    with scratch_folder() as scratch:
        from_peft(check, check.row("adapters of PEFT in ha-attempt", LIMIT), scratch, pairs)
        refused(check, check.row("adapter features refused by name"), scratch, pairs)
        to_peft(check, check.row("adapters of ha-attempt in PEFT", LIMIT), scratch, pairs)
    check.finish()


if __name__ == "__main__":
    main()
