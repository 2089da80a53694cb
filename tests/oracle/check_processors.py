"""The distribution that a token is drawn from against Transformers' logits processors: random
settings over vocabularies up to 151,936, with ties, -inf and rows that are all equal.

top_p adds up the oracle's fp32 softmax, which over many tokens is off by more than one of them;
where a case is above the limit, its run in fp64 is what counts, and how many these are is said.
"""

import json
import random
import subprocess

import torch

from common import Check, Failure, scratch_folder
from oracle.processors import distribution, draw_case, draw_logits

LIMIT = 1e-6
CASES = {7: 150, 512: 150, 32_000: 100, 151_936: 40}      # per vocabulary


def ask(program, case, logits, scratch):
    path = scratch / "logits"
    path.write_bytes(logits.numpy().tobytes())
    line = json.dumps({**case, "vocabulary": len(logits), "logits": str(path)}) + "\n"
    done = subprocess.run([program], input=line, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failure(done.stderr.strip())
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float64)


def difference(got, want, tied):
    """Of the ids among which a sort chose, the sum is compared."""
    gap = got - want
    chosen = torch.zeros(len(gap), dtype=torch.bool)
    chosen[tied] = True
    return max(gap[~chosen].abs().max().item() if (~chosen).any() else 0.0,
               gap[chosen].sum().abs().item())


def main():
    check = Check(__doc__.split("\n")[0])
    program = check.args.program.parent / "tests" / "oracle" / "next_token"
    row = check.row("next-token distributions, random settings", LIMIT)
    draw, arbiter = random.Random(7), 0
    with scratch_folder() as scratch:
        for vocabulary, count in CASES.items():
            for number in range(count):
                case = draw_case(draw, vocabulary)
                logits = draw_logits(draw, vocabulary, number)
                if vocabulary < 10:
                    case["eos"] = case["eos"][:1]      # an id must be left
                name = f"{vocabulary} ids, case {number}"
                if not check.wanted(name):
                    continue
                with row.case(f"{name}: {case['settings']}"):
                    got = ask(program, case, logits, scratch)
                    gap = difference(got, *distribution(case, logits))
                    if gap > LIMIT:
                        gap = difference(got, *distribution(case, logits.double()))
                        arbiter += 1
                    row.error(gap)
    print(f"{arbiter} cases were decided by the oracle's run in fp64")
    check.finish()


if __name__ == "__main__":
    main()
