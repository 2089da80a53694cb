"""Writers of the golden files: JSON with nine significant digits, safetensors of F32."""

import json
import platform

import accelerate
import datasets
import numpy
import peft
import safetensors
import tokenizers
import torch
import transformers
import trl
from safetensors.torch import save_file


def versions():
    """The oracles that made a file; written into every file."""
    found = {module.__name__: module.__version__
             for module in (accelerate, datasets, numpy, peft, safetensors, tokenizers, torch,
                            transformers, trl)}
    found["python"] = platform.python_version()
    return dict(sorted(found.items()))


def short(value):
    """The value with every float cut to nine significant digits, enough to recover any fp32."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [short(item) for item in value]
    return value


def write_json(path, document):
    """One document; a list of numbers stays on one line."""
    text = render({"oracle": versions(), **short(document)}, "")
    path.write_text(text + "\n", encoding="ascii")


def render(value, indent):
    inner = indent + " "
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(key)}: {render(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + render(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def write_json_lines(path, records):
    """One record a line, after a line that carries the versions."""
    lines = [json.dumps(record, allow_nan=False) for record in [{"oracle": versions()}, *records]]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_tensors(path, tensors, **metadata):
    """F32 tensors by name; the versions and `metadata` are in the header's __metadata__."""
    described = {"format": "pt", **versions(), **metadata}
    save_file({name: tensor.detach().to(torch.float32).contiguous()
               for name, tensor in sorted(tensors.items())}, path, metadata=described)
    sort_metadata(path)
    path.chmod(0o644)      # the library writes files that only their owner can read


def sort_metadata(path):
    """Put __metadata__, which the library writes in a new order every time, into a fixed one."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(end - 8)
    if len(text) != end - 8:
        raise RuntimeError(f"{path}: the header changed its length")
    path.write_bytes(content[:8] + text + content[end:])
