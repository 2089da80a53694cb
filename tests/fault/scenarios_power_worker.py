"""The power of the machine of a worker, or of a judge worker, goes: nothing that was
acknowledged is lost, and its programs start on whatever is on the disk then."""
import copy
import json
import os
import pathlib
import shutil
import time

import checker
from frame import SHIM, expect, scenario, until
from power import Disk, journal_records, records, rely

WORKER_POINTS = ("worker.before_start", "worker.before_report", "worker.after_report",
                 "worker.artifact_told", "worker.before_upload", "worker.after_upload",
                 "attempt.checkpoint_written", "attempt.checkpoint_told",
                 "attempt.answer", "file.before_rename", "file.after_rename")
JUDGE_POINTS = ("judge.after_reply", "judge.after_spool", "judge.after_sync", "judge.before_drop")


class Machine:
    """One program and those that it starts, with a folder on a disk that may lose its power."""

    def __init__(self, test, cluster, folder):
        self.test, self.cluster, self.folder = test, cluster, folder
        self.lives = 0
        self.records = []  # of each life, with the disk before it
        self.folder.mkdir(exist_ok=True)

    def env(self, orders=""):
        """For its next life."""
        self.lives += 1
        self.trace = self.cluster.dir / f"trace-{self.folder.name}-{self.lives}"
        self.disk = Disk(self.folder)
        self.disk.load()
        self.records.append((self.trace, copy.deepcopy(self.disk)))
        return {"LD_PRELOAD": str(SHIM), "HA_SHIM_TRACE": str(self.trace),
                "HA_SHIM_ROOT": str(self.folder), **({"HA_CRASH": orders} if orders else {})}

    def attempts(self):
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(
                        f"{self.folder}/"):
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def replay(self, until_sync=None):
        number = 0
        for _, what, path, offset, data, other in records(self.trace):
            number += what == "sync"
            if until_sync is not None and number > until_sync:
                break
            self.disk.take(what, path, offset, data, other)
        return number

    def lose_power(self, drawn):
        """All its programs are gone at once, and what was not synced: all, or (drawn) some of it.
        What was synced: names and contents of files."""
        until(10, lambda: not self.attempts(), "the attempts have died with their daemon")
        if self.trace.exists():
            self.replay()
        shutil.rmtree(self.folder)
        self.disk.image(self.folder, self.test.random if drawn else None)
        return [(pathlib.Path(path).name, bytes(file.durable))
                for path, file in self.disk.durable_names.items()
                if file and os.path.exists(path)]  # its folder may be gone


# What the next daemon makes or fetches anew, and what it puts together from the coordinator's words.
SPARE = ("cache", "cache/HASH before its rename", "digests", "N-N-N/inputs", "N-N-N/inputs/adapter",
         "N-N-N/inputs/checkpoint", "N-N-N/job.json before its rename", "cgroup before its rename",
         "replies.spool before its rename")


def relied(test, machine):
    """What was relied on in all its lives was on the disk."""
    lives = [(trace, disk) for trace, disk in machine.records if trace.exists()]
    findings, note = rely(machine.folder, lives, SPARE)
    expect(not findings, "; ".join(findings[:4]))
    test.note(note)


def spooled_calls(data):
    """The calls whose replies are in a spool (judge-worker/spool.h)."""
    calls, at = set(), 0
    while at < len(data):
        end = data.find(b"\n", at)
        words = data[at:end].split()
        at = end + 1
        if words[0] == b"R":
            header, raw = int(words[2]), int(words[3])
            calls.add(json.loads(data[at:at + header])["call"])
            at += header + raw + 2
    return calls


def lives(test, cluster, machine, start, points, synced):
    """One life of the program for each point, which ends there without power.
    synced(point, drawn, files, next process) sees what the next finds."""
    came, before = 0, None
    for point in [*points, None]:
        claim = cluster.dir / f"claim-{point}"
        times = 1 if point == "worker.before_forget" else test.random.randrange(1, 3)
        order = f"{point}:{times}@{claim}"
        process = start(machine.env(order if point else ""), f"{machine.folder.name}-{machine.lives}")
        if before:
            synced(*before, process)
        if not point:
            break
        until(60, lambda: claim.exists() or cluster.ended(), f"{point}, or the end")
        came += claim.exists()
        process.kill()  # where it was an attempt that died
        drawn = test.random.random() < 0.5 and point != "worker.before_forget"
        before = point, drawn, machine.lose_power(drawn)
    cluster.wait_done()
    test.verify(cluster)
    expect(came >= 2, f"only {came} of {len(points)} points were come to: {points}")
    return came


