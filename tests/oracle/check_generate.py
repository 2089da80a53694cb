"""Greedy answers against Transformers' generate, in batches of unequal prompts, up to the first
position where the oracle's two best logits nearly tie.

The demo models go on for all of 256 tokens: generate.min_new_tokens keeps end tokens and stop
strings away, in both. 95 % of the prompts must get to the end without a near tie. Then again as
answers are made by default, ending where they end, and with a repetition penalty.
"""

import json

import torch

from common import (FAMILIES, MODELS, Check, Failure, demo_pairs, load_model, load_tokenizer,
                    read_lines, scratch_folder, write_lines)
from oracle.forward import generate_batch, near_tie
from tiny import DTYPES, KINDS, Form, write_model

NEW_TOKENS = 256
STOP = "\n\nHuman:"      # the program ends an answer there
PROMPTS = 30
BATCH = 8
REACH_THE_END = 0.95      # of the prompts of the demo models


def prompt_of(pair):
    marker = "\n\nAssistant:"
    return pair["chosen"][:pair["chosen"].rindex(marker) + len(marker)]


def oracle_answers(model, tokenizer, prompts, end_ids, settings):
    """Per prompt the new ids, the end token included, and the lead of the best logit at each."""
    ids = [tokenizer(text)["input_ids"] for text in prompts]
    # The oracle's penalty falls on padding too, which here is an end token.
    batch = 1 if "repetition_penalty" in settings else BATCH
    return [answer for start in range(0, len(ids), batch)
            for answer in generate_batch(model, ids[start:start + batch], end_ids, NEW_TOKENS,
                                         **settings)]


def cut(tokenizer, ids, leads):
    """As long as the program goes on: to the token that completes the next Human turn."""
    for count in range(1, len(ids) + 1):
        if STOP in tokenizer.decode(ids[:count], skip_special_tokens=True):
            return ids[:count], leads[:count]
    return ids, leads


def compare(tokenizer, answer, ids, leads, end_ids):
    """Tokens that were compared, and whether a near tie ended that early."""
    tie = near_tie(leads)
    shown = [token for token in ids[:tie] if token not in end_ids]
    text = tokenizer.decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if tie is None and (answer["raw"] != text or answer["tokens"] not in (len(ids), len(shown))):
        raise Failure(f"{answer['tokens']} tokens {answer['raw']!r}, not {len(ids)} {text!r}")
    if tie is not None and not answer["raw"].startswith(text.rstrip("\ufffd")):
        raise Failure(f"{answer['raw']!r} does not begin with {text!r}")
    return len(shown), tie is not None


def compare_model(check, row, folder, prompts, scratch, **settings):
    """[(tokens compared, whether a near tie ended it)]; settings: of generate, in both."""
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    config = json.loads((folder / "generation_config.json").read_text())
    end = config.get("eos_token_id", [])
    end_ids = sorted({*(end if isinstance(end, list) else [end]), tokenizer.eos_token_id})
    wanted = oracle_answers(model, tokenizer, prompts, end_ids, settings)
    write_lines(scratch / "prompts.jsonl", [{"prompt": text} for text in prompts])
    given = [part for key, value in {"max_new_tokens": NEW_TOKENS, **settings}.items()
             for part in ("--set", f"generate.{key}={value}")]
    check.attempt("generate", "--model", folder, "--prompts", scratch / "prompts.jsonl",
                  "--out", scratch / "answers.jsonl", "--sequences", max(2, len(prompts) // 2),
                  *given)
    answers = {line["prompt_text"]: line for line in read_lines(scratch / "answers.jsonl")}
    done = []
    for number, (text, (ids, leads)) in enumerate(zip(prompts, wanted, strict=True)):
        with row.case(f"{folder.name} prompt {number}"):
            if "min_new_tokens" not in settings:
                ids, leads = cut(tokenizer, ids, leads)
            done.append(compare(tokenizer, answers[text], ids, leads, end_ids))
    return done


def main():
    check = Check(__doc__.split("\n\n")[0])
    prompts = [prompt_of(pair) for pair in demo_pairs("eval", PROMPTS)]
    done = []
    with scratch_folder() as scratch:
        row = check.row(f"greedy, demo models, all of {NEW_TOKENS} tokens", "equal")
        for family in FAMILIES:
            done += compare_model(check, row, MODELS / family, prompts, scratch,
                                  min_new_tokens=NEW_TOKENS)
        reach = check.row("greedy, share that a near tie cuts short", 1 - REACH_THE_END)
        with reach.case("all demo models"):
            reach.error(sum(tied for _, tied in done) / len(done))
        print(f"{sum(count == NEW_TOKENS for count, _ in done)} of {len(done)} demo prompts were "
              f"compared for all of {NEW_TOKENS} tokens", flush=True)
        row = check.row("greedy, demo models, answers that end", "equal")
        for family in FAMILIES:
            compare_model(check, row, MODELS / family, prompts[:8], scratch)
        row = check.row("greedy, demo models, repetition penalty 1.3", "equal")
        for family in FAMILIES:
            compare_model(check, row, MODELS / family, prompts[:8], scratch,
                          repetition_penalty=1.3)
        row = check.row("greedy, random models", "equal")
        for number, kind in enumerate(KINDS):
            form = Form(kind, 4, dtype=list(DTYPES)[number % 3], seed=300 + number,
                        original=64 if kind == "llama3" else 0)
            compare_model(check, row, write_model(scratch / kind, form), prompts[:8], scratch)
    check.finish()


if __name__ == "__main__":
    main()
