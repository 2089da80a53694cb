"""The engine's dropout masks, written anew from their definition, for PEFT's lora_dropout modules."""

import re

import numpy
import torch

EVEN, ODD, KEY0, KEY1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
LOW = numpy.uint64(0xFFFFFFFF)
SHIFT = numpy.uint64(32)
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPT, CHOSEN, REJECTED = 0, 1, 2
DROPOUT = 2      # what the numbers are for


def philox(key, counter):
    """Philox4x32-10 of an array of counters (..., 4) of 32-bit words."""
    c0, c1, c2, c3 = (counter[..., i].astype(numpy.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        even, odd = c0 * numpy.uint64(EVEN), c2 * numpy.uint64(ODD)
        c0, c1 = (odd >> SHIFT) ^ c1 ^ numpy.uint64(k0), odd & LOW
        c2, c3 = (even >> SHIFT) ^ c3 ^ numpy.uint64(k1), even & LOW
        k0, k1 = (k0 + KEY0) & 0xFFFFFFFF, (k1 + KEY1) & 0xFFFFFFFF
    return numpy.stack([c0, c1, c2, c3], axis=-1)


def check_philox():
    """The first of Random123's known answers."""
    words = philox((0, 0), numpy.zeros(4, numpy.uint64))
    if words.tolist() != [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]:
        raise RuntimeError("this is not Philox4x32-10")


class Masks:
    """What is dropped in a training, and where the batch in work lies in it.

    sides_apart: a prompt is dropped for each answer by itself; ignore_epoch: alike in each epoch.
    Both are faults, for tests of the comparison."""

    def __init__(self, share, seed, sides_apart=False, ignore_epoch=False):
        self.share, self.seed, self.epoch = share, seed, 0
        self.sides_apart, self.ignore_epoch = sides_apart, ignore_epoch
        self.pairs, self.places = {}, None
        check_philox()

    def install(self, trainer):
        """Take the place of every lora_dropout of the trainer's model."""
        for number, row in enumerate(trainer.train_dataset):
            for side, name in ((CHOSEN, "chosen"), (REJECTED, "rejected")):
                ids = tuple(row["prompt_ids"] + row[f"{name}_ids"])
                if (side, ids) in self.pairs:
                    raise RuntimeError("two pairs have an answer in common")
                self.pairs[side, ids] = number, len(row["prompt_ids"])
        count = 0
        for path, module in trainer.model.named_modules():
            found = re.search(r"\.layers\.(\d+)\..*\.(\w+)\.lora_dropout$", path)
            if found:
                if module["default"].p != self.share:
                    raise RuntimeError(f"{path} drops {module['default'].p}")
                module["default"] = MaskedInput(self, int(found[1]), MODULES.index(found[2]))
                count += 1
        if count == 0:
            raise RuntimeError("there is no lora_dropout")
        trainer.model.register_forward_pre_hook(self.look_up, with_kwargs=True)
        step = trainer.training_step

        def training_step(model, inputs, *args, **kwargs):
            # What the Trainer has passed so far, in epochs; its sum of steps is not exact.
            self.epoch = int(trainer.state.epoch + 1e-6)
            return step(model, inputs, *args, **kwargs)
        trainer.training_step = training_step

    def look_up(self, _model, _args, inputs):
        """The first two words of the counters of every token, (rows, length, 2)."""
        ids, present = inputs["input_ids"], inputs["attention_mask"]
        self.places = numpy.zeros((*ids.shape, 2), numpy.uint64)
        for index, (row, mask) in enumerate(zip(ids, present, strict=True)):
            side = CHOSEN if index < len(ids) // 2 else REJECTED
            number, prompt = self.pairs[side, tuple(row[mask == 1].tolist())]
            position = numpy.arange(len(row))
            sides = numpy.where(position < prompt, side if self.sides_apart else PROMPT, side)
            self.places[index, :, 0] = position * 4 + sides
            self.places[index, :, 1] = number

    def mask(self, layer, module, width):
        """(rows, length, width): true where an input is kept."""
        epoch, blocks = 0 if self.ignore_epoch else self.epoch, (width + 3) // 4
        counter = numpy.zeros((*self.places.shape[:2], blocks, 4), numpy.uint64)
        counter[..., :2] = self.places[:, :, None, :]
        counter[..., 2] = epoch * 8192 + layer * 8 + module
        counter[..., 3] = numpy.arange(blocks, dtype=numpy.uint64) * numpy.uint64(256) + \
            numpy.uint64(DROPOUT)
        words = philox((self.seed & 0xFFFFFFFF, self.seed >> 32), counter)
        words = words.reshape(*self.places.shape[:2], blocks * 4)[..., :width]
        return torch.from_numpy(words >= numpy.uint64(round(self.share * 2**32)))


class MaskedInput(torch.nn.Module):
    """A lora_dropout with the engine's masks."""

    def __init__(self, masks, layer, module):
        super().__init__()
        self.masks, self.layer, self.number = masks, layer, module

    def forward(self, x):
        if not self.training:
            return x
        kept = self.masks.mask(self.layer, self.number, x.shape[-1])
        return x * kept.to(x.dtype) / (1.0 - self.masks.share)
