"""Chat templates: ids of pairs and prompts against TRL and apply_chat_template.

With HA_TEST_DATA every dialogue of its hh-rlhf files goes through the published tokenizers, else
those of the demo through the demo's. Templates are those of the tokenizers' own files, and for
Qwen2.5, Llama 3 and Qwen3-2507 those that TRL has.
"""

import json
import re
import types

import datasets
import jinja2
from trl.data_utils import _tokenize, apply_chat_template, extract_prompt
from trl.trainer.dpo_trainer import DPOTrainer

from common import DATA, FAMILIES, MODELS, Check, Failure, load_tokenizer, scratch_folder
from common import write_lines
from oracle.chat import CONVERSATIONS, assistant, of_trl, user
from published import hh_files, published_tokenizers, read_rows

KWARGS = {"enable_thinking": False}
LISTS = 400          # pairs that are also given as message lists
BESIDE_FORMAT = {"llama-2": "hh", "llama-3": "llama-3.1", "llama-3.1": "llama-3",
                 "qwen2.5": "qwen3", "qwen3": "chatml", "qwen3-2507": "qwen2.5"}
BESIDE = {"llama-3", "qwen3-2507"}      # not of the four families: one pair in ten


def with_template(folder, source, template):
    """A copy of a tokenizer's folder with another template."""
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    config = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def make_models(scratch):
    """name -> folder"""
    folders = published_tokenizers(scratch)
    if not folders:
        return {family: MODELS / family for family in FAMILIES}
    for name, source, template in (("qwen2.5", "qwen2.5", "qwen2_5"),
                                   ("llama-3", "llama-3.1", "llama3"),
                                   ("qwen3-2507", "qwen3", "qwen3_instruct_2507")):
        folders[name] = with_template(scratch / f"{name}-chat", folders[source], of_trl(template))
    return folders


# ---- rows ----

def dialogues():
    files = list(hh_files().values()) or [DATA / f"{name}.jsonl" for name in ("train", "eval")]
    return [pair for path in files for pair in read_rows(path)]


def messages_of(text):
    """The turns of a dialogue, as TRL's own conversion of hh-rlhf cuts them."""
    parts = re.split(r"\n\n(Human|Assistant):[ ]?", text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[parts[i]], "content": parts[i + 1]} for i in range(1, len(parts), 2)]


def lists_of(pair):
    return {side: messages_of(pair[side]) for side in ("chosen", "rejected")}


def odd_pairs():
    rows = []
    for messages in CONVERSATIONS:
        other = messages[:-1] + [assistant("something else")]
        rows += [{"chosen": messages, "rejected": other}, {"chosen": other, "rejected": messages},
                 {"chosen": messages, "rejected": messages},
                 {"chosen": messages, "rejected": messages + [user("more"), assistant("ok")]}]
    return rows


# ---- what the oracles make of them ----

REFUSALS = (jinja2.exceptions.TemplateError, IndexError)


def pair_and_joint_ids(tokenizer, row):
    """What TRL's tokenize_fn gives, and both joint texts' ids; None where template or TRL raise."""
    try:
        row = row if "prompt" in row else extract_prompt(row)
        prompt = _tokenize(tokenizer, row["prompt"], add_generation_prompt=True,
                           **KWARGS)["input_ids"]
        joint = [_tokenize(tokenizer, row["prompt"] + row[side], **KWARGS)["input_ids"]
                 for side in ("chosen", "rejected")]
    except REFUSALS:
        return None, None
    return {"prompt": prompt, "chosen": joint[0][len(prompt):],
            "rejected": joint[1][len(prompt):]}, joint


def pair_ids(tokenizer, row):
    return pair_and_joint_ids(tokenizer, row)[0]


def prompt_ids(tokenizer, messages, refuses_second_answers):
    """The prompt to generate for: all before the last answer."""
    while messages and messages[-1]["role"] != "assistant":
        messages = messages[:-1]
    messages = messages[:-1]
    if not messages or (refuses_second_answers and messages[-1]["role"] == "assistant"):
        return None
    try:
        return _tokenize(tokenizer, messages, add_generation_prompt=True, **KWARGS)["input_ids"]
    except REFUSALS:
        return None


def given_prompt_ids(tokenizer, messages):
    """A row's own prompt, continued where it ends with an answer, as TRL's apply_chat_template."""
    try:
        text = apply_chat_template({"prompt": messages}, tokenizer, **KWARGS)["prompt"]
    except (*REFUSALS, ValueError):
        return None
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- comparing ----

def run(check, model, scratch, rows, *options, template="chat"):
    """row number -> what `ha-attempt rows` prints of it"""
    data = write_lines(scratch / "rows.jsonl", rows)
    out = check.attempt("rows", "--model", model, "--template", template, "--data", data,
                        "--set", "train.max_length=1000000", *options)
    return {line["row"]: line for line in map(json.loads, out.split("\n")[:-1])}


