"""A small cluster of real programs on loopback, which a test may hurt.

Everything lies in one temporary folder; `close` ends every process that was
started here, and only those.  The programs come from a build with
-Dfaults=true, so that environment variables reach their crash points
(common/base/fault.h) and their network (common/net/faults.h).
"""
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HA_BUILD", ROOT / "build" / "fault"))

# Leases are short, so that a test sees one expire; not so short that a busy
# machine makes one expire by itself.
HEARTBEAT_MS, LATE_MS, LOST_MS = 250, 1200, 3000


class Failure(Exception):
    """What a test found wrong."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


_given = set()


def free_port():
    """Below the ports that the kernel gives to others, and never one twice."""
    while True:
        port = random.SystemRandom().randrange(15000, 30000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def until(seconds, condition, what):
    """Poll until the condition holds; its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"after {seconds} s not yet: {what}")
        time.sleep(0.05)


class Process:
    """A program that was started, with its log."""

    def __init__(self, cluster, name, arguments, env):
        self.name = name
        self.log = cluster.dir / f"{name}.log"
        environment = {**os.environ, "NO_COLOR": "1", "PATH": f"{BUILD}:{os.environ['PATH']}"}
        for key in ("HA_COORDINATOR", "HA_CRASH", "HA_HANG", "HA_SLOW", "HA_NET_FAULTS"):
            environment.pop(key, None)
        if cluster.trace:
            environment["HA_CRASH_TRACE"] = str(cluster.trace)
        environment.update({**cluster.env, **(env or {})})
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [str(BUILD / arguments[0]), *map(str, arguments[1:])], cwd=cluster.dir,
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.child.pid

    def alive(self):
        return self.child.poll() is None

    def kill(self, number=signal.SIGKILL):
        if self.alive():
            self.child.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.wait(120)

    def wait(self, seconds):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} does not end within {seconds} s") from None

    def children(self):
        """Process ids of its children: the attempts of a worker."""
        path = f"/proc/{self.pid}/task/{self.pid}/children"
        try:
            return [int(pid) for pid in pathlib.Path(path).read_text().split()]
        except OSError:
            return []

    def ends(self):
        """How many attempts of a worker have ended; a process may stay for the next one."""
        return self.log.read_text(errors="replace").count(" ended: ")

    def said(self, text):
        return text in self.log.read_text(errors="replace")


