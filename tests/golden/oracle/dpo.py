"""DPO as TRL, PEFT and Transformers do it: tokenisation, gradients, three and twenty steps."""

import json
import shutil
import tempfile
from dataclasses import dataclass

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer

from . import cases, files
from .models import gap, load_model, load_tokenizer, precision

SEED = 42
RANDOM_B_SEED = 7
RANDOM_B_STD = 0.02
SETTINGS = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 1.0,
    "learning_rate": 1e-3, "weight_decay": 0.1, "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0, "beta": 0.1, "max_length": 2048, "seed": SEED, "logging_steps": 1,
    "bf16": False, "gradient_checkpointing": False,
}
LONG_STEPS = 20
CLIPPED_NORM = 0.05      # low enough to act on every step; that of SETTINGS hardly ever does
# Of the log: wall-clock figures and what is said elsewhere.
NOT_LOGGED = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos",
              "train_loss"}


class RecordingTrainer(DPOTrainer):
    """TRL's trainer; keeps each micro-batch's pairs and loss, and widens an fp64 run throughout."""

    def __init__(self, *args, **kwargs):
        self.micro_batches = []
        with precision(kwargs["model"].dtype):
            super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, *args, **kwargs):
        with precision(self.model.dtype):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.micro_batches.append({"pairs": self.pairs_of(inputs), "loss": loss.item()})
        return loss

    def pairs_of(self, inputs):
        """The dataset rows of a micro-batch, found by their ids."""
        return [self.row_of(chosen, rejected) for chosen, rejected
                in zip(*joint_ids(inputs).chunk(2), strict=True)]

    def row_of(self, chosen, rejected):
        wanted = (trimmed(chosen), trimmed(rejected))
        rows = [index for index, row in enumerate(self.train_dataset)
                if wanted == (row["prompt_ids"] + row["chosen_ids"],
                              row["prompt_ids"] + row["rejected_ids"])]
        if len(rows) != 1:
            raise RuntimeError(f"a micro-batch row fits {len(rows)} pairs")
        return rows[0]


class PlainTrainer(RecordingTrainer):
    """For data that may hold a pair twice: rows are not looked up."""

    def pairs_of(self, inputs):
        return []


def joint_ids(inputs):
    """input_ids with -1 where they are padding."""
    return inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -1)


def trimmed(ids):
    return ids[ids >= 0].tolist()


@dataclass
class Training:
    """Three optimizer steps from adapter-zero."""
    micro_batches: list
    log: list
    adapter: dict


@dataclass
class Run:
    """Everything that was computed in one precision."""
    pairs: list
    reference: dict
    zero_gradients: dict
    random_gradients: dict
    optimizer: str
    training: Training
    clipped: Training


def lora_config(model, family):
    layers = cases.block_layers(model.config.num_hidden_layers, cases.BLOCK_OF_FAMILY[family])
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                      target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                      layers_to_transform=layers)


def write_adapter(directory, peft_model):
    """A PEFT directory without the model card that PEFT adds; its versions in the metadata."""
    shutil.rmtree(directory, ignore_errors=True)
    peft_model.save_pretrained(directory)
    (directory / "README.md").unlink()
    config = json.loads((directory / "adapter_config.json").read_text())
    config["target_modules"].sort()      # a set in PEFT, in a new order on every run
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = directory / "adapter_model.safetensors"
    files.write_tensors(weights, load_file(weights))


def make_adapters(model_dir, family, out_dir):
    """adapter-zero (A as PEFT draws it after manual_seed(SEED), B = 0) and adapter-random."""
    model = load_model(model_dir, torch.float32)
    torch.manual_seed(SEED)
    peft_model = get_peft_model(model, lora_config(model, family))
    write_adapter(out_dir / "adapter-zero", peft_model)
    generator = torch.Generator().manual_seed(RANDOM_B_SEED)
    with torch.no_grad():
        for name, weight in peft_model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, RANDOM_B_STD, generator=generator)
    write_adapter(out_dir / "adapter-random", peft_model)


def make_trainer(model_dir, family, dtype, scratch, rows=None, trainer=RecordingTrainer,
                 **changes):
    model = load_model(model_dir, dtype)
    rows = rows or Dataset.from_list([{key: pair[key] for key in ("chosen", "rejected")}
                                      for pair in cases.PAIRS])
    config = DPOConfig(output_dir=scratch, use_cpu=True, report_to="none", save_strategy="no",
                       disable_tqdm=True, dataloader_pin_memory=False,
                       **{**SETTINGS, **changes})
    torch.manual_seed(SEED)      # TRL draws A before it sets the seed itself
    return trainer(model=model, args=config, train_dataset=rows,
                   processing_class=load_tokenizer(model_dir),
                   peft_config=lora_config(model, family))


