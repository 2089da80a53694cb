"""Gangs over several workers: whatever is killed, stopped, cut off or said twice, a gang computes
whole or not at all, with effect once, and to the bytes of a gang that nobody disturbed.

The ranks are processes on the CPU of one machine that talk through shared memory; what lies between
the workers and the coordinator is what is hurt."""
import collections
import os
import pathlib
import shutil
import signal
import time

import checker
from frame import BUILD, expect, nobody_lost, nothing_again, scenario, until
from proxy import Proxy

NODES = {"gpus": 2, "nodes": 2, "accumulation": 2, "retry": "max_attempts = 100",
         "schedule": 'fuse = "never"'}
OPTIONS = ("--set", "gang_abort=3s")
WORDS = {25: "GangState", 26: "GangOrder"}  # by their numbers in proto/ha.proto
# Where a rank is held while somebody is hurt: every phase of a gang.
PHASES = (("prepare", "attempt.gang_prepared"), ("ready", "attempt.gang_ready"),
          ("id", "attempt.gang_owner"), ("go", "attempt.gang_go"),
          ("init", "attempt.gang_collective"), ("step", "attempt.step:{}"),
          ("checkpoint", "attempt.before_checkpoint"), ("end", "attempt.gang_end"))
MEANS = ("kill the rank", "kill the other rank", "kill its daemon", "kill the other daemon",
         "kill the coordinator", "stop the other rank", "stop its daemon", "stop the other daemon",
         "stop the coordinator")


class Rank:
    """A process of a gang, with the worker and the attempt that it is of."""

    def __init__(self, worker, pid):
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        self.worker, self.pid = worker, pid
        self.rank = int(words[words.index("--rank") + 1])
        self.folder = pathlib.Path(words[words.index("--dir") + 1])
        self.job, _, self.number = self.folder.name.split("-")
        self.log = self.folder / ("attempt.log" if self.rank == 0 else f"attempt-{self.rank}.log")

    def alive(self):
        try:
            stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def joined(self):
        """It has the gang's id, and a communicator with the others."""
        try:
            return f"rank {self.rank} of a gang of" in self.log.read_text()
        except OSError:
            return False

    def signal(self, number):
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass


class Nodes:
    """A coordinator and workers; what the scenarios do to them."""

    def __init__(self, test, names, slots=1, proxied=False, step_ms=100, env=None, **grid):
        self.c = test.cluster(step_ms=step_ms, **{**NODES, **grid})
        self.slots, self.env = slots, env(self.c.dir) if env else {}
        self.c.start_evaluator()
        self.c.start_coordinator(options=OPTIONS)
        self.c.submit()
        self.proxies = {}
        for name in names if proxied else ():
            self.proxies[name] = Proxy(self.c.control)
            test.proxies.append(self.proxies[name])
        self.workers = {name: self.start(name) for name in names}
        self.judge = self.c.start_judge()

    def start(self, name):
        control = self.proxies[name].endpoint if name in self.proxies else None
        return self.c.start_worker(name, slots=self.slots, grace="1s", control=control,
                                   env=self.env, settings=("stall_load=20s", "stall_step=20s"))

    def ranks(self, job=None):
        """Of one job, or all: by rank, of the newest attempt that is there."""
        found = {}
        for name, worker in self.workers.items():
            for pid in worker.children():
                try:
                    rank = Rank(name, pid)
                except (OSError, ValueError):
                    continue  # no rank, or gone
                if job in (None, rank.job):
                    found[rank.job, int(rank.number), rank.rank] = rank
        newest = collections.defaultdict(int)
        for key, number, _ in found:
            newest[key] = max(newest[key], number)
        return {rank: process for (key, number, rank), process in sorted(found.items())
                if number == newest[key]}

    def rank_of(self, pid):
        for name, worker in self.workers.items():
            try:
                if pid in worker.children():
                    return Rank(name, pid)
            except (OSError, ValueError):
                pass
        return None

    def gang(self, seconds=60):
        """Both ranks of the only job, in their steps."""
        def steps():
            ranks = self.ranks()
            return ranks if len(ranks) == 2 and all(r.joined() for r in ranks.values()) else None
        return until(seconds, steps, "a gang of two ranks computes")

    def restart_coordinator(self, down_s):
        self.c.coordinator.kill()
        time.sleep(down_s)
        self.c.start_coordinator(options=OPTIONS)

    def kill_daemon(self, name):
        self.workers[name].kill()
        self.workers[name] = self.start(name)

    def told(self, text):
        return [e for e in self.c.events() if text in e["reason"]]

    def end(self, test):
        """Everything is done; no place and no process is left behind."""
        self.c.wait_done()
        until(15, lambda: not self.ranks(), "no rank is left")
        test.verify(self.c)


