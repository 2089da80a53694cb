"""Four strategies of one model trained in one job against each in a job of its own.

Adapters must be the same bytes. Predicted is the ratio of the operations that the jobs count; the
references of the pairs are computed once in the common job and once in every other.
"""

import argparse
import pathlib
import sys
import tempfile

from dpo_compare import Bench

STRATEGIES = ["local", "mid", "global", "full"]


def adapters(folder):
    """{path: bytes} of what a job made."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("adapter_model.safetensors")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=pathlib.Path, required=True, help="ha-attempt")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="hh-rlhf JSON Lines")
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--by", choices=["wall", "processor"], default="wall")
    args = parser.parse_args()
    args.program, args.data = args.program.resolve(), args.data.resolve()
    with tempfile.TemporaryDirectory(prefix="ha-bench-") as scratch:
        bench = Bench(args, scratch)
        print(f"{'':24} {'wall s':>9} {'proc. s':>9} {'TFLOP':>9}")

        def row(label, result):
            print(f"{label:24} {result.wall:9.1f} {result.processor:9.1f} "
                  f"{result.flops / 1e12:9.2f}", flush=True)
            return result
        together = row("one job", bench.ours(STRATEGIES, "together", args.pairs))
        alone = [row(f"{strategy} alone", bench.ours([strategy], strategy, args.pairs))
                 for strategy in STRATEGIES]
        made = [data for strategy in STRATEGIES for data in adapters(bench.scratch / strategy).values()]
        if sorted(made) != sorted(adapters(bench.scratch / "together").values()) or not made:
            sys.exit("the adapters of the common job are not those of the jobs alone")
        times = [result.seconds(args.by) for result in [together, *alone]]
    print(f"adapters equal; predicted by operations "
          f"{sum(result.flops for result in alone) / together.flops:.2f}")
    print(f"lockstep ratio {sum(times[1:]) / times[0]:.2f}")


if __name__ == "__main__":
    main()
