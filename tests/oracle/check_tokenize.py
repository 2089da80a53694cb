"""Ids and texts against the tokenizers library: hh-rlhf, thirty scripts, generated strings.

Of each family its published tokenizer ($HA_TEST_DATA), else the demo model's, which was trained
with the library in that family's pipeline, gets 100,000 generated strings; the other demo models
and two pipelines that no published file has get a tenth of it.
"""

import json
import random
import subprocess

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, \
    trainers

from common import DATA, FAMILIES, MODELS, Check, Failure, read_lines, scratch_folder
from published import hh_files, published_tokenizers, read_rows
from texts import SCRIPTS, generated

GENERATED = 100_000
# JSON lines that are no text: stray and overlong bytes, a surrogate in UTF-8 and as an escape.
NO_TEXT = [b'"a\xffb"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"',
           b'"\\ud800"', b'"\\udc00\\ud800"', b'"\x80"']


def metaspace(texts):
    """As Transformers 5 writes a Llama-2: no normalizer, Metaspace, byte_fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "first", False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> <s> $B",
                                                             [("<s>", 1), ("</s>", 2)])
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=pieces, show_progress=False)
    # Trained without Metaspace's split there would be words of whole lines.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "first", True)
    tokenizer.train_from_iterator(texts, trainer)
    document = json.loads(tokenizer.to_str())
    document["pre_tokenizer"]["split"] = False
    document["added_tokens"] = document["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(document))


def parts(texts):
    """Normalizers and pre-tokenizers in a row, with an added token of every flag."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(),
                                                 normalizers.Replace("\u2026", "..."),
                                                 normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(True), pre_tokenizers.Split(Regex(r"\p{L}+|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(False, True, False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False)])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1200, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    document, first = json.loads(tokenizer.to_str()), tokenizer.get_vocab_size()
    flags = [("lstrip",), ("rstrip",), ("single_word",), ("normalized",), ("special",),
             ("lstrip", "rstrip", "special"), ("normalized", "lstrip"), ("single_word", "normalized")]
    document["added_tokens"] = [
        {"id": first + index, "content": f"<{''.join(name[0] for name in names)}{index}>",
         **{name: name in names for name in ("single_word", "lstrip", "rstrip", "normalized",
                                             "special")}}
        for index, names in enumerate(flags)]
    return Tokenizer.from_str(json.dumps(document))


def built_tokenizers(scratch, texts):
    folders = {}
    for make in (metaspace, parts):
        folder = folders[f"built, {make.__name__}"] = scratch / make.__name__
        folder.mkdir()
        make(texts).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text("{}")
    return folders


def compare(row, name, inputs, got, wanted):
    if len(got) != len(wanted):
        raise Failure(f"{name}: {len(got)} results for {len(wanted)} inputs")
    for item, mine, theirs in zip(inputs, got, wanted):
        if mine == theirs:
            row.record["passed"] += 1
        else:
            row.record["failed"] += 1
            print(f"not ok {name}: {item!r}: {mine}, not {theirs}", flush=True)


def run(check, folder, inputs, *options):
    text = "".join(json.dumps(item) + "\n" for item in inputs)
    out = check.attempt("tokenize", "--model", folder, *options, text=text)
    return [json.loads(line) for line in out.split("\n")[:-1]]


def compare_tokenizer(check, name, folder, texts, count):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    draw = random.Random(name)
    texts = [*texts, *SCRIPTS.values(), *(generated(draw, specials) for _ in range(count))]
    row = check.row(f"tokenize, {name}", "equal")
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    with row.case("the program runs"):
        compare(row, f"{name} encode", texts, run(check, folder, texts), wanted)
        for special in (False, True):
            options = ["--keep-special"] if special else []
            compare(row, f"{name} decode", wanted,
                    run(check, folder, wanted, "--decode", *options),
                    [tokenizer.decode(ids, skip_special_tokens=not special) for ids in wanted])


def refuse_no_text(check):
    """What is no text is refused, with its line, and nothing printed for it."""
    row = check.row("tokenize, invalid UTF-8 is refused")
    for bad in NO_TEXT:
        with row.case(repr(bad)):
            done = subprocess.run([check.args.program, "tokenize", "--model", MODELS / FAMILIES[0]],
                                  input=b'"good"\n' + bad + b"\n", capture_output=True, check=False)
            if done.returncode == 0 or b":2" not in done.stderr:
                raise Failure(f"exit status {done.returncode}: {done.stderr.decode()!r}")


def main():
    check = Check(__doc__.split("\n\n")[0])
    demo = [pair[side] for name in ("train", "eval") for pair in read_lines(DATA / f"{name}.jsonl")
            for side in ("chosen", "rejected")]
    real = [pair[side] for path in hh_files().values() for pair in read_rows(path)
            for side in ("chosen", "rejected")]
    with scratch_folder() as scratch:
        published = published_tokenizers(scratch)
        for name, folder in published.items():
            if check.wanted(name):
                compare_tokenizer(check, f"published {name}", folder, real, GENERATED)
        others = {name: MODELS / name for name in FAMILIES} | built_tokenizers(scratch, demo)
        for name, folder in others.items():
            best = name.removesuffix("-demo") not in published and name in FAMILIES
            if check.wanted(name):
                compare_tokenizer(check, name, folder, demo, GENERATED if best else GENERATED // 10)
    refuse_no_text(check)
    check.finish()


if __name__ == "__main__":
    main()
