"""Kills at random until the time is up: rounds of a grid on a cluster of its own.

Each round draws its victims, moments and means from its seed.  At the end the
last database of every round has been held to the guarantees.
"""
import concurrent.futures
import os
import pathlib
import random
import signal
import threading
import time

import checker
import frame
from cluster import Cluster, Failure
from proxy import Proxy
from scenarios_points import points

HURT_S, ALONE_S, WAIT_S = 90, 150, 900  # of a round: hurt, then left alone; waiting for a retry
MEANS = ["kill"] * 10 + ["attempt"] * 4 + ["stop"] * 3 + ["cut"] * 3 + ["point"] * 5 + ["all"]


class Round:
    def __init__(self, seed, trace, total):
        self.seed, self.random, self.total = seed, random.Random(seed), total
        self.kills = 0
        self.retries = 0
        self.cluster = Cluster(seed, trace, step_ms=self.random.choice((0, 30, 60, 100)),
                               judge="max_attempts = 1000\nmax_reasks = 16",
                               retry="max_attempts = 1000")
        self.proxies = []
        self.running = {}
        self.stopped = {}
        self.waits = False
        self.env = {"HA_NET_FAULTS": f"seed={seed};dup=0.03;reorder=0.05/200;delay=0.05/200"}

    def start(self, name, crash=None):
        c, env = self.cluster, dict(self.env)
        if crash:
            env["HA_CRASH"] = crash
        if name == "coordinator":
            return c.start_coordinator(env=env)
        if name[0] == "w":
            return c.start_worker(name, env=env, control=self.proxies[0].endpoint,
                                  files=self.proxies[1].endpoint)
        return c.start_judge(name, env=env, control=self.proxies[0].endpoint)

    def point(self, name):
        prefix = {"c": "coordinator.", "j": "judge."}.get(
            name[0], self.random.choice(("worker.", "attempt.", "file.")))
        names = [n for n in points() if n.startswith(prefix) and n != "worker.turn"]
        return (f"{self.random.choice(names)}:{self.random.randrange(1, 30)}"
                f"@{self.cluster.dir}/claim-{time.monotonic_ns()}")

    def hurt(self):
        means = self.random.choice(MEANS)
        name = self.random.choice(list(self.running))
        victim = self.running[name]
        if name in self.stopped:
            return
        if means == "kill":
            victim.kill()
            self.kills += 1
        elif means == "attempt":
            for worker in [p for n, p in self.running.items() if n[0] == "w"]:
                for pid in worker.children():
                    try:
                        os.kill(pid, signal.SIGKILL)
                        self.kills += 1
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
            victim.kill()
            self.kills += 1
            self.running[name] = self.start(name, self.point(name))
        else:
            for process in self.running.values():
                process.kill()
                self.kills += 1
            self.stopped.clear()

    def mend(self, now):
        for name, at in list(self.stopped.items()):
            if now >= at:
                self.running[name].kill(signal.SIGCONT)
                del self.stopped[name]
        for name, process in list(self.running.items()):
            if not process.alive():
                if process.child.returncode == -signal.SIGKILL and "HA_CRASH" in str(name):
                    self.kills += 1
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

    def play(self, end):
        c = self.cluster
        c.start_evaluator("--latency", str(self.random.choice((0, 50, 300))))
        c.start_coordinator(env=self.env)
        c.submit()
        self.proxies = [Proxy(c.control), Proxy(c.files)]
        self.running = {"coordinator": c.coordinator}
        for name in ("w1", "j1", "w2", "j2")[:self.random.randrange(2, 5)]:
            self.running[name] = self.start(name)
        began = time.monotonic()
        next_hurt = looked = began + 0.5
        waited = began
        calm = None  # since when it is left alone
        while True:
            now = time.monotonic()
            if self.waits:
                waited = now
            if calm and (now > max(calm, waited) + ALONE_S or now > calm + WAIT_S):
                break
            # Near the end of its time, and of the soak's, it is left alone.
            if not calm and (now > began + HURT_S or now > end):
                calm = now
                for proxy in self.proxies:
                    proxy.mode = "pass"
            if not calm and now >= next_hurt:
                for proxy in self.proxies:
                    proxy.mode = "pass"
                self.hurt()
                next_hurt = now + self.random.expovariate(1.0 / 0.7)
            self.mend(now)
            if now - looked > 1 and "coordinator" not in self.stopped:
                looked = now
                if c.ended():
                    break
                self.look()
            time.sleep(0.03)
        for proxy in self.proxies:
            proxy.mode = "pass"
        self.mend(time.monotonic() + 100)
        if not c.ended():
            raise Failure("not ended: " + str([(s["stage"], s["state"], s["reason"])
                                               for s in c.stages()]))
        try:
            frame.until(20, c.quiet, "quiet")
        except Failure:
            pass  # a word about an end is under way; the checker decides

    def close(self):
        for proxy in self.proxies:
            proxy.close()
        self.cluster.close()


def play_round(seed, trace, end, total, lock):
    play = Round(seed, trace, total)
    stuck, found = [], None
    try:
        grid = play.cluster.grid
        reference = frame.reference()
        try:
            play.play(end)
        except Failure as error:
            stuck.append(str(error))
        play.cluster.stop_coordinator()
        found = checker.check(play.cluster.run, grid["eval"], 2, play.cluster.calls,
                              not stuck, reference if not stuck else None)
        possibly = checker.possibly_paid(play.cluster.run)
    finally:
        if (stuck or (found and found.all())) and os.environ.get("HA_KEEP_BAD"):
            os.environ["HA_KEEP"] = "1"
        play.close()
    with lock:
        total["kills"] += play.kills
        total["lost"] += len(found.lost)
        total["duplicated"] += len(found.duplicated)
        total["stuck"] += len(stuck) + len(found.stuck)
        total["wrong"] += len(found.wrong)
        total["possibly_paid"] += possibly
        total["retries"] += play.retries
        total["rounds"] += 1
        for text in stuck + found.all():
            print(f"not ok soak: seed {seed}: {text}", flush=True)
        print(f"# round {total['rounds']} seed {seed}: {play.kills} kills, "
              f"{total['kills']} in all", flush=True)


def run(seconds, seed, kills=None, jobs=2):
    total = dict.fromkeys(("kills", "lost", "duplicated", "stuck", "wrong", "possibly_paid",
                           "retries", "rounds"), 0)
    lock = threading.Lock()
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    print(f"# soak of {seconds:.0f} s, seed {seed}", flush=True)
    trace = pathlib.Path("/dev/null")

    def worker(first):
        next_seed = first
        while time.monotonic() < end and (not kills or total["kills"] < kills):
            play_round(next_seed, trace, end, total, lock)
            with lock:
                next_seed = draw.randrange(1 << 31)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(worker, seed + i) for i in range(jobs)]:
            future.result()
    print(f"# {total['rounds']} rounds, {total['retries']} jobs that had been set aside after five "
          f"losses were given another chance, {total['wrong']} other breaches")
    print("soak kills={kills} lost={lost} duplicated={duplicated} stuck={stuck} "
          "possibly_paid={possibly_paid}".format(**total))
    return 1 if total["lost"] + total["duplicated"] + total["stuck"] + total["wrong"] else 0
