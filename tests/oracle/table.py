"""JSON Lines of results on standard input -> a table, "N passed, N failed"; exit 1 on failures."""

import json
import sys


def figure(value):
    return value if isinstance(value, str) else "-" if value is None else f"{value:.2g}"


def main():
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    cells = [("check", "cases", "failed", "largest error", "limit")]
    for row in rows:
        passed, failed = row.get("passed", 0), row.get("failed", 0)
        limit = figure(row.get("limit")) + "".join(
            f"; {name} {figure(error)}, its gap to fp64 {figure(wider)}"
            for name, error, wider in row.get("widened", []))
        cells.append((row["check"], str(passed + failed), str(failed), figure(row.get("largest")),
                      limit))
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    print()
    for line in cells:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |")
        if line is cells[0]:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    passed = sum(row.get("passed", 0) for row in rows)
    failed = sum(row.get("failed", 0) for row in rows)
    print(f"\n{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