def hurt(test, nodes, means, rank):
    """Whoever is told; where the other one has ended already, this one."""
    other = next((r for r in nodes.ranks(rank.job).values() if r.rank != rank.rank), rank)
    whose = other if "other" in means else rank
    if means.endswith("rank"):
        def stop():
            whose.signal(signal.SIGSTOP)

        def go_on():
            whose.signal(signal.SIGCONT)
        kill, most_s = lambda: whose.signal(signal.SIGKILL), 0.8
    else:
        name = None if "coordinator" in means else whose.worker
        process = nodes.workers[name] if name else nodes.c.coordinator

        def stop():
            process.kill(signal.SIGSTOP)

        def go_on():
            process.kill(signal.SIGCONT)
        kill = (lambda: nodes.kill_daemon(name)) if name else (lambda: nodes.restart_coordinator(0.2))
        most_s = 1.5  # less than a lease
    if means.startswith("kill"):
        kill()
        return
    stop()
    time.sleep(test.random.uniform(0.1, most_s))
    go_on()


class Acts:
    """Somebody is hurt while a rank is held at a place: once at each."""

    def __init__(self, test, folder):
        self.test, self.folder = test, folder
        self.drawn = [(phase, point.format(test.random.randrange(4, 20)), test.random.choice(MEANS))
                      for phase, point in PHASES]
        self.left = set(range(len(self.drawn)))
        for i in self.left:
            self.arm(i).touch()

    def arm(self, i):
        return self.folder / f"arm-{i}"

    def claim(self, i):
        return self.folder / f"held-{i}"

    def orders(self):
        return ",".join(f"{point}?{self.arm(i)}@{self.claim(i)}"
                        for i, (_, point, _) in enumerate(self.drawn))

    def play(self, nodes):
        """Whoever is held now; then it goes on."""
        for i, (phase, _, means) in enumerate(self.drawn):
            claim = self.claim(i)
            if not claim.exists() or not claim.read_text().strip():
                continue
            if i in self.left:
                self.left.remove(i)
                self.arm(i).unlink()
                rank = nodes.rank_of(int(claim.read_text()))
                if rank:
                    hurt(self.test, nodes, means, rank)
                self.test.note(f"{phase}: {means}" + ("" if rank else ": it was gone before"))
            claim.unlink()


@scenario("nodes", "gangs over three workers, someone killed or stopped in each phase, words lost")
def phases(test):
    acts = []

    def env(folder):
        acts.append(Acts(test, folder))
        net = ";".join(f"{t}:drop=0.2;{t}:dup=0.2;{t}:delay=0.3/300;{t}:reorder=0.1" for t in WORDS)
        return {"HA_NET_FAULTS": f"seed={test.seed};{net}", "HA_NET_TRACE": str(folder / "net"),
                "HA_HANG": acts[0].orders()}
    nodes = Nodes(test, ("w1", "w2", "w3"), slots=2, step_ms=40, env=env,
                  strategies=["local", "mid", "global"])
    end = time.monotonic() + 90
    while acts[0].left:
        expect(time.monotonic() < end and not nodes.c.ended(),
               f"not come to: {[acts[0].drawn[i] for i in acts[0].left]}")
        acts[0].play(nodes)
        time.sleep(0.05)
    nodes.end(test)
    lines = (nodes.c.dir / "net").read_text().split("\n")
    words = {name: sum(f" {number} " in line for line in lines) for number, name in WORDS.items()}
    attempts = nodes.c.one("SELECT count(*) FROM attempt")
    test.note(f"{attempts} attempts; lost, doubled or late: {words}")


def cut_off(nodes, rank, seconds):
    """The worker of a rank hears nothing and is not heard; its ranks compute."""
    proxy = nodes.proxies[rank.worker]
    proxy.mode = "hold"
    time.sleep(seconds)
    proxy.mode = "pass"


@scenario("nodes-back", "each part of a gang is cut off for less than its lease, the coordinator is away for more")
def goes_on(test):
    nodes = Nodes(test, ("w1", "w2"), proxied=True, step_ms=600, strategies=["mid"])
    gang = nodes.gang()
    acts = [lambda: cut_off(nodes, gang[0], 2.0), lambda: cut_off(nodes, gang[1], 2.0),
            lambda: nodes.restart_coordinator(3.5)]
    test.random.shuffle(acts)
    for act in acts:
        expect(all(rank.alive() for rank in gang.values()), "it ended before its time")
        act()
    expect(all(rank.alive() for rank in gang.values()), "it ended before its time")
    nodes.end(test)
    nobody_lost(nodes.c)
    nothing_again(nodes.c)


