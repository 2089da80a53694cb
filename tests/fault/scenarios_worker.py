"""Workers and attempts are killed, stopped, stuck: 8 to 10, 15, 17, 18, 20, 23, 24, 30, 32."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import checker
from frame import BUILD, Orders, expect, nobody_lost, nothing_again, reference, scenario, until


def attempts_of(c, kind="train"):
    return c.query("SELECT a.number, a.state, a.outcome, a.reason FROM attempt a JOIN job j ON"
                   " j.id = a.job WHERE j.kind = ? ORDER BY a.job, a.number", kind)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@scenario(8, "worker killed in the middle of a job")
def worker_killed(test):
    c = test.cluster(step_ms=100)
    worker, _ = c.start_all()
    c.wait_training(steps=test.random.randrange(1, 40))
    children = worker.children()
    expect(children, "an attempt runs")
    worker.kill()
    until(5, lambda: all(gone(pid) for pid in children), "the attempt dies with its worker")
    c.start_worker()
    c.wait_done()
    test.verify(c)
    rows = attempts_of(c)
    expect([r[0] for r in rows] == [1, 2], f"one attempt more: {rows}")


@scenario("8b", "attempt killed in the middle of a job")
def attempt_killed(test):
    c = test.cluster(step_ms=100)
    worker, _ = c.start_all()
    c.wait_training(steps=test.random.randrange(1, 40))
    for pid in worker.children():
        os.kill(pid, signal.SIGKILL)
    c.wait_done()
    test.verify(c)
    rows = attempts_of(c)
    expect([r[0] for r in rows] == [1, 2] and rows[0][2] == "failed" and "SIGKILL" in rows[0][3],
           f"a crash with its reason: {rows}")


@scenario(9, "worker stopped for longer than its lease, its job is run elsewhere, it goes on")
def zombie(test):
    c = test.cluster(step_ms=250)
    worker, _ = c.start_all()
    c.wait_training()
    worker.kill(signal.SIGSTOP)
    c.start_worker("w2")
    until(30, lambda: any(e["subject"] == "worker w1" and e["to"] == "lost" for e in c.events()),
          "the stopped worker is lost")
    until(30, lambda: any(s["stage"] == "train" and s["worker"] == "w2" for s in c.stages()),
          "its job is run by the other")
    worker.kill(signal.SIGCONT)
    until(30, lambda: worker.said("its lease is over") or worker.said("does not list this attempt"),
          "the zombie is told")
    c.wait_done()
    test.verify(c)
    rows = attempts_of(c)
    expect(len(rows) == 2 and rows[0][2] == "lost" and rows[1][2] == "done", f"attempts: {rows}")


@scenario(10, "the main loop of a worker hangs while its network thread lives")
def hangs(test):
    c = test.cluster(step_ms=250)
    c.start_submitted()
    c.start_judge()
    arm = c.dir / "arm"
    worker = c.start_worker(env={"HA_HANG": f"worker.turn?{arm}"})
    c.wait_training()
    arm.touch()
    seen = set()

    def lost():
        done = c.hactl("workers", check=False, timeout=20)
        for state in ("late", "lost"):
            if f" {state}" in done.stdout:
                seen.add(state)
        return "lost" in seen
    until(30, lost, "a worker that hangs is lost")
    expect("late" in seen, "it was late before")
    c.start_worker("w2")
    c.wait_done()
    worker.kill()
    test.verify(c)


@scenario("15a", "a second worker of the same name on the same machine takes over")
def same_name(test):
    c = test.cluster(step_ms=500)
    first, _ = c.start_all()
    c.wait_training()
    second = c.start_worker("w1", work_dir=c.dir / "second", log="w1-second")
    until(30, lambda: first.said("took the name"), "the first is told why")
    told = time.monotonic()
    until(30, lambda: not first.children(), "the first stops its attempt")
    expect(time.monotonic() - told < 10, "it stops at a checkpoint, not at its end")
    c.wait_done()
    expect(second.alive(), "the second is alive")
    test.verify(c)


@scenario("15b", "a second worker of the same name on another machine is refused")
def same_name_elsewhere(test):
    if os.geteuid() != 0:
        return "needs root, for a namespace with another host name"
    c = test.cluster(step_ms=100)
    first, _ = c.start_all()
    c.wait_training()
    build = first.child.args[0].rsplit("/", 1)[0]
    second = c.start("second", "/usr/bin/unshare", "--uts", "sh", "-c",
                     "hostname elsewhere && exec \"$@\"", "sh", f"{build}/ha-worker", "--connect",
                     c.control, "--files", c.files, "--name", "w1", "--work-dir", c.dir / "second",
                     "--slots", 1, "--threads", 1, "--backend", "cpu", "--model-root", "/",
                     "--insecure-loopback")
    until(30, lambda: second.said("is held by a program on"), "the second is refused by name")
    c.wait_done()
    expect(not second.children(), "the refused one runs nothing")
    test.verify(c)
    expect(len(attempts_of(c)) == 1, "the first was not disturbed")
    return None


@scenario(17, "a job that ends every worker it touches")
def poison(test):
    c = test.cluster(strategies=["base", "mid"], step_ms=250, checkpoint=1,
                     schedule='fuse = "never"')
    c.start_submitted()
    c.start_judge()
    # Only the training has checkpoints; its worker dies before it tells of any.
    env = {"HA_CRASH": "worker.artifact_told"}
    worker = c.start_worker(env=env)
    losses = 0

    def over():
        nonlocal worker, losses
        if not worker.alive():
            losses += 1
            worker = c.start_worker(env=env)
        state = [(s["state"], s["reason"]) for s in c.stages() if s["stage"] == "train"]
        return state if state and ("failed" in state[0][0] or "set aside" in state[0][1]
                                   or "used up" in state[0][1]) else None
    state = until(120, over, "the job is set aside")
    test.note(f"{losses} workers lost; {state[0]}")
    expect(losses <= 6, f"{losses} workers were lost to one job")
    until(60, lambda: any(s["stage"] == "generate" and s["state"] == "done" for s in c.stages()),
          "other jobs go on")
    test.verify(c, finished=False)


@scenario(18, "a node that fails every job is set aside, and no other")
def bad_node(test):
    c = test.cluster(strategies=["base", "local", "mid", "global", "full"], eval=3,
                     schedule='fuse = "never"', step_ms=60)
    c.start_evaluator()
    c.start_coordinator()
    # On the bad one every attempt dies with its first word; the good one is busy meanwhile.
    bad = c.start_worker("bad", env={"HA_CRASH": "attempt.before_line"})
    good = c.start_worker("good")
    until(20, lambda: c.hactl("workers", "--json").stdout.count('"alive"') >= 2, "both are there")
    c.submit()
    c.start_judge()

    def aside():
        rows = json.loads(c.hactl("workers", "--json").stdout)
        return [r["name"] for r in rows if "set aside" in (r.get("note") or "")]
    until(60, aside, "it is set aside")
    expect(aside() == ["bad"], f"set aside: {aside()}")
    c.wait_done()
    expect(bad.alive() and good.alive(), "both daemons live")
    c.hactl("workers", "undrain", "bad")
    expect(not aside(), "a person undoes it")
    test.verify(c)


def memory_root():
    """Where groups are made whose memory the kernel counts, and their version; None: nowhere."""
    for root, version in (("/sys/fs/cgroup", 2), ("/sys/fs/cgroup/memory", 1)):
        path = pathlib.Path(root)
        controllers = path / "cgroup.controllers"
        counts = (version == 1 and (path / "memory.limit_in_bytes").exists() or version == 2
                  and controllers.exists() and "memory" in controllers.read_text().split())
        if counts and os.access(path / "cgroup.procs", os.W_OK):
            return path, version
    return None, 0


@contextlib.contextmanager
def memory_group():
    """A group of the test's own below it: (folder, version), or (None, 0)."""
    root, version = memory_root()
    path = root and root / f"ha-fault-{os.getpid()}-{time.monotonic_ns()}"
    try:
        if path:
            path.mkdir()
    except OSError:
        path, version = None, 0
    try:
        yield path, version
    finally:
        if path:
            until(10, lambda: removed(path), "its groups are empty")


