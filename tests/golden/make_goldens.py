#!/usr/bin/env python3
"""Make the golden files of tests/golden from the demo models and the pinned oracles.

    python3 tests/golden/make_goldens.py [--family NAME ...] [--output DIRECTORY]

README.md beside this file says what is in them; make.sh installs the oracles and calls this.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import sys

# Before the oracles are imported: nothing is looked up on the network, one thread throughout.
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import datasets  # noqa: E402
import torch  # noqa: E402

from oracle import (cases, chat, dpo, forward, half, losses, probe, processors,  # noqa: E402
                    random_order, text)

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODELS = pathlib.Path("deploy/demo/models")      # relative, because PEFT writes it into its files
DATA = pathlib.Path("deploy/demo/data")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", action="append", choices=list(cases.BLOCK_OF_FAMILY),
                        help="default: all, the random orders, the chat templates and the losses")
    parser.add_argument("--output", type=lambda p: pathlib.Path(p).resolve(), default=HERE)
    return parser.parse_args()


def check_versions():
    """Golden files come from the pinned oracles or not at all."""
    pins = [line.strip() for line in (HERE / "requirements.txt").read_text().splitlines()]
    pins = [line.split("==") for line in pins if line and not line.startswith("#")]
    for name, wanted in pins:
        found = importlib.metadata.version(name)
        if found != wanted:
            sys.exit(f"{name} is {found}, but requirements.txt says {wanted}")


def make_family(family, out_dir):
    out_dir.mkdir(parents=True, exist_ok=True)
    text.make(MODELS / family, out_dir)
    forward.make(MODELS / family, out_dir)
    dpo.make(MODELS / family, family, DATA, out_dir)
    half.make(MODELS / family, family, json.loads((out_dir / "dpo.json").read_text()), out_dir)
    probe.make(MODELS / family, family, out_dir)


def main():
    args = parse_arguments()
    check_versions()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    datasets.disable_caching()
    for family in args.family or cases.BLOCK_OF_FAMILY:
        if not (MODELS / family / "config.json").is_file():
            sys.exit(f"{MODELS / family} is missing: run tests/tools/make_demo_models.py")
        print(f"{family}:", flush=True)
        make_family(family, args.output / family)
    if not args.family:
        random_order.make(args.output)
        processors.make(args.output)
        chat.make(MODELS, args.output)
        print("losses:", flush=True)
        losses.make(MODELS, args.output)


if __name__ == "__main__":
    main()
