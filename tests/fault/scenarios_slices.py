"""Work that takes the coordinator many turns is cut off in its first, a middle and its last slice:
nothing half done is seen, the client's next question gets its one answer, and the work goes on."""
import json
import signal
import time

import checker
from frame import SHIM, Call, Failure, expect, scenario, until
from scenarios_power import Verdict, play, syncs

SEEDS = 300  # two points each, of which base is one cell: 10 slices of reading, 301 cells


def seeds(first):
    """A large grid: write_grid's last text may be more than a judge's."""
    return {"judge": f"\n[vary]\nseed = {list(range(first, first + SEEDS))}", "eval": 2}


def through(c, orders, check, *command):
    """The command, while the coordinator dies at each of the orders; it ends alive."""
    call = None
    for order in [*orders, None]:
        c.start_coordinator(env={"HA_CRASH": f"coordinator.{order}"} if order else None)
        call = call or Call(c, *command)
        if order:
            until(20, lambda: not c.coordinator.alive() or call.failed(), f"the point {order}")
            expect(not call.failed(), f"{order}: hactl {command[0]}: {call.failed()}")
            expect(c.coordinator.child.returncode == -signal.SIGKILL, f"{order} was not reached")
            check(order)
    done = call.join()
    expect(done.returncode == 0, f"hactl {command[0]}: {done.stderr.strip()[-200:]}")
    return done.stdout


def settle(c):
    """No slice is left to do, and the coordinator is stopped."""
    for _ in range(30):
        time.sleep(0.4)
        c.stop_coordinator()
        if c.query("SELECT expanding, chore FROM sweep") == [(0, "")]:
            return
        c.start_coordinator()
    raise Failure("the grid is not expanded")


def whole(c, version, live, gone, cancelled=0):
    """One sweep with all its cells and stages, and no more."""
    found = c.query("SELECT name, version, expanding, chore, cells, stages, stages_cancelled FROM sweep")
    want = [("grid", version, 0, "", live, 3 * live - 1, cancelled)]
    expect(found == want, f"the sweep is {found}, not {want}")
    cells = c.query("SELECT count(*), total(live), count(DISTINCT name) FROM cell")
    expect(cells == [(live + gone, live, live + gone)], f"cells, live, names: {cells}")
    stages = c.query("SELECT count(*), count(DISTINCT cell || kind) FROM stage WHERE live")
    expect(stages == [(3 * live - 1, 3 * live - 1)], f"stages: {stages}")
    orphans = c.one("SELECT count(*) FROM stage s JOIN cell c ON c.id = s.cell WHERE s.live > c.live")
    expect(orphans == 0, f"{orphans} stages of cells that are gone are live")
    made = c.query("SELECT after FROM event WHERE subject = 'sweep grid' AND before = '' ORDER BY id")
    expect(made == [("submitted",), ("changed",)][:version], f"the sweep was made: {made}")
    verdict = checker.check(c.run, finished=False)
    expect(not verdict.all(), "; ".join(verdict.all()[:4]))


@scenario("slices", "coordinator killed in slices of a large submit: read, made into cells")
def submit_in_slices(test):
    c = test.cluster(**seeds(0))

    def unread(order):
        tables = [c.one(f"SELECT count(*) FROM {t}") for t in ("sweep", "cell", "stage", "request")]
        expect(tables == [0, 0, 0, 0], f"{order}: sweep, cell, stage, request: {tables}")

    def unmade(order):
        row = c.query("SELECT expanding, cells FROM sweep")
        expect(row == [(1, SEEDS + 1)] or "slice" in order and not row, f"{order}: {row}")
        expect(c.one("SELECT count(*) FROM request") == len(row), f"{order}: the stored reply")

    def either(order):
        (unread if "read" in order else unmade)(order)

    said = through(c, ["slice_reads:1", "slice_reads:5", "last_read", "slice_expands:1",
                       "slice_expands:150", "last_expanded"], either, "submit", c.write_grid())
    expect("created" in said or str(SEEDS + 1) in said, f"the answer is {said[-200:]}")
    settle(c)
    whole(c, 1, SEEDS + 1, 0)


@scenario("slices-again", "coordinator killed in slices of a changed submit: compared, retired")
def resubmit_in_slices(test):
    c = test.cluster(**seeds(0))
    c.start_coordinator()
    c.submit()
    settle(c)
    grid = c.query("SELECT submit_sha256, version, expanding FROM sweep")

    def uncompared(order):
        if "compare" in order:
            row = c.query("SELECT submit_sha256, version, expanding FROM sweep")
            newer = c.one("SELECT count(*) FROM cell WHERE version > 1 OR NOT live")
            expect(row == grid and newer == 0, f"{order}: {row}, {newer} newer cells")
        else:
            row = c.query("SELECT version, expanding FROM sweep")
            expect(row == [(2, 1)], f"{order}: {row}")

    through(c, ["slice_compares:1", "slice_compares:150", "last_compared", "slice_retires:1",
                "slice_retires:50", "last_expanded"], uncompared,
            "submit", c.write_grid(**seeds(100)))
    settle(c)
    whole(c, 2, SEEDS + 1, 100)