@scenario("nodes-go", "the coordinator is killed when one part of a gang knows of the id, and one does not")
def half_gone(test):
    def env(folder):
        (folder / "arm").touch()
        return {"HA_HANG": f"attempt.gang_prepared?{folder}/arm@{folder}/held"}
    nodes = Nodes(test, ("w1", "w2"), proxied=True, env=env, strategies=["mid"])
    folder = nodes.c.dir
    until(60, (folder / "held").exists, "a rank is about to be ready")
    gang = until(10, lambda: len(r := nodes.ranks()) == 2 and r, "both ranks are there")
    deaf = gang[test.random.randrange(2)]
    nodes.proxies[deaf.worker].mode = "hold-down"
    (folder / "arm").unlink()
    (folder / "held").unlink()
    until(20, lambda: nodes.told("all ranks are ready"), "the id is given out")
    nodes.c.coordinator.kill()
    nodes.proxies[deaf.worker].cut()
    time.sleep(0.3)
    expect(not deaf.joined(), f"rank {deaf.rank} was told after all")
    nodes.proxies[deaf.worker].mode = "pass"
    nodes.c.start_coordinator(options=OPTIONS)
    nodes.gang()
    test.note(f"rank {deaf.rank} had not been told")
    nodes.end(test)
    nobody_lost(nodes.c)
    nothing_again(nodes.c)


@scenario("nodes-memory", "the memory of a rank that is not the first runs out on another worker")
def starved(test):
    c = test.cluster(step_ms=20, **{**NODES, "schedule": 'fuse = "always"', "strategies": ["local", "mid"]})
    folder, limited = c.dir / "bin", c.dir / "limited"
    folder.mkdir()
    shutil.copy(BUILD / "ha-worker", folder)
    (folder / "ha-attempt").write_text(f"""#!/bin/sh
case "$*" in *"--rank 1"*) rm {limited} 2>/dev/null && ulimit -v 30000 ;; esac
exec {BUILD}/ha-attempt "$@"
""")
    (folder / "ha-attempt").chmod(0o755)
    limited.touch()
    c.start_submitted()
    for name in ("w1", "w2"):
        c.start_worker(name, program=folder / "ha-worker")
    c.start_judge()
    c.wait_done()
    test.verify(c)
    rows = c.query("SELECT a.job, a.outcome, a.reason FROM attempt a JOIN job j ON j.id = a.job"
                   " WHERE j.kind = 'train' ORDER BY a.job, a.number")
    expect([row[1] for row in rows] == ["refused", "done", "done"] and len({row[0] for row in rows}) == 3,
           f"it is split at once, and not tried again as it was: {rows}")
    expect("memory ran out, which the plan did not foresee: worker w" in rows[0][2]
           and "rank 1 of 2" in rows[0][2] and "(exit code 79)" in rows[0][2], f"the reason: {rows[0]}")
    test.note(rows[0][2])


def stored(nodes, folder):
    """A checkpoint of the attempt is among the coordinator's artifacts."""
    digests = {p.name for p in (nodes.c.run / "artifacts").rglob("*")}
    return any(checker.digest(path) in digests for path in
               folder.glob("out/*/checkpoint/checkpoint-*.safetensors"))


@scenario("nodes-lost", "a worker of a gang is stopped, or cut off, for longer than its lease, and comes back")
def lost(test):
    nodes = Nodes(test, ("w1", "w2", "w3"), proxied=True, step_ms=400, strategies=["mid"])
    gang = nodes.gang()
    until(30, lambda: stored(nodes, gang[0].folder), "the coordinator has a checkpoint")
    time.sleep(0.5)  # and is told of it
    victim, means = gang[test.random.randrange(2)], test.random.choice(("stopped", "cut off"))
    other = gang[1 - victim.rank]
    test.note(f"the worker of rank {victim.rank} is {means}")
    if means == "stopped":
        nodes.workers[victim.worker].kill(signal.SIGSTOP)
        victim.signal(signal.SIGSTOP)
    else:
        nodes.proxies[victim.worker].mode = "hold"
    until(10, lambda: nodes.told("was silent for"), "the worker is lost")
    until(2, lambda: not other.alive(), "the other part ends at once")
    again = until(20, lambda: len(r := nodes.gang()) == 2 and r[0].number != gang[0].number and r,
                  "the gang begins anew")
    expect(victim.worker not in {r.worker for r in again.values()}, "on the lost worker")
    nodes.workers[victim.worker].kill(signal.SIGCONT)
    victim.signal(signal.SIGCONT)
    nodes.proxies[victim.worker].mode = "pass"
    # It asks by a heartbeat, or tells that its rank has ended as the other is gone.
    until(10, lambda: nodes.workers[victim.worker].said("does not list this attempt any more")
          or nodes.workers[victim.worker].said("its gang is over"), "its part is refused")
    until(5, lambda: not victim.alive(), "its rank is stopped")
    expect(all(rank.alive() for rank in again.values()), "the new gang goes on")
    nodes.end(test)
    ends = nodes.c.query("SELECT a.outcome, a.progress FROM attempt a JOIN job j ON j.id = a.job"
                         " WHERE j.kind = 'train' ORDER BY a.number")
    expect(ends == [("lost", 1), ("done", 1)], f"the attempts ended as {ends}")
    (crashes,), = nodes.c.query("SELECT crashes FROM job WHERE kind = 'train'")
    expect(crashes == 0, f"{crashes} crashes were charged")
