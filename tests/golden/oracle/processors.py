"""The next-token distribution after Transformers' logits processors and warpers, in its order.

The softmax in the end is taken in fp64: over 25,000 tokens that of fp32 sums to 1.00001.
"""

import functools
import random

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from . import files

SEED = 17
VOCABULARY = 48
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0,
       "min_new_tokens": 0}


@functools.cache
def bare_model():
    """generate() makes the list of processors as a method of a model."""
    return LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8,
                                        num_hidden_layers=1, num_attention_heads=1))


def processors(case, prompt_length):
    settings = {**OFF, **case["settings"]}
    greedy = settings["temperature"] == 0
    config = GenerationConfig(
        do_sample=not greedy, temperature=None if greedy else float(settings["temperature"]),
        top_k=settings["top_k"], top_p=float(settings["top_p"]),
        repetition_penalty=float(settings["repetition_penalty"]),
        min_new_tokens=settings["min_new_tokens"], eos_token_id=case["eos"] or None, pad_token_id=0)
    bare_model()._prepare_special_tokens(config, device="cpu")
    return bare_model()._get_logits_processor(config, prompt_length, device="cpu"), greedy


def distribution(case, logits):
    """(probabilities, the ids among which a sort chose) for one row of logits."""
    chain, greedy = processors(case, len(case["ids"]) - case["new"])
    ids = torch.tensor([case["ids"]], dtype=torch.long).reshape(1, -1)
    scores = chain(ids, logits.clone()[None])[0]
    if greedy:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).double(), []
    # top_p cuts a sorted list: which of equal values go is up to the sort.
    before = [processor for processor in chain if type(processor).__name__ != "TopPLogitsWarper"]
    uncut = logits.clone()[None]
    for processor in before:
        uncut = processor(ids, uncut)
    gone = torch.isinf(scores) & ~torch.isinf(uncut[0])
    kept = ~torch.isinf(scores)
    tied = []
    if gone.any() and uncut[0][gone].max() == uncut[0][kept].min():
        tied = (uncut[0] == uncut[0][gone].max()).nonzero()[:, 0].tolist()
    return scores.double().softmax(-1), tied


def draw_settings(draw):
    return {"temperature": draw.choice([1.0, 1.0, 0.6, 0.7, 1.3, 2.5, 0.01]),
            "top_k": draw.choice([0, 0, 1, 5, 20, 50, 10_000_000]),
            "top_p": draw.choice([1.0, 1.0, 0.95, 0.9, 0.8, 0.5, 0.1, 1e-6]),
            "repetition_penalty": draw.choice([1.0, 1.0, 1.05, 1.3, 5.0, 0.7]),
            "min_new_tokens": draw.choice([0, 0, 3])}


def draw_logits(draw, vocabulary, seed):
    """Kinds of rows: smooth, sharp, with ties, with -inf, all equal, powers of two."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(vocabulary, generator=generator)
    kind = draw.choice(["smooth", "sharp", "ties", "inf", "equal", "halves", "negative"])
    if kind == "sharp":
        row = row * 12
    elif kind == "ties":
        row = (row * 2).round()
    elif kind == "inf":
        row = row * 3
        row[torch.rand(vocabulary, generator=generator) < 0.6] = -torch.inf
        row[vocabulary // 3] = 0.25
    elif kind == "equal":
        row = torch.full((vocabulary,), 0.5)
    elif kind == "halves":      # probabilities 1/2, 1/4, ...: cuts fall on the limit exactly
        row = -torch.arange(vocabulary, dtype=torch.float32).clamp(max=20) * torch.tensor(2.0).log()
    elif kind == "negative":
        row = row - 40
    return row


def draw_case(draw, vocabulary):
    ids = [draw.randrange(vocabulary) for _ in range(draw.randrange(3, 12))]
    return {"settings": draw_settings(draw), "ids": ids + ids[:3], "new": draw.choice([0, 2, 3]),
            "eos": draw.choice([[], [1], [2, 5, 7]])}


# Each with (a change of OFF, logits), which random settings would hardly meet.
CORNERS = [
    ({"top_p": 0.9}, [0.0] * 10),                         # 1 - 0.9 is below 0.1, but not in fp32
    ({"top_p": 0.75}, [0.0] * 4),
    ({"top_p": 0.5}, [1.0, 1.0]),
    ({"top_p": 1.0, "top_k": 3}, [1.0, 1.0, 1.0, 1.0, 0.0]),
    ({"top_k": 1000}, [3.0, -1.0, 2.0]),
    ({"top_k": 3}, [None, None, 1.0, None]),              # fewer finite values than k
    ({"top_p": 0.3}, [None, 2.0, None]),
    ({"temperature": 1e-6}, [1.0, 1.0001, -5.0, 1.0001]),
    ({"temperature": 1e-30}, [1.0, 2.0, -3.0]),
    ({"temperature": 1e6}, [10.0, -10.0, 0.0]),
    ({"temperature": 0.5, "top_p": 0.6, "top_k": 4}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    ({"repetition_penalty": 2.0}, [3.0, -3.0, 0.0, None]),
    ({"min_new_tokens": 4}, [9.0, 8.0, 1.0]),
    ({"temperature": 0, "repetition_penalty": 3.0}, [3.0, 2.9, -1.0, 2.9]),
    ({"temperature": 0, "min_new_tokens": 4}, [9.0, 8.0, 8.0]),
]


def corner(change, values):
    case = {"settings": {**OFF, **change}, "ids": [0, 1, 0, len(values) - 1], "new": 1,
            "eos": [0] if len(values) == 3 else []}
    return case, torch.tensor([-torch.inf if value is None else value for value in values])


def describe(case, logits):
    probabilities, tied = distribution(case, logits)
    return {**case, "logits": [None if value == -torch.inf else value for value in logits.tolist()],
            "probabilities": probabilities.tolist(), "tied": tied}


def make(out_dir):
    draw = random.Random(SEED)
    cases = [describe(*corner(*item)) for item in CORNERS]
    for number in range(60):
        case = draw_case(draw, VOCABULARY)
        cases.append(describe(case, draw_logits(draw, VOCABULARY, number)))
    files.write_json(out_dir / "processors.json", {"cases": cases})
