"""One DPO training by TRL + PEFT, for dpo_compare.py and tests/gpu: prints one JSON line with its
times, losses and the most memory it took.

Timed is Trainer.train() and, in the tuned form, TRL's own pass for the cached references. Loading,
tokenisation and the start of the process are not. steps: seconds and tokens (of both answers, each
with its prompt, no padding) of every optimizer step.
"""

import argparse
import json
import logging
import pathlib
import resource
import tempfile
import time
from importlib.metadata import version

import datasets
import torch
import transformers
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import (AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback,
                          TrainerCallback)
from trl import DPOConfig, DPOTrainer

from small_model import longest, read_pairs

SEED = 42

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
datasets.disable_progress_bars()
logging.getLogger("trl").setLevel(logging.ERROR)


class Clock:
    """Wall and processor seconds of what runs inside."""

    def __init__(self):
        self.wall = self.processor = 0.0

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.wall += time.perf_counter() - self.start[0]
        self.processor += time.process_time() - self.start[1]


class StepClock(TrainerCallback):
    """Seconds of every optimizer step; the log of the step before has waited for the device."""

    def __init__(self, trainer):
        self.trainer, self.steps = trainer, []

    def on_step_begin(self, *_, **__):
        self.start, self.trainer.tokens = time.perf_counter(), []

    def on_step_end(self, *_, **__):
        tokens = sum(int(count) for count in self.trainer.tokens)
        self.steps.append((time.perf_counter() - self.start, tokens))


class TimedTrainer(DPOTrainer):
    references = Clock()
    tokens = []

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.tokens.append(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _precompute_ref_logps(self, *args, **kwargs):
        with self.references:
            return super()._precompute_ref_logps(*args, **kwargs)


def by_length(rows, tokenizer):
    """Longest first: neighbours need the least padding, and memory shows its peak at once."""
    return sorted(rows, key=lambda row: longest(row, tokenizer), reverse=True)


def settings_of(args):
    settings = {"gradient_checkpointing": True, "bf16": args.dtype == "bf16",
                "use_cpu": args.device == "cpu"}
    if args.form == "tuned":
        settings |= {"gradient_checkpointing": args.checkpointing,
                     "precompute_ref_log_probs": True, "train_sampling_strategy": "sequential"}
    return settings


def peak_bytes(device):
    if device == "cpu":
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return torch.cuda.max_memory_reserved()


def make_trainer(args, scratch):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    rows = datasets.Dataset.from_list(read_pairs(args.data)).shuffle(seed=SEED)
    rows = rows.select(range(args.pairs or len(rows))).to_list()
    if args.form == "tuned":
        rows = by_length(rows, tokenizer)
    dtype = torch.bfloat16 if args.weights == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    adapter = json.loads((args.adapter / "adapter_config.json").read_text())
    config = DPOConfig(
        output_dir=scratch, report_to="none", save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, logging_steps=1, per_device_train_batch_size=6,
        gradient_accumulation_steps=4, num_train_epochs=1.0, learning_rate=1e-5, beta=0.1,
        weight_decay=0.01, lr_scheduler_type="linear", max_grad_norm=1.0, max_length=2048, seed=SEED,
        **settings_of(args))
    trainer = TimedTrainer(
        model=model, args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=adapter["r"], lora_alpha=adapter["lora_alpha"], lora_dropout=0.05,
                               bias="none", task_type="CAUSAL_LM",
                               target_modules=adapter["target_modules"],
                               layers_to_transform=adapter["layers_to_transform"]))
    weights = args.adapter / "adapter_model.safetensors"
    if weights.exists():
        set_peft_model_state_dict(trainer.model, load_file(weights))
    trainer.remove_callback(PrinterCallback)
    clock = StepClock(trainer)
    trainer.add_callback(clock)
    return trainer, clock


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=int, help="of the data; all")
    parser.add_argument("--adapter", type=pathlib.Path, required=True,
                        help="PEFT folder to start from; without weights, as PEFT draws them")
    parser.add_argument("--form", choices=["paper", "tuned"], required=True)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--weights", choices=["fp32", "bf16"], default="fp32",
                        help="type of the frozen weights")
    parser.add_argument("--checkpointing", action="store_true", help="in the tuned form too")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    datasets.disable_caching()
    with tempfile.TemporaryDirectory() as scratch:
        trainer, clock = make_trainer(args, scratch)
        training = Clock()
        with training:
            trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    print(json.dumps({"wall": training.wall, "processor": training.processor,
                      "reference_wall": trainer.references.wall,
                      "reference_processor": trainer.references.processor, "losses": losses,
                      "steps": clock.steps, "memory_peak": peak_bytes(args.device),
                      "versions": {name: version(name) for name in ("torch", "transformers",
                                                                    "peft", "trl")}}))


if __name__ == "__main__":
    main()
