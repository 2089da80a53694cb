"""Turn data files into C: one `const char ha_judge_text_NAME[]` for each NAME=PATH.

usage: embed.py OUTPUT NAME=PATH...  The final newline of a file is not part of its text.
"""
import sys


def literal(data):
    out = []
    for line in data.split(b"\n"):
        text = "".join(
            chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in line)
        out.append(text)
    return '\\n"\n    "'.join(out)


with open(sys.argv[1], "w") as out:
    out.write('#include "judge-worker/prompt_text.h"\n')
    for argument in sys.argv[2:]:
        name, path = argument.split("=", 1)
        data = open(path, "rb").read().removesuffix(b"\n")
        out.write(f'\nconst char ha_judge_text_{name}[] =\n    "{literal(data)}";\n')