def worker_lives(test, points):
    c = test.cluster(strategies=["base", "local", "mid"], step_ms=30,
                     retry="max_attempts = 100", schedule='fuse = "never"')
    machine = Machine(test, c, c.dir / "w1")
    found = []

    def synced(point, drawn, files, process):
        count = sum(len(journal_records(data)) for name, data in files if name == "journal")
        expect(count or point != "worker.before_forget", "an attempt ended, and its journal has no "
               "record that was synced")
        if count and not drawn:  # else it may be known that they were delivered
            found.append(count)
            until(10, lambda: process.said("results that are not delivered"),
                  f"after {point}: {count} synced results are told")

    c.start_submitted()
    c.start_judge()
    # Come to at every attempt's end: what it told was synced and delivered, and is not forgotten.
    points = ["worker.before_forget", *points]
    came = lives(test, c, machine, lambda env, log: c.start_worker(env=env, log=log), points,
                 synced)
    expect(found, "no result was in a journal when the power went")
    test.note(f"{came} of {len(points)} points; results kept: {found}")
    relied(test, machine)


def judge_lives(test, points):
    c = test.cluster(epochs=1, eval=5, judge="max_attempts = 30")
    machine = Machine(test, c, c.dir / "j1")
    kept = set()

    def synced(_, __, files, ___):
        for name, data in files:
            if name == "replies.spool":
                kept.update(spooled_calls(data))

    c.start_submitted(("--latency", "30"))
    c.start_worker()
    came = lives(test, c, machine, lambda env, log: c.start_judge(env=env, log=log), points,
                 synced)
    stored = {row[0] for row in c.query("SELECT call FROM judge_raw")}
    expect(kept, "no reply was in the spool when the power went")
    expect(kept <= stored, f"replies that were synced are gone: {sorted(kept - stored)}")
    extra = sum(1 for _ in c.calls.open()) - 10
    paid = checker.possibly_paid(c.run)
    expect(0 <= extra <= paid, f"{extra} calls too many, {paid} possibly paid")
    test.note(f"{came} of {len(points)} points; {len(kept)} replies kept")
    relied(test, machine)


@scenario("power-worker", "a worker's machine loses its power at drawn points")
def power_worker(test):
    worker_lives(test, test.random.sample(WORKER_POINTS, 3))


@scenario("power-worker-all", "a worker's machine loses its power at every point", slow=True)
def power_worker_all(test):
    worker_lives(test, test.random.sample(WORKER_POINTS, len(WORKER_POINTS)))


@scenario("power-judge", "a judge worker's machine loses its power at each point")
def power_judge(test):
    judge_lives(test, test.random.sample(JUDGE_POINTS, len(JUDGE_POINTS)))


def starts(test, cluster, machine, count, start):
    """The program starts on disks of `count` sync points, each twice; eight at a time."""
    total = machine.replay()
    points = sorted(test.random.sample(range(1, total + 1), min(count, total)))
    left = [(point, draw) for point in points for draw in (None, test.random)]
    while left:
        group, left = left[:8], left[8:]
        running = []
        for point, draw in group:
            folder = cluster.dir / f"{machine.folder.name}-{point}-{'some' if draw else 'none'}"
            machine.disk = Disk(machine.folder)
            machine.replay(point)
            machine.disk.image(folder, draw)
            running.append((folder.name, start(folder, folder.name)))
        time.sleep(1)
        for name, process in running:
            expect(process.alive(), f"{name}: it does not start: "
                   + process.log.read_text(errors="replace")[-300:])
            process.kill()
    return total


@scenario("power-starts", "worker and judge worker start on what any cut of the power leaves")
def power_starts(test):
    c = test.cluster(retry="max_attempts = 100")
    worker, judge = Machine(test, c, c.dir / "w1"), Machine(test, c, c.dir / "j1")
    c.start_submitted()
    c.start_worker(env=worker.env())
    c.start_judge(env=judge.env())
    c.wait_done()
    test.verify(c)
    for process in c.processes:  # nobody is there whom the others could disturb
        process.kill()
    count = [starts(test, c, worker, 8, lambda folder, name: c.start_worker(
                 name, work_dir=folder)),
             starts(test, c, judge, 8, lambda folder, name: c.start_judge(name, spool=folder))]
    test.note(f"{count[0]} and {count[1]} sync points")
    relied(test, worker)
    relied(test, judge)