@scenario("slices-change", "coordinator killed in slices of a cancel and a retry")
def change_in_slices(test):
    c = test.cluster(**seeds(0))
    all_stages = 3 * SEEDS + 2
    c.start_coordinator()
    c.submit()
    settle(c)

    def begun(state, before):
        def check(order):
            row = c.query("SELECT state, chore <> '' FROM sweep")[0]
            expect(row == (state, 1) or "slice" in order and row == (before, 0), f"{order}: {row}")
        return check

    points = ["slice_changes:1", "slice_changes:300", "last_changed"]
    through(c, points, begun("cancelled", "running"), "cancel", "grid")
    until(20, lambda: c.status()["state"] == "cancelled", "it is cancelled")
    c.stop_coordinator()
    whole(c, 1, SEEDS + 1, 0, all_stages)
    through(c, points, begun("running", "cancelled"), "retry", "grid")
    settle(c)
    whole(c, 1, SEEDS + 1, 0)


@scenario("slices-set", "coordinator killed in slices of a set, before and after its commit")
def set_in_slices(test):
    c = test.cluster(**seeds(0))
    c.start_coordinator()
    c.submit()
    settle(c)

    def unset(order):
        row = c.query("SELECT priority, max_attempts FROM sweep")
        said = c.one("SELECT count(*) FROM event WHERE after = 'set'")
        expect(row == [(0, 3)] and said == 0, f"{order}: {row}, {said} lines of history")

    through(c, ["slice_sets:1", "slice_sets:5", "last_set"], unset,
            "set", "grid", "priority=5", "retry.max_attempts=7")
    c.stop_coordinator()
    row = c.query("SELECT priority, max_attempts FROM sweep")
    said = c.one("SELECT count(*) FROM event WHERE after = 'set'")
    expect(row == [(5, 7)] and said == 2, f"set: {row}, {said} lines of history")
    answers = c.one("SELECT count(*) FROM request")
    expect(answers == 2, f"{answers} stored answers, of a submit and a set")
    expect(c.one("SELECT count(*) FROM cell WHERE version > 1 OR NOT live") == 0, "cells changed")


@scenario("slices-pause", "coordinator killed before and after the commit of a pause and a resume")
def pause_and_resume(test):
    c = test.cluster(**seeds(0))
    c.start_coordinator()
    c.submit()
    settle(c)
    for verb, holds in (("pause", 1), ("resume", 0)):
        arm = c.dir / "arm"
        for order in ("before_commit", "after_commit"):
            c.start_coordinator(env={"HA_CRASH": f"coordinator.{order}?{arm}"})
            arm.touch()
            call = Call(c, verb, "grid/qwen2.5-demo")
            until(20, lambda: not c.coordinator.alive(), f"the crash point {order}")
            arm.unlink()
            c.start_coordinator()
            done = call.join()
            expect(done.returncode == 0, f"hactl {verb}, {order}: {done.stderr.strip()[-200:]}")
            c.stop_coordinator()
            count = c.one("SELECT count(*) FROM hold")
            expect(count == holds, f"{verb}, {order}: {count} holds")
    whole(c, 1, SEEDS + 1, 0)


class Recording:
    """A large submit, its change and its end, on a disk that is recorded."""

    def __init__(self, test):
        self.cluster = c = test.cluster(**seeds(0))
        self.trace = c.dir / "trace"
        self.told = []
        c.run.mkdir()
        c.start_coordinator(env={"LD_PRELOAD": str(SHIM), "HA_SHIM_TRACE": str(self.trace),
                                 "HA_SHIM_ROOT": str(c.run)})
        c.submit()
        self.told.append((self.trace.stat().st_size, "grid"))
        c.submit(**seeds(100))
        settle(c)


@scenario("power-slices", "the power goes between the slices of a large submit")
def power_slices(test):
    recording = Recording(test)
    count = syncs(recording)
    points = sorted(test.random.sample(range(8, count + 1), 5))
    verdict = Verdict(test, recording)

    def look(disk, position, committed):
        for random in (None, test.random):
            c = test.cluster()
            disk.image(c.run, random)
            c.start_coordinator()
            if json.loads(c.hactl("list", "--json").stdout):
                settle(c)
                version = c.one("SELECT version FROM sweep")
                whole(c, version, SEEDS + 1, 100 if version == 2 else 0)
            c.stop_coordinator()
            verdict.compare(c, position, committed)
            c.close()

    play(recording, set(points), look)
    test.note(f"{count} sync points, {len(points)} tried, two disks each")
