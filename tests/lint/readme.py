#!/usr/bin/env python3
"""What the READMEs name is there.

usage: readme.py ROOT.  Prints each breach as file:line: text and exits with 1
when there is one: a path in `quotes` that is neither in the tree nor made by a
build or a run, and an option in quotes or in a command that nothing takes.
"""
import os.path
import pathlib
import re
import subprocess
import sys

QUOTED = re.compile(r'`([^`\n]+)`')
PATH = re.compile(r'(\.\./)*[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+/?|'
                  r'[A-Za-z0-9_-]+\.(c|h|cu|cuh|cpp|hpp|py|sh|md|toml|proto|service)')
OPTION = re.compile(r'(?<![\w-])--([a-z][a-z-]+)')
# Made by a build or a run, words of a pattern, cells as MODEL/STRATEGY, headers of libraries.
MADE = re.compile(r'(build|runs|corpus|demo)/.*|zmq\.h|[^a-z]*[A-Z]+\.sh')
# Options of others' programs: systemctl's.
OTHERS = {'now'}
# How a source says that it takes an option: {"name", ...} in C, '--name' in scripts.
TAKEN = re.compile(r'\{\s*(?:\.name = )?"([a-z][a-z-]+)"|--([a-z][a-z-]+)')


def listed(root):
    return subprocess.run(['git', 'ls-files'], cwd=root, capture_output=True, text=True,
                          check=True).stdout.split()


def options(root, names):
    """Those that any program or script of the tree takes, or gives to others."""
    sources = [name for name in names if name.endswith(('.c', '.cpp', '.py', '.sh', '.build'))
               or '.' not in pathlib.Path(name).name]
    return {option for name in sources
            for found in TAKEN.findall((root / name).read_text(errors='replace'))
            for option in found if option}


def is_there(word, folder, there, names):
    if '/' not in word and word in names:
        return True
    return any(os.path.normpath(path) in there for path in (word, f'{folder}/{word}'))


def breaches_of(path, text, there, names, taken):
    folder = os.path.dirname(path)
    for n, line in enumerate(text.splitlines(), 1):
        quoted = QUOTED.findall(line)
        for word in ' '.join(quoted).split():
            word = word.strip('.,;:()') if '..' not in word else word
            if PATH.fullmatch(word) and not MADE.fullmatch(word) and \
                    not is_there(word, folder, there, names):
                yield n, f'{word} is not in the tree'
        for code in quoted + [line] * line.startswith('    '):
            for option in OPTION.findall(code):
                if option not in taken | OTHERS:
                    yield n, f'nothing takes --{option}'


def main(root):
    root = pathlib.Path(root)
    files = listed(root)
    there = {str(parent) for name in files for parent in pathlib.PurePath(name).parents} | set(files)
    names = {pathlib.PurePath(name).name for name in files}
    taken = options(root, files)
    found = [f'{name}:{n}: {what}' for name in files if name.endswith('.md')
             for n, what in breaches_of(name, (root / name).read_text(), there, names, taken)]
    print('\n'.join(found) or 'what the READMEs name is there')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
