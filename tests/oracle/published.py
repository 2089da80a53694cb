"""Folders with the four families' published tokenizers, unpacked from $HA_TEST_DATA."""

import gzip
import json
import os
import pathlib

# Qwen2.5 has the vocabulary and the merges of Qwen3 without its last four added tokens.
NOT_IN_QWEN25 = {"<tool_response>", "</tool_response>", "<think>", "</think>"}


def data_folder():
    """$HA_TEST_DATA, or None where it is not set."""
    name = os.environ.get("HA_TEST_DATA")
    return pathlib.Path(name) if name else None


def unpacked(folder, name):
    plain, packed = folder / name, folder / f"{name}.gz"
    return plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())


def write_qwen25(source, out):
    out.mkdir()
    document = json.loads((source / "tokenizer.json").read_text("utf-8"))
    document["added_tokens"] = [token for token in document["added_tokens"]
                                if token["content"] not in NOT_IN_QWEN25]
    (out / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    config = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    config.pop("added_tokens_decoder", None)
    (out / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def published_tokenizers(scratch):
    """{name: folder} in `scratch`; empty without $HA_TEST_DATA."""
    data, folders = data_folder(), {}
    if not data:
        return folders
    for name in ("llama-2", "llama-3.1", "qwen3"):
        folders[name] = scratch / name
        folders[name].mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folders[name] / file).write_bytes(unpacked(data / "tokenizers" / name, file))
    folders["qwen2.5"] = scratch / "qwen2.5"
    write_qwen25(folders["qwen3"], folders["qwen2.5"])
    return folders


def hh_files():
    """The files of hh-rlhf, by the name of their folder."""
    data = data_folder()
    return {path.parent.name: path for path in sorted((data / "hh-rlhf").glob("*/*.jsonl.gz"))} \
        if data else {}


def read_rows(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path)
    with opened as lines:
        return [json.loads(line) for line in lines]