class Cluster:
    # 32 steps; step_ms makes them last longer without more work.
    GRID = {"models": ["qwen2.5-demo"], "strategies": ["base", "mid"], "train": 48, "eval": 5,
            "epochs": 2, "checkpoint": 1, "tokens": 8, "retry": "", "judge": "", "schedule": "",
            "name": "grid", "gpus": 0, "nodes": 1, "accumulation": 1, "shard": "auto",
            "generate": ""}

    def __init__(self, seed, trace=None, step_ms=0, **grid):
        self.seed = seed
        self.trace = trace
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ha-fault-"))
        self.run = self.dir / "run"
        self.grid = {**self.GRID, **grid}
        self.env = {}
        if step_ms:
            self.env["HA_SLOW"] = f"attempt.step:{step_ms}"
        self.processes = []
        self.control = f"tcp://127.0.0.1:{free_port()}"
        self.files = f"tcp://127.0.0.1:{free_port()}"
        self.coordinator = None
        self.rules = (HEARTBEAT_MS, LATE_MS, LOST_MS)
        self.calls = self.dir / "calls.txt"
        self.evaluator, self.evaluator_port = None, None

    # ---- processes -------------------------------------------------------------------

    def start(self, name, *arguments, env=None):
        process = Process(self, name, arguments, env)
        self.processes.append(process)
        return process

    def start_evaluator(self, *options):
        port = self.dir / "evaluator.port"
        process = self.start("evaluator", "ha-evaluator", "--port", 0, "--port-file", port,
                             "--record", self.calls, *options)
        until(20, lambda: port.exists() and port.read_text().strip(), "the evaluator's port")
        self.evaluator_port = int(port.read_text())
        self.evaluator = process
        return process

    def start_coordinator(self, env=None, ready=True, dir=None, options=()):
        heartbeat, late, lost = self.rules
        endpoint = (dir or self.run) / "endpoint"
        if endpoint.exists():
            endpoint.unlink()
        self.coordinator = self.start(
            "coordinator", "ha-coordinator", "--dir", dir or self.run, "--listen", self.control,
            "--files", self.files, "--insecure-loopback", "--set", f"heartbeat_ms={heartbeat}",
            "--set", f"late_ms={late}", "--set", f"lost_ms={lost}", *options, env=env)
        if ready:
            until(30, lambda: endpoint.exists() or not self.coordinator.alive(),
                  "the coordinator listens")
            expect(self.coordinator.alive() or env, "the coordinator did not start: "
                   + self.coordinator.log.read_text(errors="replace")[-300:])
        return self.coordinator

    def start_worker(self, name="w1", env=None, control=None, files=None, work_dir=None,
                     slots=1, log=None, grace="5s", settings=(), program="ha-worker"):
        return self.start(
            log or name, program, "--connect", control or self.control, "--files",
            files or self.files, "--name", name, "--work-dir", work_dir or self.dir / name,
            "--slots", slots, "--threads", 1, "--backend", "cpu", "--model-root", "/",
            "--insecure-loopback", "--set", f"stop_grace={grace}", "--set",
            f"gpus={self.grid['gpus'] // self.grid['nodes']}", *(x for s in settings for x in ("--set", s)), env=env)

    def start_light(self, count, go):
        """So many workers in one process, whose jobs wait for the file `go` (light.c)."""
        return self.start("light", "tests/fault/ha-light-workers", "--connect", self.control,
                          "--workers", count, "--prompts", self.grid["eval"], "--go", go)

    def start_judge(self, name="j1", env=None, control=None, spool=None, log=None):
        return self.start(
            log or name, "ha-judge-worker", "--connect", control or self.control, "--name", name,
            "--spool", spool or self.dir / name, "--embedded", "--insecure-loopback", env=env)

    def start_all(self, evaluator=(), coordinator=None, worker=None, judge=None):
        """Everything, with an environment for each; the worker and the judge worker."""
        self.start_submitted(evaluator, coordinator)
        return self.start_worker(env=worker), self.start_judge(env=judge)

    def start_submitted(self, evaluator=(), coordinator=None):
        """An evaluator and a coordinator with the grid, and nobody who works."""
        self.start_evaluator(*evaluator)
        self.start_coordinator(env=coordinator)
        self.submit()

    def close(self):
        for process in self.processes:
            if process.alive():
                process.child.send_signal(signal.SIGCONT)
                process.child.terminate()
        end = time.monotonic() + 1.5
        while time.monotonic() < end and any(p.alive() for p in self.processes):
            time.sleep(0.05)
        for process in self.processes:
            if process.alive():
                process.child.kill()
            process.child.wait()
        if os.environ.get("HA_KEEP"):
            print(f"# kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- clients ---------------------------------------------------------------------

    def hactl(self, *arguments, timeout=120, check=True, env=None):
        environment = {**os.environ, "NO_COLOR": "1", "PATH": f"{BUILD}:{os.environ['PATH']}",
                       **(env or {})}
        done = subprocess.run([str(BUILD / "hactl"), *map(str, arguments), "--connect",
                               self.control, "--insecure-loopback"], cwd=self.dir, text=True,
                              capture_output=True, timeout=timeout, env=environment, check=False)
        if check and done.returncode != 0:
            raise Failure(f"hactl {arguments[0]} ended with {done.returncode}: "
                          f"{(done.stderr or done.stdout).strip()[-300:]}")
        return done

    def write_grid(self, path=None, **changes):
        g = {**self.grid, **changes}
        demo = ROOT / "deploy" / "demo"
        models = "".join(f'[[model]]\npath = "{demo}/models/{m}"\n' for m in g["models"])
        use = ", ".join(f'"{s}"' for s in g["strategies"])
        text = f"""[sweep]
name = "{g['name']}"
{models}[strategies]
use = [{use}]
[data]
train = ["{demo}/data/train.jsonl"]
eval = ["{demo}/data/eval.jsonl"]
train_samples = {g['train']}
eval_samples = {g['eval']}
[train]
learning_rate = 1e-3
precision = "fp32"
batch_size = 3
gradient_accumulation = {g['accumulation']}
epochs = {g['epochs']}
shard_weights = "{g['shard']}"
checkpoint_every = {g['checkpoint']}
[generate]
max_new_tokens = {g['tokens']}
{g['generate']}
[resources]
gpus = {g['gpus']}
nodes = {g['nodes']}
[retry]
{g['retry']}
[schedule]
{g['schedule']}
[[judge]]
name = "text-statistics"
provider = "ha-evaluator"
base_url = "http://127.0.0.1:{self.evaluator_port or 1}/v1"
model = "ha-evaluator"
{g['judge']}
"""
        path = path or self.dir / f"{g['name']}.toml"
        path.write_text(text)
        return path

    def submit(self, check=True, env=None, **changes):
        return self.hactl("submit", self.write_grid(**changes), check=check, env=env)

    def status(self):
        """The status as JSON, or None where no coordinator answers in time."""
        try:
            done = self.hactl("status", self.grid["name"], "--json", timeout=10, check=False)
            return json.loads(done.stdout) if done.returncode == 0 else None
        except (subprocess.TimeoutExpired, json.JSONDecodeError):
            return None

    def stages(self):
        status = self.status()
        return [s for c in status["cells"] for s in c["stages"]] if status else []

    def training(self, steps=1):
        """A cell trains: some of its steps are done."""
        return any(s["stage"] == "train" and s["state"] == "running" and s["done"] >= steps
                   for s in self.stages())

    def trained(self):
        return any(s["stage"] == "train" and s["state"] == "done" for s in self.stages())

    def scored(self, at_least=1):
        status = self.status()
        return bool(status) and status["scored"] >= at_least

    def wait_training(self, steps=1, seconds=90):
        until(seconds, lambda: self.training(steps), "a cell trains")

    def wait_done(self, seconds=150, codes=(0,)):
        done = self.hactl("wait", self.grid["name"], "--timeout", seconds, timeout=seconds + 30,
                          check=False)
        if done.returncode not in codes:
            stuck = [(c["name"], s["stage"], s["state"], s["reason"]) for c in
                     (self.status() or {"cells": []})["cells"] for s in c["stages"]
                     if s["state"] not in ("done", "reused")]
            raise Failure(f"the sweep did not end as it should (exit code {done.returncode}): "
                          f"{stuck or (done.stderr or done.stdout).strip()[-300:]}")
        return done.returncode

    def supervise(self, starters, seconds=150, condition=None):
        """Start again whoever of `starters` (name -> function that starts it) died,
        until the sweep has ended or the condition holds; the number of deaths."""
        running = {name: start() for name, start in starters.items()}
        deaths = 0
        end = time.monotonic() + seconds
        with concurrent.futures.ThreadPoolExecutor(1) as looker:  # asks who may have died meanwhile
            look = looker.submit(condition or self.ended)
            while True:
                for name, start in starters.items():
                    if not running[name].alive():
                        deaths += 1
                        time.sleep(0.1)
                        running[name] = start()
                if look.done():
                    if look.result():
                        return deaths
                    time.sleep(0.3)
                    look = looker.submit(condition or self.ended)
                if time.monotonic() > end:
                    raise Failure(f"not ended after {seconds} s and {deaths} deaths: "
                                  f"{[(s['stage'], s['state'], s['reason']) for s in self.stages()]}")
                time.sleep(0.05)

    def ended(self):
        status = self.status()
        return bool(status) and status["state"] in ("done", "gaps", "cancelled")

    def quiet(self):
        """No worker runs anything."""
        done = self.hactl("workers", "--json", check=False)
        return done.returncode == 0 and not any(
            w.get("running") for w in json.loads(done.stdout))

    def events(self):
        text, at, events = self.hactl("log", "--json").stdout, 0, []
        while text[at:].strip():
            event, end = json.JSONDecoder().raw_decode(text[at:].lstrip())
            at += end + len(text[at:]) - len(text[at:].lstrip())
            events.append(event)
        return events

    # ---- the database, of a coordinator that is stopped --------------------------------

    def stop_coordinator(self):
        if self.coordinator and self.coordinator.alive():
            self.coordinator.child.send_signal(signal.SIGCONT)
            self.coordinator.kill(signal.SIGTERM)

    def database(self, path=None):
        return sqlite3.connect(path or self.run / "coordinator.db")

    def query(self, sql, *values):
        with self.database() as db:
            rows = db.execute(sql, values).fetchall()
        db.close()
        return rows

    def one(self, sql, *values):
        return self.query(sql, *values)[0][0]
