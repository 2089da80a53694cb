"""Answers by vLLM, where it can be imported: one JSON line, as tests/bench/generate_hf.py prints.

All variants are one engine with un-merged adapters, its way of serving several; ends are ignored.
Loading and a first short answer, which captures its graphs, are not counted.
"""

import argparse
import json
import pathlib
import time
from importlib.metadata import version

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--adapters", type=pathlib.Path, required=True, help="a PEFT folder each")
    parser.add_argument("--variants", required=True, help="base,local,...")
    parser.add_argument("--prompts", type=pathlib.Path, required=True, help="{\"prompt\"} rows")
    parser.add_argument("--new-tokens", type=int, required=True)
    args = parser.parse_args()
    variants = args.variants.split(",")
    with open(args.prompts, encoding="utf-8") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    engine = LLM(model=str(args.model), dtype="bfloat16", enable_lora=len(variants) > 1,
                 max_lora_rank=16, max_loras=max(len(variants) - 1, 1), max_model_len=4096)
    lora = [None if name == "base" else
            LoRARequest(name, index + 1, str(args.adapters / name))
            for index, name in enumerate(variants)]
    engine.generate(prompts[:2], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
    settings = SamplingParams(temperature=0, max_tokens=args.new_tokens, ignore_eos=True)
    start = time.perf_counter()
    answers = engine.generate(prompts * len(variants), settings,
                              lora_request=[one for one in lora for _ in prompts])
    wall = time.perf_counter() - start
    if any(len(answer.outputs[0].token_ids) != args.new_tokens for answer in answers):
        raise SystemExit("an answer ended early")
    print(json.dumps({"batch": len(answers), "wall": wall, "versions": {"vllm": version("vllm")}}))


if __name__ == "__main__":
    main()
