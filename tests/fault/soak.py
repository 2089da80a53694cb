"""Kills at random until the time is up: rounds of a grid on a cluster of its own.

Each round draws its victims, moments and means from its seed.  At the end the
last database of every round has been held to the guarantees.

A round is hurt for a while, then left alone until its sweep has ended.  The
second part is mostly the wait after many crashes, up to five minutes, so that
other rounds are hurt meanwhile: HURT_AT_ONCE of ROUNDS_AT_ONCE.
"""
import collections
import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import threading
import time

import checker
import frame
from cluster import Cluster, Failure
from proxy import Proxy
from scenarios_points import ELSEWHERE, points

HURT_S, ALONE_S, WAIT_S = 60, 150, 900  # of a round: hurt, then left alone; waiting for a retry
HURT_AT_ONCE, ROUNDS_AT_ONCE = 3, 8
GRID = {"strategies": ["base", "mid", "full"], "epochs": 4, "eval": 8}
NODES = {**GRID, "gpus": 2, "nodes": 2, "accumulation": 2}  # gangs over two workers: every third round
OPTIONS = ("--set", "gang_abort=3s")
MEANS = (["kill"] * 10 + ["attempt"] * 8 + ["stop"] * 3 + ["cut"] * 3 + ["point"] * 5
         + ["client"] * 3 + ["all"])
GANG_POINTS = sorted(name for name in ELSEWHERE if name.startswith("attempt.gang"))
PROGRAMS = {"c": "coordinator", "w": "worker", "j": "judge worker"}
CLIENTS = (["submit", "grid.toml"], ["status", "grid", "--watch"], ["wait", "grid"], ["results"],
           ["set", "grid", "priority=1"], ["log", "--json"])


class Round:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.kills = collections.Counter()
        self.retries = 0
        self.hurt_s = 0
        self.grid = NODES if seed % 3 == 0 else GRID
        self.cluster = Cluster(seed, pathlib.Path("/dev/null"), step_ms=self.random.choice((30, 60, 100, 150)),
                               judge="max_attempts = 1000\nmax_reasks = 16",
                               retry="max_attempts = 1000", **self.grid)
        self.proxies = []
        self.running = {}
        self.stopped = {}
        self.ours = set()  # processes that were killed here, not at a crash point
        self.waits = False
        self.env = {"HA_NET_FAULTS": f"seed={seed};dup=0.03;reorder=0.05/200;delay=0.05/200"}

    def start(self, name, crash=None):
        c, env = self.cluster, dict(self.env)
        if crash:
            env["HA_CRASH"] = crash
        if name == "coordinator":
            return c.start_coordinator(env=env, options=OPTIONS)
        if name[0] == "w":
            return c.start_worker(name, env=env, control=self.proxies[0].endpoint,
                                  files=self.proxies[1].endpoint)
        return c.start_judge(name, env=env, control=self.proxies[0].endpoint)

    def point(self, name):
        prefix = {"c": "coordinator.", "j": "judge."}.get(
            name[0], self.random.choice(("worker.", "attempt.", "file.")))
        gangs = GANG_POINTS if self.grid is NODES else []
        names = [n for n in points() + gangs if n.startswith(prefix) and n != "worker.turn"]
        name = self.random.choice(names)
        times = 1 if name in GANG_POINTS else self.random.randrange(1, 30)
        return (f"{name}:{times}"
                f"@{self.cluster.dir}/claim-{time.monotonic_ns()}")

    def kill(self, name):
        process = self.running[name]
        if process.alive():
            process.kill()
            self.ours.add(process.pid)
            self.kills[PROGRAMS[name[0]]] += 1

    def kill_client(self):
        """hactl in the middle of what it does."""
        folder = self.cluster.dir / f"saved-{time.monotonic_ns()}"
        verb = self.random.choice((*CLIENTS, ["backup", folder]))
        client = self.cluster.start("hactl", "hactl", *verb, "--connect", self.cluster.control,
                                    "--insecure-loopback")
        time.sleep(self.random.uniform(0.0, 0.06))
        if client.alive():
            client.kill()
            self.kills["hactl"] += 1
        self.cluster.processes.remove(client)
        shutil.rmtree(folder, ignore_errors=True)

    def hurt(self):
        means = self.random.choice(MEANS)
        name = self.random.choice(list(self.running))
        victim = self.running[name]
        if name in self.stopped:
            return
        if means == "kill":
            self.kill(name)
        elif means == "client":
            self.kill_client()
        elif means == "attempt":
            for worker in [p for n, p in self.running.items() if n[0] == "w"]:
                for pid in worker.children():
                    try:
                        os.kill(pid, signal.SIGKILL)
                        self.kills["attempt"] += 1
                    except ProcessLookupError:
                        pass
        elif means == "stop":
            victim.kill(signal.SIGSTOP)
            self.stopped[name] = time.monotonic() + self.random.choice((0.3, 1.5, 4.0))
        elif means == "cut":
            for proxy in self.proxies:
                proxy.mode = self.random.choice(("pass", "hold", "hold-up", "hold-down"))
                proxy.cut()
        elif means == "point":
            self.kill(name)
            self.running[name] = self.start(name, self.point(name))
        else:
            for each in self.running:
                self.kill(each)
            self.stopped.clear()

    def mend(self, now):
        for name, at in list(self.stopped.items()):
            if now >= at:
                self.running[name].kill(signal.SIGCONT)
                del self.stopped[name]
        for name, process in list(self.running.items()):
            if not process.alive():
                if process.child.returncode == -signal.SIGKILL and process.pid not in self.ours:
                    self.kills[PROGRAMS[name[0]]] += 1  # at its crash point
                self.cluster.processes.remove(process)
                self.stopped.pop(name, None)
                self.running[name] = self.start(name)

    def look(self):
        """A job that was set aside after five losses waits for a person; one that waits for its
        next attempt, up to five minutes after many crashes, is not stuck."""
        self.waits = False
        for stage in self.cluster.stages():
            self.waits = self.waits or stage["category"] == "waiting to try again"
            if stage["state"] in ("ready", "failed") and "hactl retry" in stage["reason"]:
                self.cluster.hactl("retry", "grid", check=False)
                self.retries += 1
                return

    def play(self, end, turn):
        """turn: given back when this round is no longer hurt."""
        began = time.monotonic()
        try:
            self.begin()
            ended = self.run(lambda now: now > began + HURT_S or now > end)
        finally:
            self.hurt_s = time.monotonic() - began
            turn.release()
        for proxy in self.proxies:
            proxy.mode = "pass"
        if not ended:
            self.run(None)
        self.mend(time.monotonic() + 100)
        if not self.cluster.ended():
            raise Failure("not ended: " + str([(s["stage"], s["state"], s["reason"])
                                               for s in self.cluster.stages()]))
        try:
            frame.until(20, self.cluster.quiet, "quiet")
        except Failure:
            pass  # a word about an end is under way; the checker decides

    def begin(self):
        c = self.cluster
        c.start_evaluator("--latency", str(self.random.choice((0, 50, 300))))
        c.start_coordinator(env=self.env, options=OPTIONS)
        c.submit()
        self.proxies = [Proxy(c.control), Proxy(c.files)]
        self.running = {"coordinator": c.coordinator}
        names = ("w1", "j1", "w2", "j2")[:self.random.randrange(2, 5)]
        if self.grid is NODES:
            names = ("w1", "j1", "w2", "w3")[:self.random.randrange(3, 5)]
        for name in names:
            self.running[name] = self.start(name)

    def run(self, enough):
        """Hurt until enough(now), or (enough None) leave it alone; true: the sweep has ended."""
        c = self.cluster
        began = waited = time.monotonic()
        next_hurt = looked = began + 0.5
        while True:
            now = time.monotonic()
            if self.waits:
                waited = now
            if enough is None and (now > waited + ALONE_S or now > began + WAIT_S):
                return False
            if enough and enough(now):
                return False
            if enough and now >= next_hurt:
                for proxy in self.proxies:
                    proxy.mode = "pass"
                self.hurt()
                next_hurt = now + self.random.expovariate(1.0 / 0.7)
            self.mend(now)
            if now - looked > 1 and "coordinator" not in self.stopped:
                looked = now
                if c.ended():
                    return True
                self.look()
            time.sleep(0.03)

    def close(self):
        for proxy in self.proxies:
            proxy.close()
        self.cluster.close()


