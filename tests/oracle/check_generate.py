"""Greedy continuations of 256 tokens on the demo models against Transformers' generate, in batches
of unequal prompts, up to the first position where the oracle's two best logits nearly tie."""

import json

import torch

from common import (FAMILIES, MODELS, Check, Failure, demo_pairs, load_model, load_tokenizer,
                    read_lines, scratch_folder, write_lines)
from tiny import DTYPES, KINDS, Form, write_model

NEW_TOKENS = 256
STOP = "\n\nHuman:"      # the program ends an answer there
NEAR_TIE = 1e-4
PROMPTS = 24
BATCH = 8
REACH_THE_END = 0.95      # of the prompts


def prompt_of(pair):
    marker = "\n\nAssistant:"
    return pair["chosen"][:pair["chosen"].rindex(marker) + len(marker)]


@torch.no_grad()
def oracle_answers(model, tokenizer, prompts, end_ids):
    """Per prompt the new ids, the end token included, and the lead of the best logit at each."""
    answers = []
    for start in range(0, len(prompts), BATCH):
        ids = [tokenizer(text)["input_ids"] for text in prompts[start:start + BATCH]]
        width = max(map(len, ids))
        padded = torch.tensor([[end_ids[0]] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        made = model.generate(input_ids=padded, attention_mask=mask, max_new_tokens=NEW_TOKENS,
                              do_sample=False, temperature=None, top_p=None, top_k=None,
                              eos_token_id=end_ids, pad_token_id=end_ids[0],
                              output_logits=True, return_dict_in_generate=True)
        best = torch.stack(made.logits, dim=1).topk(2, dim=-1).values
        for row, leads in zip(made.sequences[:, width:].tolist(), best[..., 0] - best[..., 1]):
            stop = next((i + 1 for i, token in enumerate(row) if token in end_ids), len(row))
            answers.append((row[:stop], leads[:stop].tolist()))
    return answers


def cut(tokenizer, ids, leads):
    """As long as the program goes on: to the token that completes the next Human turn."""
    for count in range(1, len(ids) + 1):
        if STOP in tokenizer.decode(ids[:count], skip_special_tokens=True):
            return ids[:count], leads[:count]
    return ids, leads


def compare(tokenizer, answer, ids, leads, end_ids):
    """Tokens that were compared, and whether a near tie ended that early."""
    tie = next((i for i, lead in enumerate(leads) if lead < NEAR_TIE), None)
    shown = [token for token in ids[:tie] if token not in end_ids]
    text = tokenizer.decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if tie is None and (answer["raw"] != text or answer["tokens"] not in (len(ids), len(shown))):
        raise Failure(f"{answer['tokens']} tokens {answer['raw']!r}, not {len(ids)} {text!r}")
    if tie is not None and not answer["raw"].startswith(text.rstrip("\ufffd")):
        raise Failure(f"{answer['raw']!r} does not begin with {text!r}")
    return len(shown), tie is not None


def compare_model(check, row, folder, prompts, scratch):
    """[(tokens compared, whether a near tie ended it)]"""
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    config = json.loads((folder / "generation_config.json").read_text())
    end = config.get("eos_token_id", [])
    end_ids = sorted({*(end if isinstance(end, list) else [end]), tokenizer.eos_token_id})
    wanted = oracle_answers(model, tokenizer, prompts, end_ids)
    write_lines(scratch / "prompts.jsonl", [{"prompt": text} for text in prompts])
    check.attempt("generate", "--model", folder, "--prompts", scratch / "prompts.jsonl",
                  "--out", scratch / "answers.jsonl", "--sequences", max(2, len(prompts) // 2),
                  "--set", f"generate.max_new_tokens={NEW_TOKENS}")
    answers = {line["prompt_text"]: line for line in read_lines(scratch / "answers.jsonl")}
    done = []
    for number, (text, (ids, leads)) in enumerate(zip(prompts, wanted, strict=True)):
        with row.case(f"{folder.name} prompt {number}"):
            ids, leads = cut(tokenizer, ids, leads)
            done.append(compare(tokenizer, answers[text], ids, leads, end_ids))
    return done


def main():
    check = Check(__doc__)
    prompts = [prompt_of(pair) for pair in demo_pairs("eval", PROMPTS)]
    done = []
    with scratch_folder() as scratch:
        row = check.row("greedy answers, demo models", "equal")
        for family in FAMILIES:
            done += compare_model(check, row, MODELS / family, prompts, scratch)
        reach = check.row("near ties that cut a demo answer short (share)", 1 - REACH_THE_END)
        with reach.case("all demo models"):
            reach.error(sum(tied for _, tied in done) / len(done))
        # Random models hardly ever end an answer before its 256 tokens.
        row = check.row("greedy answers, random models", "equal")
        for number, kind in enumerate(KINDS):
            form = Form(kind, 4, dtype=list(DTYPES)[number % 3], seed=300 + number,
                        original=64 if kind == "llama3" else 0)
            done += compare_model(check, row, write_model(scratch / kind, form), prompts[:8],
                                  scratch)
    print(f"{sum(count for count, _ in done)} tokens of {len(done)} answers compared; "
          f"{sum(count >= NEW_TOKENS - 1 for count, _ in done)} of {NEW_TOKENS} tokens")
    check.finish()


if __name__ == "__main__":
    main()
