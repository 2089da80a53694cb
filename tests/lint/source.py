#!/usr/bin/env python3
"""Rules of the source tree that need no compiler.

usage: source.py ROOT.  Prints each breach as file:line: text and exits with 1
when there is one: functions over 150 lines, files over 800, banned calls,
exit() outside a main.c, words of unfinished work, // comments.
"""
import pathlib
import re
import subprocess
import sys

MAX_FUNCTION, MAX_FILE = 150, 800
BANNED = {
    'strcpy': 'memcpy or snprintf', 'strcat': 'ha_buffer_append_text', 'sprintf': 'snprintf',
    'vsprintf': 'vsnprintf', 'gets': 'getline', 'strtok': 'strcspn', 'gmtime': 'gmtime_r',
    'localtime': 'localtime_r', 'atoi': 'strtoll', 'atol': 'strtoll', 'atof': 'strtod',
    'alloca': 'ha_calloc', 'system': 'ha_spawn', 'tmpnam': 'mkstemp', 'mktemp': 'mkstemp',
}
CALL = re.compile(r'(?<![A-Za-z0-9_.>])(' + '|'.join(BANNED) + r')\s*\(')
EXIT = re.compile(r'(?<![A-Za-z0-9_])(exit|abort)\s*\(')
WORDS = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
STRIP = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', re.S)


def blank(match):
    """Replace a comment or string by as many line breaks as it holds."""
    return '\n' * match.group(0).count('\n') or '""'


def breaches_of(path, text):
    lines = text.splitlines()
    product = not path.startswith('tests/')
    if len(lines) > MAX_FILE:
        yield len(lines), f'{len(lines)} lines; a file has one subject and at most {MAX_FILE}'
    start = 0
    code = STRIP.sub(blank, text).splitlines()
    for n, line in enumerate(code, 1):
        if line.startswith('{'):
            start = n
        elif line.startswith('}') and start:
            if n - start > MAX_FUNCTION:
                yield start, f'a body of {n - start} lines; at most {MAX_FUNCTION}'
            start = 0
        # clang-format closes a namespace with such a comment.
        if '//' in line and not re.match(r'\} // namespace', line):
            yield n, 'comments are /* */'
        for call in CALL.findall(line):
            yield n, f'{call} is banned: use {BANNED[call]}'
        if product and EXIT.search(line) and pathlib.Path(path).name != 'main.c':
            yield n, 'only main.c may end the process'
    for n, line in enumerate(lines, 1):
        if WORDS.search(line):
            yield n, 'unfinished work belongs in the tracker'


def main(root):
    names = subprocess.run(['git', 'ls-files', '*.c', '*.h', '*.cu', '*.cuh', '*.cpp'], cwd=root,
                           capture_output=True, text=True, check=True).stdout.split()
    found = [f'{name}:{n}: {what}' for name in names
             for n, what in breaches_of(name, (root / name).read_text(errors='replace'))]
    print('\n'.join(found) if found else 'the source keeps the rules')
    return bool(found)


if __name__ == '__main__':
    sys.exit(main(pathlib.Path(sys.argv[1])))
