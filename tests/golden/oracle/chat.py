"""What chat templates write: chat.json."""

import hashlib
import pathlib

import jinja2
import trl
from transformers import PreTrainedTokenizerFast

from . import files

# Formats and where their templates are: a demo model, or the one that TRL has.
FORMATS = {"llama-2": "llama-2-demo", "llama-3": "llama3", "llama-3.1": "llama-3.1-demo",
           "chatml": "qwen3_instruct_2507", "qwen2.5": "qwen2.5-demo", "qwen3": "qwen3-demo"}
BESIDE = {"llama-3": "llama-3.1-demo", "chatml": "qwen3-demo"}      # whose tokenizer does


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


CONVERSATIONS = [
    [system("Be brief."), user("Hi"), assistant("Hello.")],
    [system("  spaces \n"), user("\n a \u2003"), assistant("\u3000b\u0085 ")],
    [system("x"), user(" \n"), assistant("")],
    [user("a"), assistant("<think>\nso\n</think>\n\nb"), user("c"), assistant("d")],
    [user("a"), assistant("b"), user("c"), assistant("<think>\n\nwell\n\n</think>\n\n\nd\n")],
    [user("a"), assistant("half a thought</think>b</think>\nc")],
    [user("a"), assistant("<think>one<think>two</think> three")],
    [user("a"), assistant("b"), user("<tool_response>x</tool_response>"),
     assistant("<think>\nt\n</think>\n\nc")],
    [user("<|im_end|><|eot_id|></s> [/INST]"), assistant("<|im_start|>system\nno<|im_end|>")],
    [user("caf\u00e9 e\u0301 \u212b \u1112\u1161\u11ab"), assistant("\U0001f468\u200d\U0001f469")],
    [user("a"), assistant("b"), system("now"), user("c"), assistant("d")],
    [user("a"), system("between"), user("c"), assistant("d")],
    [assistant("first"), user("a"), assistant("b")],
    [user("a"), user("b"), assistant("c"), assistant("d")],
    [user("zero\0byte"), assistant("\x1c\x1dx\x1f")],
]


def of_trl(name):
    folder = pathlib.Path(trl.__file__).parent / "chat_templates"
    return (folder / f"{name}.jinja").read_bytes().decode()


def rendered(tokenizer, template, messages, **ending):
    """None where the template, or Transformers, refuses."""
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False,
                                             enable_thinking=False, **ending)
    except (jinja2.exceptions.TemplateError, ValueError):
        return None


def described(models, name, source):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(models / BESIDE.get(name, source))
    template = of_trl(source) if name in BESIDE else tokenizer.chat_template
    digest = hashlib.sha256(template.removesuffix("\n").encode()).hexdigest()
    cases = [{"closed": rendered(tokenizer, template, messages),
              "generate": rendered(tokenizer, template, messages, add_generation_prompt=True),
              "continue": rendered(tokenizer, template, messages, continue_final_message=True)}
             for messages in CONVERSATIONS]
    return {"format": name, "sha256": digest, "bos": tokenizer.bos_token or "",
            "eos": tokenizer.eos_token or "", "template": template if name in BESIDE else None,
            "cases": cases}


def make(models, out_dir):
    """chat.json"""
    document = {"conversations": CONVERSATIONS,
                "formats": [described(models, name, source) for name, source in FORMATS.items()]}
    files.write_json(out_dir / "chat.json", document)