# In the group, of which little is left, and nobody may kill it.
HOG = """
import sys
open("/proc/self/oom_score_adj", "w").write("-1000")
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
left = b"x" * (8 << 20)
sys.stdin.read()
"""


def starve(group, version):
    """The kernel kills what is in the group (with version 2: in the attempt's below it)."""
    if version == 2:
        inner = next(path for path in group.glob("ha-worker-*/*/memory.max"))
        inner.write_text("1")
        return
    used = int((group / "memory.usage_in_bytes").read_text())
    (group / "memory.limit_in_bytes").write_text(str(used + (4 << 20)))
    with subprocess.Popen([sys.executable, "-c", HOG, group], stdin=subprocess.PIPE) as hog:
        until(20, lambda: "oom_kill 1" in (group / "memory.oom_control").read_text(),
              "the kernel kills for memory")
        hog.stdin.close()


@scenario(20, "an attempt is killed by the kernel for its memory")
def memory_killer(test):
    with memory_group() as (group, version):
        c = test.cluster(step_ms=100)
        folder = c.dir / "bin"
        folder.mkdir()
        shutil.copy(BUILD / "ha-worker", folder)
        wrapper = folder / "ha-attempt"  # the worker takes what lies beside it
        limited = c.dir / "limited"
        enter = version == 1
        wrapper.write_text(f"""#!/bin/sh
{enter and f'[ -e {limited} ] && echo $$ >{group}/cgroup.procs' or ''}
exec {BUILD}/ha-attempt "$@"
""")
        wrapper.chmod(0o755)
        c.start_submitted()
        c.start_judge()
        limited.touch()
        worker = c.start_worker(program=folder / "ha-worker",
                                settings=[f"cgroup={group}"] if version == 2 else [])
        c.wait_training(steps=test.random.randrange(1, 20))
        limited.unlink()
        if group:
            starve(group, version)
        else:  # what it would do
            for pid in worker.children():
                os.kill(pid, signal.SIGKILL)
        if version == 2:  # in the attempt's own group: the same would do so again
            until(30, lambda: attempts_of(c)[0][2], "the attempt has ended")
            row = attempts_of(c)[0]
            expect(row[2] == "refused" and "the plan did not foresee" in row[3]
                   and "killed by the kernel for memory when it had" in row[3],
                   f"it is not tried again as it was: {row}")
            return f"{row[3]} (control groups, version 2)"
        c.wait_done()
        test.verify(c)
        rows = attempts_of(c)
        expect(len(rows) == 2 and rows[0][2] == "failed" and rows[1][2] == "done",
               f"one attempt more: {rows}")
        if not group:
            return ("part: the signal was sent by the test, as no control group that counts memory "
                    "may be written here")
        expect("killed by the kernel for memory when it had" in rows[0][3] and "MiB" in rows[0][3],
               f"the reason says why, and its peak: {rows}")
        return f"{rows[0][3]} (control groups, version {version})"


