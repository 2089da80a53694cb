"""Norms of the DPO loss's gradient by frozen q, k, v, o, pair by pair, with PyTorch's autograd."""

import re
import tempfile

import torch

from . import cases, files
from .dpo import SETTINGS, make_trainer

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
BLOCKS = ["local", "mid", "global", "full"]
# With an adapter on it a linear layer has its frozen weight as base_layer.
WEIGHT = re.compile(r"\.layers\.(\d+)\.self_attn\.([qkvo]_proj)(?:\.base_layer)?\.weight$")


def frozen_weights(model):
    """{(layer, module): parameter}, which from now on have gradients."""
    found = {}
    for name, weight in model.named_parameters():
        match = WEIGHT.search(name)
        if match:
            found[int(match[1]), match[2]] = weight.requires_grad_(True)
    return found


def pair_gradients(trainer):
    """Per pair {(layer, module): gradient}; the trainer's batches are single pairs and B is 0."""
    weights = frozen_weights(trainer.model)
    trainer.model.train()
    for inputs in trainer.get_train_dataloader():
        if len(inputs["input_ids"]) != 2:
            raise RuntimeError("a batch of more than one pair")
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, inputs).backward()
        yield {key: weight.grad for key, weight in weights.items()}


def ranges(layer_count):
    """(block, layers): every layer by itself, then the blocks."""
    blocks = {name: list(range(layer_count)) if name == "full"
              else cases.block_layers(layer_count, name) for name in BLOCKS}
    return [("", [layer]) for layer in range(layer_count)] + list(blocks.items())


def norms_of(squares, layer_count):
    """{(block, first layer, module): norm} from the squared norms of weights."""
    norms = {}
    for block, layers in ranges(layer_count):
        sums = {module: sum(squares[layer, module] for layer in layers) for module in MODULES}
        sums["all"] = sum(sums.values())
        norms |= {(block, layers[0], module): value ** 0.5 for module, value in sums.items()}
    return norms


def squares_of(gradients):
    return {key: gradient.double().square().sum().item() for key, gradient in gradients.items()}


def mean_norms(trainer):
    """The mean over pairs of the norms, and how many pairs there are."""
    layer_count, count, total = trainer.model.config.num_hidden_layers, 0, {}
    for gradients in pair_gradients(trainer):
        count += 1
        for key, norm in norms_of(squares_of(gradients), layer_count).items():
            total[key] = total.get(key, 0.0) + norm
    return {key: value / count for key, value in total.items()}, count


def run(model_dir, family, dtype):
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(model_dir, family, dtype, scratch, per_device_train_batch_size=1,
                               gradient_accumulation_steps=1)
        return mean_norms(trainer)


def make(model_dir, family, out_dir):
    (single, count), (double, _) = (run(model_dir, family, dtype)
                                    for dtype in (torch.float32, torch.float64))
    files.write_json(out_dir / "probe.json", {
        "beta": SETTINGS["beta"], "pairs": count,
        "norms": [{"block": block, "layer": layer, "module": module, "norm": double[key],
                   "gap": abs(single[key] - double[key])}
                  for key in double for block, layer, module in [key]]})