def play_round(seed, reference, end, total, lock, turn):
    play = Round(seed)
    stuck, found = [], None
    try:
        try:
            play.play(end, turn)
        except Failure as error:
            stuck.append(str(error))
        play.cluster.stop_coordinator()
        found = checker.check(play.cluster.run, GRID["eval"], len(GRID["strategies"]), play.cluster.calls,
                              not stuck, reference[play.grid is NODES] if not stuck else None)
        possibly = checker.possibly_paid(play.cluster.run)
    finally:
        if (stuck or (found and found.all())) and os.environ.get("HA_KEEP_BAD"):
            os.environ["HA_KEEP"] = "1"
        play.close()
    with lock:
        total["kills"] += sum(play.kills.values())
        total["by"] += play.kills
        total["lost"] += len(found.lost)
        total["duplicated"] += len(found.duplicated)
        total["stuck"] += len(stuck) + len(found.stuck)
        total["wrong"] += len(found.wrong)
        total["possibly_paid"] += possibly
        total["retries"] += play.retries
        total["rounds"] += 1
        for text in stuck + found.all():
            print(f"not ok soak: seed {seed}: {text}", flush=True)
        print(f"# round {total['rounds']} seed {seed}: {sum(play.kills.values())} kills in "
              f"{play.hurt_s:.0f} s, {total['kills']} in all", flush=True)


def run(seconds, seed, kills=None):
    total = dict.fromkeys(("kills", "lost", "duplicated", "stuck", "wrong", "possibly_paid",
                           "retries", "rounds"), 0)
    total["by"] = collections.Counter()
    turn = threading.Semaphore(HURT_AT_ONCE)
    lock = threading.Lock()
    draw = random.Random(seed)
    print(f"# soak of {seconds:.0f} s, seed {seed}", flush=True)
    reference = frame.reference(**GRID), frame.reference(**NODES)
    end = time.monotonic() + seconds

    def worker(first):
        next_seed = first
        while True:
            turn.acquire()
            if time.monotonic() > end or (kills and total["kills"] >= kills):
                turn.release()
                return
            play_round(next_seed, reference, end, total, lock, turn)
            with lock:
                next_seed = draw.randrange(1 << 31)
    with concurrent.futures.ThreadPoolExecutor(ROUNDS_AT_ONCE) as pool:
        for future in [pool.submit(worker, seed + i) for i in range(ROUNDS_AT_ONCE)]:
            future.result()
    print(f"# {total['rounds']} rounds, {total['retries']} jobs that had been set aside after five "
          f"losses were given another chance, {total['wrong']} other breaches")
    print("# killed: " + ", ".join(f"{n} {name}" for name, n in sorted(total["by"].items())))
    print("soak kills={kills} lost={lost} duplicated={duplicated} stuck={stuck} "
          "possibly_paid={possibly_paid}".format(**total))
    return 1 if total["lost"] + total["duplicated"] + total["stuck"] + total["wrong"] else 0
