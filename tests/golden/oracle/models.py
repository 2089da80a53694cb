"""The demo models as the oracles load them, in fp32 and, as the arbiter, in fp64."""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


class Fp64Mode(TorchFunctionMode):
    """Does in fp64 whatever is asked for in fp32 by name.

    Norms, softmax and rotary angles of Transformers go through fp32 whatever the type of the
    model; under this mode, loading included, an fp64 model is fp64 throughout.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(self.widened(arg) for arg in args)
        kwargs = {name: self.widened(arg) for name, arg in (kwargs or {}).items()}
        return func(*args, **kwargs)

    @staticmethod
    def widened(arg):
        return torch.float64 if arg is torch.float32 else arg


def precision(dtype):
    """The context in which everything with a model of this type is done."""
    return Fp64Mode() if dtype == torch.float64 else contextlib.nullcontext()


def load_model(directory, dtype):
    """The model with its bf16 weights widened to `dtype`, with eager attention."""
    with precision(dtype):
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype,
                                                     attn_implementation="eager")
    used = {tensor.dtype for tensor in [*model.parameters(), *model.buffers()]}
    if used != {dtype}:
        raise RuntimeError(f"{directory}: loaded as {used}, not as {dtype} only")
    return model.eval()


def load_tokenizer(directory):
    """tokenizer.json as it is: the family classes may rebuild parts of it."""
    return PreTrainedTokenizerFast.from_pretrained(directory)


def gap(value, arbiter):
    """The largest difference between a result and the arbiter's."""
    difference = torch.as_tensor(value, dtype=torch.float64) - torch.as_tensor(arbiter)
    return difference.abs().max().item() if difference.numel() else 0.0
