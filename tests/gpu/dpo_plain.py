"""DPO as TRL does it, written with Transformers and PEFT alone, where TRL is not installed: prints
the JSON line of tests/bench/dpo_trl.py.

paper: micro-batches of 6 pairs padded to their longest sequence, four of them a step, gradient
checkpointing, policy and reference forward each time. tuned: length-sorted batches, references of
all pairs first, no checkpointing. Both: bf16 or fp32, AdamW, linear decay, clipping at 1.
tests/gpu/dry.sh shows that its losses are TRL's.
"""

import argparse
import json
import pathlib
import resource
import time
from importlib.metadata import version

import numpy
import torch
import transformers
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

SEED, BETA, RATE, DECAY, MICRO, ACCUMULATE = 42, 0.1, 1e-5, 0.01, 6, 4

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def read_pairs(path, tokenizer):
    """(prompt ids, chosen ids, rejected ids) of every row."""
    eos, rows = tokenizer.eos_token, []
    with open(path, encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            prompt = tokenizer(row["prompt"])["input_ids"]
            sides = [tokenizer(row["prompt"] + row[side] + eos)["input_ids"][len(prompt):]
                     for side in ("chosen", "rejected")]
            rows.append((prompt, *sides))
    return rows


def order_of(rows, form):
    """The subset's order, then the epoch's, as datasets and accelerate draw them."""
    if form == "tuned":
        return sorted(rows, key=lambda row: len(row[0]) + max(map(len, row[1:])), reverse=True)
    rows = [rows[i] for i in numpy.random.default_rng(SEED).permutation(len(rows))]
    generator = torch.Generator()
    generator.manual_seed(SEED)
    return [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]


class Training:
    def __init__(self, args):
        self.args = args
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
        self.rows = order_of(read_pairs(args.data, self.tokenizer), args.form)
        dtype = torch.bfloat16 if args.weights == "bf16" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).to(args.device)
        settings = json.loads((args.adapter / "adapter_config.json").read_text())
        self.model = get_peft_model(model, LoraConfig(
            r=settings["r"], lora_alpha=settings["lora_alpha"], bias="none",
            task_type="CAUSAL_LM", target_modules=settings["target_modules"],
            layers_to_transform=settings["layers_to_transform"]))
        weights = args.adapter / "adapter_model.safetensors"
        if weights.exists():
            set_peft_model_state_dict(self.model, load_file(weights))
        self.model.config.use_cache = False
        if args.form == "paper" or args.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.enable_input_require_grads()
        self.model.train()
        for weight in self.model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=RATE, weight_decay=DECAY)

    def batch(self, rows):
        """Ids, attention and completion masks: chosen rows first, then rejected ones."""
        sequences = [(row[0], row[side]) for side in (1, 2) for row in rows]
        width = max(len(prompt) + len(answer) for prompt, answer in sequences)
        ids, mask, completion = (torch.zeros(len(sequences), width, dtype=torch.long)
                                 for _ in range(3))
        for i, (prompt, answer) in enumerate(sequences):
            end = len(prompt) + len(answer)
            ids[i, :end] = torch.tensor(prompt + answer)
            mask[i, :end] = 1
            completion[i, len(prompt):end] = 1
        return [tensor.to(self.args.device) for tensor in (ids, mask, completion)]

    def sums(self, batch):
        """Sum of the completion tokens' log-probs of every sequence."""
        ids, mask, completion = batch
        half = self.args.dtype == "bf16"
        with torch.autocast(self.args.device, torch.bfloat16, enabled=half):
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        targets = ids[:, 1:]
        sums = []
        for row, target, scored in zip(logits, targets, completion[:, 1:], strict=True):
            logps = torch.log_softmax(row, -1).gather(1, target[:, None])[:, 0]
            sums.append((logps * scored).sum())
        return torch.stack(sums)

    @torch.no_grad()
    def references(self, batch):
        with self.model.disable_adapter():
            return self.sums(batch)

    def windows(self):
        """Optimizer steps of micro-batches."""
        micros = [self.rows[i:i + MICRO] for i in range(0, len(self.rows), MICRO)]
        return [micros[i:i + ACCUMULATE] for i in range(0, len(micros), ACCUMULATE)]

    def step(self, window, known):
        """Loss and tokens."""
        loss_sum, tokens = 0.0, 0
        for micro in window:
            batch = self.batch(micro)
            tokens += batch[1].sum()
            reference = known[id(micro)] if known else self.references(batch)
            chosen, rejected = (self.sums(batch) - reference).chunk(2)
            loss = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean() / len(window)
            loss.backward()
            loss_sum += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss_sum.item(), int(tokens)

    def run(self):
        windows, losses, steps = self.windows(), [], []
        start = time.perf_counter()
        known = {}
        if self.args.form == "tuned":
            known = {id(micro): self.references(self.batch(micro))
                     for window in windows for micro in window}
            self.wait()
        references = time.perf_counter() - start
        begin = time.perf_counter(), time.process_time()
        for index, window in enumerate(windows):
            start = time.perf_counter()
            for group in self.optimizer.param_groups:
                group["lr"] = RATE * (1 - index / len(windows))
            loss, tokens = self.step(window, known)
            losses.append(loss)
            steps.append((time.perf_counter() - start, tokens))
        return {"wall": time.perf_counter() - begin[0], "processor": time.process_time() - begin[1],
                "reference_wall": references, "losses": losses, "steps": steps,
                "memory_peak": self.peak()}

    def wait(self):
        if self.args.device != "cpu":
            torch.cuda.synchronize()

    def peak(self):
        if self.args.device == "cpu":
            return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return torch.cuda.max_memory_reserved()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="rows with a prompt")
    parser.add_argument("--adapter", type=pathlib.Path, required=True,
                        help="PEFT folder to start from; without weights, as PEFT draws them")
    parser.add_argument("--form", choices=["paper", "tuned"], required=True)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--weights", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="in the tuned form too")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    said = Training(args).run()
    said["versions"] = {name: version(name) for name in ("torch", "transformers", "peft")}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
