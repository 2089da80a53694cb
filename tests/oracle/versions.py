"""Exit 0 when exactly the pinned oracles can be imported: versions.py REQUIREMENTS"""

import importlib.metadata
import pathlib
import sys

wrong = []
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    name, _, wanted = line.partition("==")
    if not wanted or name.startswith("#"):
        continue
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "missing"
    if found != wanted:
        wrong.append(f"{name} is {found}, not {wanted}")
if wrong:
    sys.exit("; ".join(wrong))
