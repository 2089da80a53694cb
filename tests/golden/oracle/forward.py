"""Logits, log-probabilities and greedy continuations of a bare demo model."""

import torch

from . import cases, files
from .models import gap, load_model, load_tokenizer, precision

LAST_POSITIONS = 4
NEW_TOKENS = 48
WHOLE_TOKENS = 256
NEAR_TIE = 1e-4      # between the two best logits: from there on an answer may differ


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


@torch.no_grad()
def generate_batch(model, prompts, end_ids, new_tokens, **settings):
    """model.generate on prompts (ids) of unequal lengths, padded on the left.

    Per prompt the new ids, the end token included, and the lead of the best processed score at each.
    """
    width = max(map(len, prompts))
    padded = torch.tensor([[end_ids[0]] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    made = model.generate(input_ids=padded, attention_mask=mask, max_new_tokens=new_tokens,
                          do_sample=False, temperature=None, top_p=None, top_k=None,
                          eos_token_id=end_ids, pad_token_id=end_ids[0], output_scores=True,
                          return_dict_in_generate=True, **settings)
    best = torch.stack(made.scores, dim=1).topk(2, dim=-1).values
    answers = []
    for row, leads in zip(made.sequences[:, width:].tolist(), best[..., 0] - best[..., 1]):
        stop = next((i + 1 for i, token in enumerate(row) if token in end_ids), len(row))
        answers.append((row[:stop], leads[:stop].tolist()))
    return answers


def near_tie(leads):
    """The first position whose two best scores are closer than NEAR_TIE; None: there is none."""
    return next((index for index, lead in enumerate(leads) if lead < NEAR_TIE), None)


def make_whole(model, prompts, end_ids):
    """All prompts in one batch, WHOLE_TOKENS each: end tokens are kept from coming."""
    answers = generate_batch(model, prompts, end_ids, WHOLE_TOKENS, min_new_tokens=WHOLE_TOKENS)
    return [{"new_ids": new, "smallest_lead": min(leads), "near_tie": near_tie(leads)}
            for new, leads in answers]


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
    files.write_json(out_dir / "greedy.json", {
        "new_tokens": NEW_TOKENS, "end_ids": end_ids, "prompts": records,
        "whole": make_whole(model, [record["ids"] for record in records], end_ids)})


def make(model_dir, out_dir):
    model, arbiter = load_model(model_dir, torch.float32), load_model(model_dir, torch.float64)
    tokenizer = load_tokenizer(model_dir)
    make_logits(model, arbiter, tokenizer, out_dir)
    make_greedy(model, arbiter, tokenizer, out_dir)
