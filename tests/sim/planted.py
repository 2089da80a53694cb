#!/usr/bin/env python3
"""Plants faults in the policy, one at a time, and shows that the simulator sees each.

    python3 tests/sim/planted.py BUILD       (of meson; builds what it needs there)

A fault is a change of one place of coordinator/core.  The changed file is compiled in front of the
library; the simulator has to end with a breach for one of the seeds.  Ends with 1 if one is missed.
"""
import concurrent.futures
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = range(1, 13)
SMALL = {"places are kept for gangs that can never run"}  # in a world where a few are often away
FAULTS = [  # what, file, text, text in its place
    ("workers that are late get work", "plan.c",
     "worker->liveness == HA_ALIVE && !worker->draining", "!worker->draining"),
    ("workers that drain get work", "plan.c",
     "worker->liveness == HA_ALIVE && !worker->draining", "worker->liveness == HA_ALIVE"),
    ("jobs that are held start", "plan.c", "!job->held && !job->expanding", "!job->expanding"),
    ("jobs of a grid that expands start", "plan.c", "!job->held && !job->expanding", "!job->held"),
    ("priorities are turned round", "plan.c",
     "return a->first->priority > b->first->priority;", "return a->first->priority < b->first->priority;"),
    ("the sweep with most slots comes next", "plan.c",
     "share->used < next->used", "share->used > next->used"),
    ("labels are not looked at", "fit.c", "!missing_label(need, offer, &length)", "(length = 1)"),
    ("memory of GPUs is not looked at", "fit.c",
     "need->gpu_memory_bytes <= offer->gpu_memory_bytes &&", "true &&"),
    ("sets may take any memory", "fuse.c", "return sum <= group->memory_bytes;", "return true;"),
    ("sets without known memory have 64 cells", "fuse.c",
     "return known ? HA_FUSE_CELLS : HA_FUSE_CELLS_BLIND;", "return known ? HA_FUSE_CELLS : HA_FUSE_CELLS;"),
    ("sets of a queue are given to busy places", "plan.c",
     "int64_t free_slots = worker->slots - worker->used;\n\n        m->used[w] = worker->used;",
     "int64_t free_slots = worker->slots;\n\n        m->used[w] = 0;"),
    ("leases are not renewed after a pause", "lease.c",
     "return turn_ms - before_ms > rules->heartbeat_ms;", "return turn_ms < before_ms - rules->heartbeat_ms;"),
    ("a lease is over when it is late", "lease.c",
     "silent_ms >= rules->lost_ms &&", "silent_ms >= rules->late_ms &&"),
    ("no lease is ever over", "lease.c", "silent_ms >= rules->lost_ms &&",
     "silent_ms >= rules->lost_ms * 1000000 &&"),
    ("a crash is tried again at once for ever", "retry.c",
     "d.verdict = d.counts.crashes >= policy->max_attempts ? HA_RETRY_FAIL : HA_RETRY_AGAIN;",
     "d.counts.crashes = 0;\n    d.verdict = HA_RETRY_AGAIN;"),
    ("attempts of equal priority are stopped", "preempt.c",
     "if (r->priority >= priority)", "if (r->priority > priority)"),
    ("attempts are stopped as soon as they run", "preempt.c", "if (left_ms <= 0)", "if (left_ms <= 1 << 30)"),
    ("a gang begins when a worker is free", "plan_gang.c",
     "kind->crowded = row.count == 0 || row.free < group->nodes;", "kind->crowded = row.count == 0 || row.free < 1;"),
    ("a gang has one worker less than it needs", "plan_gang.c",
     "for (int64_t i = 0; i < nodes; i++)\n        m->teams", "for (int64_t i = 0; i < --group->nodes; i++)\n        m->teams"),
    ("a gang gets a worker twice", "plan_gang.c",
     "m->teams[m->n_teams++] = seats[i].worker;", "m->teams[m->n_teams++] = seats[i / 2].worker;"),
    ("gangs are spread over islands", "plan_gang.c",
     "s->workers[seats[begin + row.count].worker].island == island", "island >= 0"),
    ("nothing is kept for a gang that waits", "plan_gang.c",
     "else if (row.free > 0 && !m->kept.job)", "else if (row.free < 0)"),
    ("places are kept for gangs that can never run", "plan_gang.c",
     "if (row.count < nodes)\n            continue;", "if (row.count < 1)\n            continue;"),
    ("every gang that waits keeps places", "plan.c",
     "i < m->kept.count && !waited; i++", "i < m->kept.count; i++"),
    ("a gang's worker that is lost counts as a crash", "gang.c",
     "part->followed ? FOLLOWED : CRASHED;", "CRASHED;"),
    ("a crash of a gang counts as a loss", "gang.c",
     "part->followed ? FOLLOWED : CRASHED;", "FOLLOWED;"),
    ("gangs whose groups grow keep others waiting", "plan.c",
     "return !a->first->grows && b->first->grows;", "return a->first->grows && !b->first->grows;"),
    ("half of the room for a gang is made", "preempt.c",
     ".lacks = ha_plan_nodes(job)}", ".lacks = ha_plan_nodes(job) / 2}"),
    ("attempts of equal priority are stopped for gangs", "preempt.c",
     "if (r->priority >= job->priority)\n            break;\n        if (r->stopping || (left_ms", "if (r->priority > job->priority)\n            break;\n        if (r->stopping || (left_ms"),
]


def compile_and_run(build, folder, number):
    what, name, old, new = FAULTS[number]
    source = ROOT / "coordinator" / "core" / name
    text = source.read_text()
    if text.count(old) != 1:
        return what, f"the text to change is {text.count(old)} times in {name}"
    changed = folder / f"{number}-{name}"
    changed.write_text(text.replace(old, new))
    program = folder / f"simulate-{number}"
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-w", f"-I{ROOT}", f"-I{build}",
                    *sorted((ROOT / "tests" / "sim").glob("*.c")), changed,
                    build / "coordinator" / "core" / "libha_core.a",
                    build / "common" / "conf" / "libha_conf.a",
                    build / "common" / "base" / "libha_base.a", "-lm", "-ljansson", "-lstdc++",
                    "-o", program], check=True)
    for seed in SEEDS:
        world = ["--workers", "10", "--jobs", "600"] if what in SMALL else []
        done = subprocess.run([program, "--seed", str(seed), *world], capture_output=True, text=True,
                              timeout=120, check=False)
        if done.returncode != 0:
            return what, None if "simulate: seed" in done.stderr else f"it broke: {done.stderr[-200:]}"
    return what, "no seed shows it"


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    subprocess.run(["ninja", "-C", build, "tests/sim/simulate"], check=True, stdout=subprocess.DEVNULL)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="ha-planted-") as name:
        folder = pathlib.Path(name)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for what, wrong in pool.map(lambda n: compile_and_run(build, folder, n), range(len(FAULTS))):
                missed += wrong is not None
                print(f"ok planted: {what}" if not wrong else f"not ok planted: {what}: {wrong}", flush=True)
    print(f"{len(FAULTS) - missed} of {len(FAULTS)} planted faults are seen")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