def load_adapter(trainer, directory):
    """Put the tensors of a PEFT directory into the trainer's adapter."""
    tensors = load_file(directory / "adapter_model.safetensors")
    set_peft_model_state_dict(trainer.model, tensors)
    now = get_peft_model_state_dict(trainer.model)
    if any((now[name] != tensor).any() for name, tensor in tensors.items()):
        raise RuntimeError(f"{directory}: the adapter was not loaded as it is")


def adapter_of(trainer):
    return {name: tensor.detach().clone()
            for name, tensor in get_peft_model_state_dict(trainer.model).items()}


def window_gradients(trainer):
    """Gradients of the first optimizer window, by the names of the adapter file, unclipped."""
    count = SETTINGS["gradient_accumulation_steps"]
    trainer.model.zero_grad()
    trainer.model.train()
    for inputs, _ in zip(trainer.get_train_dataloader(), range(count)):
        (trainer.compute_loss(trainer.model, inputs) / count).backward()
    gradients = {name.replace(".default.", "."): weight.grad.clone()
                 for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    trainer.model.zero_grad()
    return gradients


@torch.no_grad()
def reference_logps(trainer):
    """Summed log-probabilities under the bare model, one pair at a time and so without padding."""
    sums = {"chosen": [], "rejected": []}
    for row in trainer.train_dataset:
        for side, values in sums.items():
            inputs = trainer.data_collator([{**row, "chosen_ids": row[f"{side}_ids"],
                                             "rejected_ids": row[f"{side}_ids"]}])
            with precision(trainer.model.dtype):
                values.append(trainer.compute_ref_log_probs(trainer.model, inputs)[0].item())
    return sums


def run(model_dir, family, dtype, out_dir):
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(model_dir, family, dtype, scratch)
        if dtype == torch.float32:
            check_initial_adapter(trainer, out_dir)
        reference = reference_logps(trainer)
        load_adapter(trainer, out_dir / "adapter-random")
        random_gradients = window_gradients(trainer)
        load_adapter(trainer, out_dir / "adapter-zero")
        zero_gradients = window_gradients(trainer)
        clipping = make_trainer(model_dir, family, dtype, scratch, max_grad_norm=CLIPPED_NORM)
        return Run(list(trainer.train_dataset), reference, zero_gradients, random_gradients,
                   str(trainer.args.optim.value), train(trainer, out_dir),
                   train(clipping, out_dir))


def train(trainer, out_dir):
    load_adapter(trainer, out_dir / "adapter-zero")
    reset_records(trainer)
    trainer.train()
    return Training(trainer.micro_batches, training_log(trainer), adapter_of(trainer))


def long_rows(data_dir):
    """As many pairs of the demo data as make LONG_STEPS; the last window is short."""
    window = SETTINGS["per_device_train_batch_size"] * SETTINGS["gradient_accumulation_steps"]
    lines = (data_dir / "train.jsonl").read_text().splitlines()
    rows = Dataset.from_list([json.loads(line) for line in lines])
    return rows.shuffle(seed=SEED).select(range(LONG_STEPS * window - 1))


def train_long(model_dir, family, dtype, data_dir, out_dir):
    with tempfile.TemporaryDirectory() as scratch:
        return train(make_trainer(model_dir, family, dtype, scratch, rows=long_rows(data_dir),
                                  trainer=PlainTrainer), out_dir)


def make_long(model_dir, family, data_dir, out_dir):
    """dpo-long.json and the adapter: the pipeline from the demo data to LONG_STEPS steps."""
    single, double = (train_long(model_dir, family, dtype, data_dir, out_dir)
                      for dtype in (torch.float32, torch.float64))
    files.write_tensors(out_dir / "dpo-long-trained-fp64.safetensors", double.adapter,
                        computed_in="fp64")
    steps = describe_steps(single, double)
    files.write_json(out_dir / "dpo-long.json", {
        "settings": {**SETTINGS, "train_samples": len(long_rows(data_dir)), "lora_r": 8,
                     "lora_alpha": 16, "block": cases.BLOCK_OF_FAMILY[family]},
        "steps": [{key: step[key] for key in ("log", "gap")} for step in steps],
        "trained": trained_gaps(single, double, out_dir)})


def check_initial_adapter(trainer, out_dir):
    """The adapter that TRL makes by itself is the one that was written."""
    written = load_file(out_dir / "adapter-zero" / "adapter_model.safetensors")
    made = adapter_of(trainer)
    if any((made[name] != tensor).any() for name, tensor in written.items()):
        raise RuntimeError("TRL drew another adapter than get_peft_model with the same seed")


def reset_records(trainer):
    """Forget what computing the gradients left in the metrics."""
    trainer.micro_batches.clear()
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0


def training_log(trainer):
    steps = [{key: value for key, value in entry.items() if key not in NOT_LOGGED}
             for entry in trainer.state.log_history]
    return [entry for entry in steps if "loss" in entry]


# ---------------------------------------------------------------------------- comparing and writing

def describe_pairs(run32, run64):
    records = []
    for index, row in enumerate(run32.pairs):
        record = {"index": index, "about": cases.PAIRS[index]["about"],
                  "chosen_text": cases.PAIRS[index]["chosen"],
                  "rejected_text": cases.PAIRS[index]["rejected"], "prompt": row["prompt"]}
        record.update({key: row[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")})
        for side in ("chosen", "rejected"):
            record[f"reference_{side}_logp"] = run32.reference[side][index]
            record[f"reference_{side}_logp_fp64"] = run64.reference[side][index]
        records.append(record)
    return records


def describe_steps(single, double):
    """Per optimizer step: the micro-batches, the log, and each figure's gap to the fp64 run."""
    count = SETTINGS["gradient_accumulation_steps"]
    steps = []
    for index, (log, exact) in enumerate(zip(single.log, double.log, strict=True)):
        micro = slice(index * count, (index + 1) * count)
        losses = [batch["loss"] for batch in double.micro_batches[micro]]
        exact = {**exact, "loss": sum(losses) / len(losses)}    # the Trainer adds them up in fp32
        steps.append({
            "micro_batches": single.micro_batches[micro], "micro_batch_losses_fp64": losses,
            "log": log, "log_fp64": exact,
            "gap": {key: abs(log[key] - exact[key]) for key in log},
        })
    return steps


def tensor_gaps(tensors, exact):
    """Per tensor: its norm and the norm of its difference to the fp64 run's."""
    return {name: {"norm": exact[name].norm().item(),
                   "gap": (tensors[name].double() - exact[name]).norm().item()}
            for name in sorted(tensors)}


def trained_gaps(single, double, out_dir):
    """As tensor_gaps, with the norm of the change that training made."""
    start = load_file(out_dir / "adapter-zero" / "adapter_model.safetensors")
    return {name: {"change_norm": (double.adapter[name] - start[name]).norm().item(), **record}
            for name, record in tensor_gaps(single.adapter, double.adapter).items()}


def only(part, tensors):
    return {name: tensor for name, tensor in tensors.items() if f".{part}." in name}


def check_first_gradients(runs):
    """At B = 0 nothing may reach A, in either precision, and the log must know the same norm."""
    for result in runs:
        if any(tensor.any() for tensor in only("lora_A", result.zero_gradients).values()):
            raise RuntimeError("dA is not zero at B = 0")
        squares = [tensor.double().square().sum() for tensor in result.zero_gradients.values()]
        norm, logged = torch.stack(squares).sum().sqrt().item(), result.training.log[0]["grad_norm"]
        if abs(norm - logged) > 1e-5 * logged:
            raise RuntimeError(f"gradient norm {norm}, but TRL logged {logged}")


def write_results(run32, run64, family, out_dir):
    zero32, zero64 = (only("lora_B", r.zero_gradients) for r in (run32, run64))
    tensors = {"dpo-gradients-zero": (zero32, zero64),
               "dpo-gradients-random": (run32.random_gradients, run64.random_gradients),
               "dpo-trained": (run32.training.adapter, run64.training.adapter),
               "dpo-trained-clipped": (run32.clipped.adapter, run64.clipped.adapter)}
    for name, (single, double) in tensors.items():
        files.write_tensors(out_dir / f"{name}.safetensors", single, computed_in="fp32")
        files.write_tensors(out_dir / f"{name}-fp64.safetensors", double, computed_in="fp64")
    files.write_json(out_dir / "dpo.json", {
        "settings": {**SETTINGS, "optim": run32.optimizer, "lora_r": 8, "lora_alpha": 16,
                     "block": cases.BLOCK_OF_FAMILY[family]},
        "pairs": describe_pairs(run32, run64),
        "gradients_zero": tensor_gaps(zero32, zero64),
        "gradients_random": tensor_gaps(run32.random_gradients, run64.random_gradients),
        "steps": describe_steps(run32.training, run64.training),
        "trained": trained_gaps(run32.training, run64.training, out_dir),
        "clipped_max_grad_norm": CLIPPED_NORM,
        "clipped_steps": describe_steps(run32.clipped, run64.clipped),
        "clipped_trained": trained_gaps(run32.clipped, run64.clipped, out_dir),
    })


def make(model_dir, family, data_dir, out_dir):
    make_adapters(model_dir, family, out_dir)
    run32 = run(model_dir, family, torch.float32, out_dir)
    run64 = run(model_dir, family, torch.float64, out_dir)
    check_first_gradients((run32, run64))
    write_results(run32, run64, family, out_dir)
    make_long(model_dir, family, data_dir, out_dir)
