#!/usr/bin/env python3
"""The fault tests: scenarios by number, or a soak.  See README.md and run.sh."""
import argparse
import concurrent.futures
import pathlib
import random
import sys
import tempfile
import time
import traceback

import frame
import scenarios_coordinator  # noqa: F401  (they add themselves)
import scenarios_device       # noqa: F401
import scenarios_folders      # noqa: F401
import scenarios_gang         # noqa: F401
import scenarios_judge        # noqa: F401
import scenarios_network      # noqa: F401
import scenarios_nodes        # noqa: F401
import scenarios_points       # noqa: F401
import scenarios_power        # noqa: F401
import scenarios_power_worker  # noqa: F401
import scenarios_slices       # noqa: F401
import scenarios_worker       # noqa: F401


# The longest begin first, so that none of them is what the end waits for.
LONGEST = ("points-coordinator", "points-worker", "13", "19", "21", "restore", "3b", "14", "12", "24a",
           "power", "16", "3", "18", "15a",
           "26", "4")

# By itself, before the others: the kernel counts what it kills for memory for the whole machine.
ALONE = ("20",)


def run_one(number, name, function, seed, trace):
    test = frame.Test(seed, trace)
    began = time.monotonic()
    label = f"fault: {number} {name}"
    try:
        part = function(test)
        took = f"({time.monotonic() - began:.1f} s)"
        notes = "".join(f"\n#   {note}" for note in test.notes)
        if isinstance(part, str) and part.startswith("needs "):
            return True, f"skip {label}: {part}"
        if isinstance(part, str):
            notes += f"\n#   {part}"
        return True, f"ok {label} {took}{notes}"
    except frame.Failure as error:
        return False, f"not ok {label} (--only {number} --seed {seed}): {error}"
    except Exception:  # pylint: disable=broad-except
        return False, (f"not ok {label} (--only {number} --seed {seed}): the test itself broke\n"
                       + traceback.format_exc(-2))
    finally:
        test.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    parser.add_argument("--kills", type=int, help="end a soak after so many")
    parser.add_argument("--only", nargs="*", help="numbers of scenarios")
    parser.add_argument("--slow", action="store_true", help="also those of many minutes")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=8, help="scenarios at a time")
    options = parser.parse_args()
    chosen = [s for s in frame.SCENARIOS
              if (s[0] in options.only if options.only else options.slow or not s[2])]
    chosen.sort(key=lambda s: -1 if s[0] in ALONE else
                LONGEST.index(s[0]) if s[0] in LONGEST else len(LONGEST))
    if options.list:
        for number, name, slow, _ in frame.SCENARIOS:
            print(f"{number:>10}  {name}{'  (--slow)' if slow else ''}")
        return 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    frame.build_shims()
    if options.soak:
        import soak  # pylint: disable=import-outside-toplevel
        return soak.run(options.soak, seed, options.kills)
    print(f"# seed {seed}", flush=True)
    good = True
    with tempfile.TemporaryDirectory(prefix="ha-fault-") as folder:
        trace = pathlib.Path(folder) / "trace"
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            futures = []
            for number, name, _, function in chosen:
                futures.append(pool.submit(run_one, number, name, function, seed, trace))
                if number in ALONE:
                    concurrent.futures.wait(futures)
            for future in concurrent.futures.as_completed(futures):
                fine, text = future.result()
                good = good and fine
                print(text, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
