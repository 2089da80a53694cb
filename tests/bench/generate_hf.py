"""Answers by Transformers + PEFT, for generate.sh and tests/gpu: one JSON line for each batch size.

Timed is generate() alone, after a warm-up; loading, tokenisation and the start of the process are
not. Prompts are sorted by length, so that batches hold little padding; no end token is set, so that
every answer has all its tokens. The sum over the variants counts, each a model of its own.
"""

import argparse
import json
import pathlib
import resource
import time
from importlib.metadata import version

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(args, variant):
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=DTYPES[args.dtype]).eval()
    model.to(args.device)
    model.generation_config.eos_token_id = None
    if variant == "base":
        return model
    model = PeftModel.from_pretrained(model, args.adapters / variant)
    return model.merge_and_unload() if args.merged else model.eval()


def batches(ids, size, device):
    """Left-padded ids and masks."""
    for begin in range(0, len(ids), size):
        part = ids[begin:begin + size]
        width = max(map(len, part))
        rows = [[[0] * (width - len(row)) + row for row in part],
                [[0] * (width - len(row)) + [1] * len(row) for row in part]]
        yield [torch.tensor(row, device=device) for row in rows]


@torch.inference_mode()
def answer(model, ids, size, new_tokens):
    """New ids of all prompts, and wall and processor seconds."""
    answers, start = [], (time.perf_counter(), time.process_time())
    for tokens, mask in batches(ids, size, model.device):
        out = model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=new_tokens,
                             do_sample=False, eos_token_id=None, pad_token_id=0)
        answers += out[:, tokens.shape[1]:].tolist()
    return answers, time.perf_counter() - start[0], time.process_time() - start[1]


def run(args, ids, order, size):
    wall = processor = 0.0
    answers = {}
    for variant in args.variants.split(","):
        model = load(args, variant)
        answer(model, ids[:2], 2, 2)
        rows, *seconds = answer(model, ids, size, args.new_tokens)
        wall, processor = wall + seconds[0], processor + seconds[1]
        if any(len(row) != args.new_tokens for row in rows):
            raise SystemExit("an answer ended early")
        answers[variant] = [rows[order.index(i)] for i in range(len(rows))]
    peak = (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if args.device == "cpu"
            else torch.cuda.max_memory_reserved())
    print(json.dumps({"batch": size, "wall": wall, "processor": processor, "memory_peak": peak,
                      "versions": {name: version(name) for name in ("torch", "transformers",
                                                                    "peft")},
                      "answers": answers if args.answers else None}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--adapters", type=pathlib.Path, required=True, help="a PEFT folder each")
    parser.add_argument("--variants", required=True, help="base,local,...")
    parser.add_argument("--prompts", type=pathlib.Path, required=True, help="{\"prompt\"} rows")
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--batch", type=int, action="append", required=True)
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--merged", action="store_true", help="adapters added into the weights")
    parser.add_argument("--answers", action="store_true", help="print the new ids too")
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    with open(args.prompts, encoding="utf-8") as lines:
        ids = [tokenizer(json.loads(line)["prompt"])["input_ids"] for line in lines]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for size in args.batch:
        run(args, [ids[i] for i in order], order, size)


if __name__ == "__main__":
    main()
