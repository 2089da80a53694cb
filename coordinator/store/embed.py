#!/usr/bin/env python3
"""Write the numbered schema files as one C source: embed.py OUT FILE..."""
import pathlib
import sys

out, files = sys.argv[1], sys.argv[2:]
lines = ['#include "coordinator/store/migrate.h"', '']
for number, name in enumerate(files, 1):
    text = pathlib.Path(name).read_bytes()
    lines.append(f'static const char schema_{number}[] = {{')
    for at in range(0, len(text), 16):
        lines.append('    ' + ', '.join(str(b) for b in text[at:at + 16]) + ',')
    lines += ['    0};', '']
lines.append('const char *const ha_store_schemas[] = {')
lines += [f'    schema_{n},' for n in range(1, len(files) + 1)]
lines += ['};', f'const int ha_store_schema_count = {len(files)};', '']
pathlib.Path(out).write_text('\n'.join(lines))