@scenario(23, "an attempt that hears no SIGTERM is killed, and its slot waits for that")
def deaf(test):
    c = test.cluster(step_ms=2000)
    c.start_submitted()
    worker = c.start_worker(grace="2s")
    c.wait_training()
    child = worker.children()[0]
    os.kill(child, signal.SIGSTOP)
    c.hactl("cancel", "grid")
    began = time.monotonic()
    c.submit(name="next", strategies=["base"], eval=2)
    until(30, lambda: gone(child), "it is killed")
    took = time.monotonic() - began
    expect(took >= 1.5, f"it had only {took:.1f} s of its 2 s")
    c.start_judge()
    expect(c.hactl("wait", "next", "--timeout", 60, check=False).returncode == 0,
           "the slot works again")
    test.verify(c, finished=False)


@contextlib.contextmanager
def control_group():
    """A control group of the test's own; None where there can be none."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        path = pathlib.Path(root, f"ha-fault-{os.getpid()}-{time.monotonic_ns()}")
        if not pathlib.Path(root, "cgroup.procs").exists():
            continue
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            yield path
        finally:
            (path / "cgroup.kill").write_text("1")
            until(10, lambda: removed(path), "its groups are empty")
        return
    yield None


def removed(path):
    try:
        for child in sorted(path.glob("**/"), reverse=True):
            child.rmdir()
    except OSError:
        return not path.exists()
    return True


@scenario("23b", "what an attempt started leaves its session and its group, and is ended with it")
def escapes(test):
    with control_group() as group:
        if not group:
            return "needs a control group (version 2) that may be written"
        c = test.cluster(step_ms=60)
        folder = c.dir / "bin"
        folder.mkdir()
        shutil.copy(BUILD / "ha-worker", folder)
        wrapper = folder / "ha-attempt"  # the worker takes what lies beside it
        wrapper.write_text(f"""#!/bin/sh
[ "$1" = job ] &&
    (setsid sh -c 'echo $$ >>{c.dir}/escaped; exec sleep 600' >/dev/null 2>&1 &)