def compare(row, name, rows, got, wanted):
    """wanted: per row ids, or None where it must be dropped."""
    for i, want in enumerate(wanted):
        mine = got.get(i)
        if mine is not None:
            mine = {key: value for key, value in mine.items() if key not in ("row", "text")}
        with row.case(f"{name}, row {i}"):
            if mine != want:
                raise Failure(f"{rows[i]!r:.300}: {mine}, not {want}")


def compare_joint(row, name, rows, got, wanted):
    """Pairs cut elsewhere: prompt and completion together are the whole conversation."""
    for i, want in enumerate(wanted):
        mine = got.get(i)
        with row.case(f"{name}, row {i}"):
            if (mine is None) != (want is None):
                raise Failure(f"{rows[i]!r:.300}: {mine}, not {want}")
            if mine and [mine["prompt"] + mine["chosen"],
                         mine["prompt"] + mine["rejected"]] != want:
                raise Failure(f"{rows[i]!r:.300}: {mine}, not {want}")


def through_trainer(tokenizer, rows):
    """The dataset as the real DPOTrainer prepares it."""
    data = datasets.Dataset.from_list([{**row, "chat_template_kwargs": KWARGS} for row in rows])
    trainer = types.SimpleNamespace(_tokenizer=tokenizer)
    args = types.SimpleNamespace(dataset_num_proc=None, max_length=None,
                                 truncation_mode="keep_start")
    done = DPOTrainer._prepare_dataset(trainer, data, tokenizer, args, "rows")
    return [{key: row[f"{key}_ids"] for key in ("prompt", "chosen", "rejected")} for row in done]


def check_model(check, name, model, pairs, scratch):
    tokenizer = load_tokenizer(model)
    if name in BESIDE:
        pairs = pairs[::10]
    row = check.row(f"chat, {name}", "equal")
    lists = [lists_of(pair) for pair in pairs]
    wanted, joint = zip(*(pair_and_joint_ids(tokenizer, pair) for pair in lists))
    compare(row, f"{name} pairs", pairs, run(check, model, scratch, pairs), wanted)

    # A planted fault: a format beside the right one must not pass.
    wrong = run(check, model, scratch, pairs[:50], template=BESIDE_FORMAT[name.split("-demo")[0]])
    with row.case(f"{name}, another format is told apart"):
        if any(ids and {**wrong[i], "row": None} == {**ids, "row": None}
               for i, ids in enumerate(wanted[:50]) if i in wrong):
            raise Failure("a pair has the ids that another format gives")

    turns = run(check, model, scratch, pairs, "--set", "data.split=turn")
    compare_joint(row, f"{name} split = turn", pairs, turns, joint)

    is_llama2 = name.startswith("llama-2")
    compare(row, f"{name} prompts", pairs, run(check, model, scratch, pairs, "--prompts"),
            [ids and {"prompt": ids} for ids in
             (prompt_ids(tokenizer, pair["chosen"], is_llama2) for pair in lists)])

    # Rows of messages: whole conversations, with a prompt of their own, prompts alone.
    rows = lists[:LISTS] + odd_pairs()
    wanted = [pair_ids(tokenizer, pair) for pair in rows]
    compare(row, f"{name} lists", rows, run(check, model, scratch, rows), wanted)
    kept = [i for i, want in enumerate(wanted) if want]
    trained = through_trainer(tokenizer, [rows[i] for i in kept])
    compare(row, f"{name} through DPOTrainer", [rows[i] for i in kept], dict(enumerate(trained)),
            [wanted[i] for i in kept])
    explicit = [extract_prompt(pair) for pair in rows if pair["chosen"][0] == pair["rejected"][0]]
    explicit = [pair for pair in explicit if pair["prompt"]]
    compare(row, f"{name} explicit lists", explicit, run(check, model, scratch, explicit),
            [pair_ids(tokenizer, pair) for pair in explicit])
    prompts = [{"prompt": messages[:n]} for messages in CONVERSATIONS
               for n in range(1, len(messages) + 1) if messages[n - 1]["role"] != "system"]
    compare(row, f"{name} given prompts", prompts, run(check, model, scratch, prompts, "--prompts"),
            [ids and {"prompt": ids} for ids in
             (given_prompt_ids(tokenizer, prompt["prompt"]) for prompt in prompts)])


def main():
    check = Check(__doc__)
    pairs = dialogues()
    with scratch_folder() as scratch:
        for name, model in make_models(scratch).items():
            if check.wanted(name):
                check_model(check, name, model, pairs, scratch)
    check.finish()


if __name__ == "__main__":
    main()
