"""The power goes at a sync point: all that was acknowledged until then is there afterwards."""
import json
import shutil
import sqlite3

import checker
from frame import SHIM, Failure, expect, reference, scenario, until
from power import Disk, records, rely

APPEND_ONLY = {  # what is never taken away again while a sweep runs, by columns that name it
    "event": "id, subject, before, after", "sweep": "id, name", "answer": "result, prompt, sample",
    "score": "item, dimension, value", "judge_raw": "call", "attempt": "job, generation, number",
    "product": "result, kind, step, name, sha256", "request": "key, client"}

# The database is looked at below, by its rows; the endpoint is written at each start.
SPARE = ("coordinator.db", "coordinator.db-wal", "coordinator.db-journal",
         "endpoint before its rename")


def rows_of(path):
    """What a database says of the tables above, checkpoints left out, which are pruned."""
    db = sqlite3.connect(path)
    try:
        return {table: {row for row in db.execute(f"SELECT {columns} FROM {table}")
                        if table != "product" or row[1] != "checkpoint"}
                for table, columns in APPEND_ONLY.items()}
    finally:
        db.close()


class Recording:
    """A grid from its submit to its end, with other submits between; who was told what, when."""

    def __init__(self, test):
        self.cluster = c = test.cluster()
        self.trace = c.dir / "trace"
        self.env = {"LD_PRELOAD": str(SHIM), "HA_SHIM_TRACE": str(self.trace),
                    "HA_SHIM_ROOT": str(c.run)}
        self.told = []  # (position in the record, name of a sweep)
        c.run.mkdir()
        c.start_evaluator()
        c.start_coordinator(env=self.env)
        self.submit("grid")
        c.start_worker()
        c.start_judge()
        for i in range(3):
            c.wait_training(1 + 6 * i)
            self.submit(f"other{i}", strategies=["base"], eval=2, tokens=9 + i)
        if test.random.random() < 0.5:  # a start on what is there writes other things
            c.coordinator.kill()
            c.start_coordinator(env=self.env)
        c.wait_done()
        for i in range(3):
            c.hactl("wait", f"other{i}", "--timeout", 60, check=False)
        c.stop_coordinator()

    def submit(self, name, **changes):
        self.cluster.submit(name=name, **changes)
        self.told.append((self.trace.stat().st_size, name))


def play(recording, points, each):
    """Replay the record; each(disk, position, database as it was committed) before these syncs."""
    root = recording.cluster.run
    database, log = f"{root}/coordinator.db", f"{root}/coordinator.db-wal"
    disk, position, number = Disk(root), 0, 0
    committed = b"", b""
    for after, what, path, offset, data, other in records(recording.trace):
        if what == "sync":
            number += 1
            if number in points:
                each(disk, position, committed)
        disk.take(what, path, offset, data, other)
        position = after
        if what == "sync" and path == log and points and number < max(points):
            committed = disk.live(database), disk.live(log)


def syncs(recording):
    return sum(r[1] == "sync" for r in records(recording.trace))


class Verdict:
    def __init__(self, test, recording):
        self.test, self.recording = test, recording
        self.count = self.refused = 0

    def before(self, committed):
        """The rows that were committed, as the program saw it."""
        folder = self.recording.cluster.dir / "committed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in zip(("coordinator.db", "coordinator.db-wal"), committed):
            (folder / name).write_bytes(data)
        try:
            return rows_of(folder / "coordinator.db")
        except sqlite3.DatabaseError:
            return {}  # it has no tables yet

    def look(self, disk, position, committed):
        """Start a coordinator on two disks that may be there now."""
        for random in (None, self.test.random):
            c = self.test.cluster()
            self.count += 1
            disk.image(c.run, random)
            c.start_coordinator()
            c.stop_coordinator()
            expect(c.coordinator.child.returncode == 0, "the coordinator does not start and stop: "
                   + c.coordinator.log.read_text(errors="replace")[-300:])
            try:
                self.compare(c, position, committed)
            except Failure as error:
                kind = "some of the rest" if random else "only what was synced"
                raise Failure(f"sync point at byte {position} of the record, {kind} on the disk: "
                              f"{error}") from None
            c.close()

    def compare(self, c, position, committed):
        have, want = rows_of(c.run / "coordinator.db"), self.before(committed)
        sweeps = {name for _, name in have["sweep"]}
        for told_at, name in self.recording.told:
            expect(told_at > position or name in sweeps, f"the sweep {name} was acknowledged and "
                                                         "is gone")
        for table, rows in want.items():
            gone = rows - have[table]
            expect(not gone, f"{len(gone)} committed rows of {table} are gone: {sorted(gone)[:3]}")
        found = checker.check(c.run, finished=False)
        expect(not found.all(), "; ".join(found.all()[:4]))


def go_on(test, recording, disk):
    """From a disk after power loss to the end of the grid."""
    c = test.cluster()
    disk.image(c.run, test.random)
    for name in ("evaluator.port", "calls.txt"):
        shutil.copy(recording.cluster.dir / name, c.dir / name)
    c.evaluator_port = recording.cluster.evaluator_port
    c.start_coordinator()
    c.submit()
    c.start_worker()
    c.start_judge()
    c.wait_done()
    for name in json.loads(c.hactl("list", "--json").stdout):
        c.hactl("wait", name["name"], "--timeout", 60, check=False)
    until(15, c.quiet, "the attempts have ended")
    c.stop_coordinator()
    found = checker.check(c.run)  # the recorded run made calls as well
    expect(not found.all(), f"gone on with: {found.all()[:4]}")
    db = c.database()
    expect(checker.adapters(db) == reference()[0], "the adapters of an undisturbed run")
    db.close()


def power_loss(test, sample):
    recording = Recording(test)
    count = syncs(recording)
    expect(count > 100, f"only {count} syncs are recorded")
    # Nothing is promised before the first commits: the folder is being made.
    points = range(1, count + 1)
    if sample and sample < count:
        points = sorted(test.random.sample(range(1, count + 1), sample))
    verdict = Verdict(test, recording)
    play(recording, set(points), verdict.look)
    test.note(f"{count} sync points, {len(points)} tried, {verdict.count} disks")
    findings, note = rely(recording.cluster.run,
                          [(recording.trace, Disk(recording.cluster.run))], SPARE)
    expect(not findings, "; ".join(findings[:4]))
    test.note(note)
    at = test.random.randrange(count // 3, count)
    play(recording, {at}, lambda disk, position, committed: go_on(test, recording, disk))


@scenario("power", "the power goes at a sync point of the coordinator (a sample of them)")
def power_sample(test):
    power_loss(test, 25)


@scenario("power-all", "the power goes at every sync point of the coordinator", slow=True)
def power_all(test):
    power_loss(test, None)