exec {BUILD}/ha-attempt "$@"
""")
        wrapper.chmod(0o755)
        c.start_submitted()

        def start():
            return c.start_worker(program=folder / "ha-worker", settings=[f"cgroup={group}"])

        def escaped():
            return [int(line) for line in (c.dir / "escaped").read_text().split()]
        worker = start()
        c.start_judge()
        c.wait_training()
        first = escaped()
        expect(first and not any(gone(pid) for pid in first), "something escaped")
        for pid in worker.children():
            os.kill(pid, signal.SIGKILL)
        until(10, lambda: all(gone(pid) for pid in first), "it is ended with a killed attempt")
        until(30, lambda: len(escaped()) > len(first), "the next attempt starts something as well")
        worker.kill()
        worker = start()
        left = escaped()
        until(10, lambda: all(gone(pid) for pid in left), "a new daemon ends what is left")
        c.wait_done()
        until(15, c.quiet, "the attempts have ended")
        worker.kill(signal.SIGTERM)
        expect(all(gone(pid) for pid in escaped()), "nothing is left when the worker leaves")
        test.verify(c)
    return None


@scenario("24a", "an attempt is killed while it writes its checkpoint")
def half_checkpoint(test):
    for point in ("file.before_sync", "file.before_rename", "attempt.checkpoint_written"):
        c = test.cluster(step_ms=120)
        c.start_submitted()
        c.start_judge()
        # The worker writes files as well: it is started again when it was the one.
        env = {"HA_CRASH": f"{point}:{test.random.randrange(1, 3)}@{c.dir}/once"}
        c.supervise({"w1": lambda: c.start_worker(env=env)})
        test.verify(c)
        expect((c.dir / "once").exists(), f"{point} was not reached")
        c.close()


@scenario("24b", "the disk of checkpoints is full, then has room")
def checkpoint_disk_full(test):
    c = test.cluster(step_ms=120)
    orders = Orders(c.dir / "orders")
    c.start_submitted()
    c.start_judge()
    c.start_worker(env=orders.env)
    c.wait_training()
    orders.set(f"enospc write {c.dir}/w1/\n")
    time.sleep(2.5)
    orders.set()
    c.wait_done()
    test.verify(c)


@scenario("24e", "each sync of a worker's files takes a second and a half for a while")
def checkpoint_disk_stalls(test):
    c = test.cluster(step_ms=120)
    orders = Orders(c.dir / "orders")
    c.start_all(worker=orders.env)
    c.wait_training(steps=test.random.randrange(1, 12))
    orders.set(f"stall fsync {c.dir}/w1/\n")
    time.sleep(5)
    orders.set()
    c.wait_done()
    test.verify(c)


def damage(folder):
    """Other bytes in the middle of every file there."""
    hurt = 0
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 0:
            os.chmod(path, 0o600)
            with open(path, "r+b") as file:
                file.seek(path.stat().st_size // 2)
                file.write(b"\xff\x00\xff\x00")
            hurt += 1
    expect(hurt, f"there is nothing to damage in {folder}")


@scenario("24c", "what a worker keeps of inputs is damaged")
def damaged_cache(test):
    c = test.cluster(step_ms=250)
    worker, _ = c.start_all()
    c.wait_training()
    time.sleep(2)
    worker.kill()
    damage(c.dir / "w1" / "cache")
    c.start_worker()
    c.wait_done()
    test.verify(c)


@scenario("24d", "the checkpoint in the store is damaged: the training starts anew")
def damaged_artifact(test):
    c = test.cluster(step_ms=250)
    worker, _ = c.start_all()
    c.wait_training(steps=8)
    worker.kill()
    c.stop_coordinator()
    last = c.query("SELECT sha256 FROM product WHERE kind = 'checkpoint' ORDER BY id DESC")
    expect(last, "there is a checkpoint")
    for (sha256,) in last:
        path = next((c.run / "artifacts").rglob(sha256))
        os.chmod(path, 0o600)
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size // 2)
    c.start_coordinator()
    c.start_worker(work_dir=c.dir / "elsewhere")
    c.wait_done()
    c.stop_coordinator()
    mine = [sha256[:12] for (sha256,) in last]
    found = [x for x in checker.check(c.run).all() if not any(sha in x for sha in mine)]
    expect(not found, f"{found}")
    expect(checker.tables(c.run) == reference(), "the adapters of an undisturbed run")


@scenario(30, "the log of an attempt, and of a worker, cannot be written")
def log_full(test):
    c = test.cluster(step_ms=60)
    orders = Orders(c.dir / "orders")
    c.start_submitted()
    c.start_judge()
    orders.set(f"enospc write {c.dir}/w1.log\nenospc write {c.dir}/w1/*/attempt.log*\n")
    c.start_worker(env=orders.env)
    c.wait_training()
    logs = list((c.dir / "w1").rglob("attempt.log"))
    expect(logs and all(log.stat().st_size == 0 for log in logs), f"a log was written: {logs}")
    c.wait_done()
    test.verify(c)
    nothing_again(c)


@scenario(32, "one slow heartbeat under load kills nothing")
def slow_probe(test):
    c = test.cluster(step_ms=120)
    worker, judge = c.start_all()
    c.wait_training()
    for _ in range(3):
        victim = test.random.choice((worker, judge, c.coordinator))
        victim.kill(signal.SIGSTOP)
        time.sleep(test.random.uniform(1.3, 2.2))  # late, not lost
        victim.kill(signal.SIGCONT)
        time.sleep(0.6)
    c.wait_done()
    test.verify(c)
    nobody_lost(c)
    nothing_again(c)
