"""Logits, log-probabilities and greedy continuations of a bare demo model."""

import torch

from . import cases, files
from .models import gap, load_model, load_tokenizer, precision

LAST_POSITIONS = 4
NEW_TOKENS = 48


@torch.no_grad()
def logits_of(model, ids):
    with precision(model.dtype):
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def target_logps(logits, ids):
    """log p(ids[t+1] | ids[0..t]) for every t but the last."""
    logps = torch.log_softmax(logits[:-1], dim=-1)
    return logps.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)


def make_logits(model, arbiter, tokenizer, out_dir):
    """logits.json and logits.safetensors."""
    records, tensors = [], {}
    for index, prompt in enumerate(cases.LOGIT_PROMPTS):
        ids = tokenizer(prompt)["input_ids"]
        logits, exact = logits_of(model, ids), logits_of(arbiter, ids)
        logps, exact_logps = target_logps(logits, ids), target_logps(exact, ids)
        tensors[f"prompt{index}.last_logits"] = logits[-LAST_POSITIONS:]
        tensors[f"prompt{index}.target_logps"] = logps
        records.append({"text": prompt, "ids": ids, "largest_logit": logits.abs().max().item(),
                        "gap_logits": gap(logits, exact), "gap_logps": gap(logps, exact_logps)})
    files.write_json(out_dir / "logits.json",
                     {"last_positions": LAST_POSITIONS, "prompts": records})
    files.write_tensors(out_dir / "logits.safetensors", tensors)


def greedy(model, ids, end_ids):
    """New ids, and at each step the lead of the best logit over the second best."""
    ids, new, leads = list(ids), [], []
    while len(new) < NEW_TOKENS and (not new or new[-1] not in end_ids):
        best = logits_of(model, ids)[-1].topk(2)
        new.append(best.indices[0].item())
        leads.append((best.values[0] - best.values[1]).item())
        ids.append(new[-1])
    return new, leads


def make_greedy(model, arbiter, tokenizer, out_dir):
    """greedy.json: continuations until an end token of generation_config.json or the limit."""
    end = model.generation_config.eos_token_id
    end_ids = end if isinstance(end, list) else [end]
    records = []
    for prompt in cases.GREEDY_PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        new, leads = greedy(model, ids, end_ids)
        exact, exact_leads = greedy(arbiter, ids, end_ids)
        same = next((i for i, (a, b) in enumerate(zip(new, exact)) if a != b), len(new))
        records.append({"text": prompt, "ids": ids, "new_ids": new, "leads": leads,
                        "smallest_lead": min(leads), "fp64_agrees_for": same,
                        "gap_leads": gap(leads[:same], exact_leads[:same]),
                        "decoded": tokenizer.decode(new)})
    files.write_json(out_dir / "greedy.json", {"new_tokens": NEW_TOKENS, "end_ids": end_ids,
                                               "prompts": records})


def make(model_dir, out_dir):
    model, arbiter = load_model(model_dir, torch.float32), load_model(model_dir, torch.float64)
    tokenizer = load_tokenizer(model_dir)
    make_logits(model, arbiter, tokenizer, out_dir)
    make_greedy(model, arbiter, tokenizer, out_dir)
