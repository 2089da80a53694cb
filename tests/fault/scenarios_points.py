"""Every crash point of the code is come to, and nothing is lost by it."""
import functools
import re

from frame import ROOT, expect, scenario

# Come to elsewhere: 4 (migrations), restore, gc, wal, slices, 21 and 22 (gangs).
ELSEWHERE = {"coordinator.in_migration", "coordinator.after_migration",
             "coordinator.restore_marked", "coordinator.restore_moved",
             "coordinator.restore_replaced", "coordinator.artifact_before_remove",
             "attempt.gang_ready", "attempt.gang_go", "attempt.gang_prepared",
             "attempt.gang_owner", "attempt.gang_weights", "attempt.gang_answers",
             "coordinator.before_wal_checkpoint", "coordinator.after_wal_checkpoint",
             "coordinator.slice_reads", "coordinator.last_read", "coordinator.slice_compares",
             "coordinator.last_compared", "coordinator.slice_expands", "coordinator.slice_retires",
             "coordinator.last_expanded", "coordinator.slice_changes", "coordinator.last_changed",
             "coordinator.slice_sets", "coordinator.last_set"}


@functools.cache
def points():
    found = set()
    for folder in ("common", "coordinator", "worker", "judge-worker"):
        for path in (ROOT / folder).rglob("*.c"):
            found |= set(re.findall(r'HA_CRASH_POINT\("([a-z_.]+)"\)', path.read_text()))
    return sorted(found - ELSEWHERE)


def crash_at_each(test, program, names):
    c = test.cluster(strategies=["base", "mid"], step_ms=120, retry="max_attempts = 100")
    claims = c.dir / "claims"
    claims.mkdir()
    # The coordinator writes one such file, at its start; the attempt that is hurt last may have
    # little left to do.
    once = ("f", "attempt.")
    orders = ",".join(f"{name}:{1 if name.startswith(once) else test.random.randrange(1, 4)}"
                      f"@{claims}/{name}" for name in names)
    env = {"HA_CRASH": orders}
    mine = {key: env if key == program else None for key in ("coordinator", "worker", "judge")}
    c.start_submitted()
    c.coordinator.kill()  # it is started by the supervisor, as the others are
    deaths = c.supervise({
        "coordinator": lambda: c.start_coordinator(env=mine["coordinator"]),
        "w1": lambda: c.start_worker(env=mine["worker"]),
        "j1": lambda: c.start_judge(env=mine["judge"])}, 200)
    test.verify(c)
    reached = {path.name for path in claims.iterdir()}
    test.note(f"{len(reached)} of {len(names)} points, {deaths} deaths")
    expect(len(reached) >= len(names) - 1, f"not come to: {sorted(set(names) - reached)}")


def add(program, prefixes, what):
    @scenario(f"points-{program}", f"{what} killed at each of its crash points")
    def run(test):
        crash_at_each(test, program,
                      [n for n in points() if n.startswith(prefixes) and n != "worker.turn"])
    return run


add("coordinator", ("coordinator.", "file."), "the coordinator")
add("worker", ("worker.", "attempt.", "file."), "worker and attempt")
add("judge", ("judge.",), "the judge worker")


@scenario("all", "every program is killed at once, twice")
def all_at_once(test):
    c = test.cluster(step_ms=60)
    worker, judge = c.start_all()
    for _ in range(2):
        c.wait_training(steps=test.random.randrange(1, 12))
        for process in (c.coordinator, worker, judge):
            process.kill()
        c.start_coordinator()
        worker, judge = c.start_worker(), c.start_judge()
    c.wait_done()
    test.verify(c)
