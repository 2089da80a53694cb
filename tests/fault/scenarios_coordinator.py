"""The coordinator is killed, its disk and its clock go wrong: 1 to 7, 16, 27, 31."""
import collections
import os
import pathlib
import shutil
import signal
import sqlite3
import time

from frame import ROOT, Call, Orders, expect, nobody_lost, nothing_again, scenario, until
from proxy import Proxy


def submit_into_crash(test, point):
    """Submit while the coordinator dies at `point` of the commit of the submit;
    it is started anew, and hactl has to get its answer."""
    c = test.cluster(strategies=["base"], eval=2)
    c.start_evaluator()
    arm = c.dir / "arm"
    c.start_coordinator(env={"HA_CRASH": f"{point}?{arm}"})
    grid = c.write_grid()
    c.hactl("status", check=False)
    # The data files are uploaded before: only the last commit is the submit's.
    c.hactl("submit", grid, "--name", "warm-up")
    c.hactl("cancel", "warm-up")
    arm.touch()
    call = Call(c, "submit", grid)
    until(30, lambda: not c.coordinator.alive(), "the crash point")
    arm.unlink()
    c.start_coordinator()
    done = call.join()
    expect(done.returncode == 0, f"hactl submit: {done.stderr.strip()[-200:]}")
    again = c.hactl("submit", grid)
    expect("resumed" in again.stdout, f"submitting again says {again.stdout.strip()[-200:]}")
    c.start_worker()
    c.start_judge()
    c.wait_done()
    c.stop_coordinator()
    expect(c.one("SELECT count(*) FROM sweep WHERE name = 'grid'") == 1, "one sweep")
    submitted = c.one("SELECT count(*) FROM event WHERE subject = 'sweep grid' AND before = ''")
    expect(submitted == 1, f"the sweep was made {submitted} times")


@scenario(1, "coordinator killed before the commit of a submit")
def before_commit(test):
    submit_into_crash(test, "coordinator.before_commit")


@scenario(2, "coordinator killed after the commit of a submit, before the reply")
def after_commit(test):
    submit_into_crash(test, "coordinator.after_commit")


@scenario(3, "coordinator killed with jobs running, back after more than a lease")
def restart_with_running(test):
    c = test.cluster(strategies=["local", "mid", "global", "full"], step_ms=150, eval=2,
                     schedule='fuse = "never"')
    c.start_submitted()
    workers = [c.start_worker(f"w{i}", slots=2) for i in (1, 2)]
    until(60, lambda: sum(s["state"] == "running" for s in c.stages()) == 4, "four jobs run")
    until(30, lambda: sum(len(w.children()) for w in workers) == 4, "their processes are there")
    attempts = {pid for w in workers for pid in w.children()}
    c.coordinator.kill()
    time.sleep(c.rules[2] / 1000 + 1)
    still = {pid for w in workers for pid in w.children()}
    expect(still <= attempts, "a worker started something without a coordinator")
    c.start_coordinator()
    c.start_judge()
    c.wait_done()
    test.verify(c)
    nothing_again(c)


def old_database(path, version):
    """An empty database as an earlier version made it."""
    folder = ROOT / "coordinator" / "store" / "schema"
    db = sqlite3.connect(path)
    for number in range(1, version + 1):
        db.executescript((folder / f"{number:04d}.sql").read_text())
    header = (ROOT / "coordinator" / "store" / "migrate.h").read_text()
    store = (ROOT / "coordinator" / "store" / "store.h").read_text()
    text = header + store
    at = text.index("HA_STORE_APPLICATION_ID")
    application = int(text[at:].split("=")[1].split(",")[0].split("}")[0].strip(), 0)
    db.execute(f"PRAGMA application_id = {application}")
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()


@scenario(4, "coordinator killed inside and after a schema migration")
def migration(test):
    newest = len(list((ROOT / "coordinator" / "store" / "schema").glob("*.sql")))
    for point in ("in_migration", "after_migration"):
        for nth in range(1, newest):
            c = test.cluster(strategies=["base"], eval=2)
            c.run.mkdir()
            path = c.run / "coordinator.db"
            old_database(path, 1)
            os.chmod(path, 0o600)
            c.start_coordinator(env={"HA_CRASH": f"coordinator.{point}:{nth}"}, ready=False)
            c.coordinator.wait(20)
            expect(c.coordinator.child.returncode == -signal.SIGKILL, f"{point} was not reached")
            db = c.database()
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.close()
            want = nth + (point == "after_migration")
            expect(version == want, f"schema {version} after a crash in {point} {nth}")
            c.start_coordinator()
            c.stop_coordinator()
            db = c.database()
            expect(db.execute("PRAGMA user_version").fetchone()[0] == newest, "the newest schema")
            db.execute("PRAGMA user_version = 99")
            db.commit()
            db.close()
    c.start_coordinator(ready=False)
    c.coordinator.wait(20)
    expect(c.coordinator.child.returncode not in (0, -signal.SIGKILL)
           and c.coordinator.said("made by a newer version"), "a newer schema is refused by name")


@scenario(5, "the disk of the database is full, and has room again")
def disk_full(test):
    c = test.cluster(step_ms=60)
    orders = Orders(c.dir / "orders")
    c.start_all(coordinator=orders.env)
    c.wait_training()
    orders.set(f"enospc write {c.run}/coordinator.db\n")
    time.sleep(1)
    refused = c.submit(check=False, name="refused")
    expect(refused.returncode != 0, "a submit was taken on a full disk")
    expect("full" in refused.stderr or "not stored" in refused.stderr,
           f"a full disk is called: {refused.stderr.strip()[-200:]}")
    expect(c.coordinator.alive(), "the coordinator did not survive a full disk")
    expect(c.status() is not None, "status works on a full disk")
    time.sleep(test.random.uniform(1, 3))
    orders.set()
    c.wait_done()
    test.verify(c)
    expect(c.one("SELECT count(*) FROM sweep") == 1, "the refused submit left nothing")


@scenario("5b", "the disk of the artifacts is full, and has room again")
def artifacts_full(test):
    c = test.cluster(step_ms=60)
    orders = Orders(c.dir / "orders")
    c.start_submitted(coordinator=orders.env)
    orders.set(f"enospc write {c.run}/artifacts\n")
    c.start_worker()
    c.start_judge()
    c.wait_training()
    time.sleep(test.random.uniform(1, 4))
    expect(c.coordinator.alive(), "the coordinator survives a full disk of artifacts")
    orders.set()
    c.wait_done()
    test.verify(c)


@scenario("5c", "a failed fsync ends the coordinator, and its restart loses nothing")
def failed_fsync(test):
    c = test.cluster(step_ms=60)
    orders = Orders(c.dir / "orders")
    c.start_all(coordinator=orders.env)
    c.wait_training()
    orders.set(f"eio fsync {c.run}/coordinator.db\n")
    until(20, lambda: not c.coordinator.alive(), "a failed fsync ends the process")
    expect(c.coordinator.child.returncode > 0, "it ends by itself")
    c.start_coordinator()
    c.wait_done()
    test.verify(c)


def kill_in_training(test):
    """A coordinator killed in a training, with its write-ahead log as it was."""
    c = test.cluster()
    c.start_submitted()
    worker = c.start_worker()
    c.wait_training()
    c.coordinator.kill()
    return c, worker


@scenario("6a", "the write-ahead log is torn")
def torn_log(test):
    c, _ = kill_in_training(test)
    log = c.run / "coordinator.db-wal"
    size = log.stat().st_size
    with open(log, "r+b") as file:
        if test.random.random() < 0.5:
            file.seek(size)
            file.write(test.random.randbytes(test.random.randrange(1, 9000)))
        else:
            file.truncate(size - test.random.randrange(1, 4000))  # of the last commit
    c.start_coordinator()
    c.start_judge()
    c.wait_done()
    # A commit that was acknowledged and then torn is not power loss but damage:
    # what it held may be gone, and is worked out again.
    test.verify(c)


@scenario("6b", "pages of the database are flipped")
def flipped_page(test):
    c, worker = kill_in_training(test)
    worker.kill()
    c.start_coordinator()  # moves the log into the file when it is stopped
    c.stop_coordinator()
    good = c.dir / "good.db"
    shutil.copy(c.run / "coordinator.db", good)
    with open(c.run / "coordinator.db", "r+b") as file:
        size = file.seek(0, 2)
        for page in range(1, size // 4096):
            if test.random.random() < 0.3 or page == 1:
                file.seek(page * 4096)
                file.write(bytes(64))
    c.start_coordinator(ready=False)
    c.coordinator.wait(20)
    expect(c.coordinator.child.returncode > 0, "a damaged database is refused")
    expect(c.coordinator.said("damaged") and c.coordinator.said("restore a backup"),
           "the text names the damage and the mend")
    shutil.copy(good, c.run / "coordinator.db")
    for name in ("coordinator.db-wal", "coordinator.db-shm"):
        (c.run / name).unlink(missing_ok=True)
    c.start_coordinator()
    c.start_worker()
    c.start_judge()
    c.wait_done()
    test.verify(c)


@scenario("6c", "the database becomes read-only")
def read_only(test):
    c = test.cluster()
    orders = Orders(c.dir / "orders")
    c.start_all(coordinator=orders.env)
    c.wait_training()
    orders.set(f"erofs write {c.run}/\nerofs open {c.run}/\n")
    time.sleep(2)
    refused = c.submit(check=False, name="refused")
    expect(refused.returncode != 0, "a submit was taken on a read-only disk")
    orders.set()
    if not c.coordinator.alive():
        c.start_coordinator()
    c.wait_done()
    test.verify(c)


@scenario(7, "wall clocks jump by an hour, forwards and backwards")
def clock_jumps(test):
    c = test.cluster(step_ms=100)
    pages = {name: Orders(c.dir / f"orders-{name}") for name in ("c", "w", "j")}
    c.start_all(coordinator=pages["c"].env, worker=pages["w"].env, judge=pages["j"].env)
    c.wait_training()
    names = list(pages)
    for _ in range(6):
        jump = test.random.choice((-3600, 0, 3600))
        pages[test.random.choice(names)].set(f"clock {jump}\n")
        time.sleep(0.4)
    c.wait_done()
    test.verify(c)
    nobody_lost(c)
    nothing_again(c)


def times_known(light):
    """How often each light worker was greeted by a coordinator."""
    return collections.Counter(line.split(":")[0] for line in
                               light.log.read_text(errors="replace").splitlines()
                               if "knows this worker" in line)


def known_to_all(light, count, times):
    known = times_known(light)
    return len(known) == count and min(known.values()) >= times


@scenario("3b", "coordinator killed with a hundred jobs running, back after five leases")
def restart_with_hundred(test):
    count = 100
    seeds = ", ".join(map(str, range(1, count + 1)))
    c = test.cluster(strategies=["base"], eval=1, generate="temperature = 1.0",
                     schedule=f'fuse = "never"\n[vary]\nseed = [{seeds}]')
    go = c.dir / "go"
    c.start_submitted()
    light = c.start_light(count, go)

    def running():
        return sum(s["state"] == "running" for s in c.stages() if s["stage"] == "generate")
    until(60, lambda: running() == count, f"{count} jobs run")
    started = light.log.read_text().count(" starts job ")
    c.coordinator.kill()
    time.sleep(5 * c.rules[2] / 1000)
    expect(light.alive() and light.log.read_text().count(" starts job ") == started,
           "nothing is begun without a coordinator")
    c.start_coordinator()
    began = time.monotonic()
    until(30, lambda: known_to_all(light, count, 2), "all workers are back")
    test.note(f"{count} running jobs taken back after {time.monotonic() - began:.1f} s")
    time.sleep(c.rules[2] / 1000)  # whoever was not taken back is lost by now
    expect(running() == count, "all run still")
    c.start_judge()
    go.touch()
    c.wait_done()
    test.verify(c, cells=count, same=False)
    nobody_lost(c)
    nothing_again(c)
    expect(light.log.read_text().count(" starts job ") == started, "no job was begun twice")


@scenario(16, "five hundred workers come back at once after a restart")
def many_workers(test):
    c = test.cluster(strategies=["mid"], step_ms=350)
    c.rules = (1000, 4000, 10000)
    count = 500
    c.start_submitted()
    worker = c.start_worker()
    c.wait_training()
    light = c.start_light(count, c.dir / "never")  # there is no further job
    until(60, lambda: known_to_all(light, count, 1), f"{count} workers are there")
    c.coordinator.kill()
    time.sleep(2)
    c.start_coordinator()
    began = time.monotonic()
    until(30, lambda: known_to_all(light, count, 2)
          and worker.log.read_text().count("knows this worker") >= 2, f"{count} workers are back")
    took = time.monotonic() - began
    test.note(f"{count} workers back after {took:.1f} s")
    expect(took < c.rules[2] / 1000, f"they came back after {took:.1f} s, which is a lease")
    light.kill()
    c.start_judge()
    c.wait_done()
    test.verify(c)
    lost = c.query("SELECT subject FROM event WHERE after = 'lost' AND subject NOT LIKE '%light-%'")
    expect(not lost, f"lost: {lost}")
    nothing_again(c)


@scenario("restore", "a restore is cut off at each of its points, and run again")
def restore_cut_off(test):
    for point in ("marked", "moved", "replaced"):
        c = test.cluster(step_ms=100)
        c.start_submitted()
        worker = c.start_worker()
        c.wait_training(steps=test.random.randrange(2, 8))
        c.hactl("backup", c.dir / "saved")
        c.wait_training(steps=10)
        c.coordinator.kill()

        def restore(**env):
            done = c.start("restore", "hactl", "restore", c.dir / "saved", "--dir", c.run,
                           "--discard-newer", env=env)
            return done.wait(60)
        expect(restore(HA_CRASH=f"coordinator.restore_{point}") != 0, f"{point} was not come to")
        c.start_coordinator(ready=False)
        c.coordinator.wait(20)
        expect(c.coordinator.child.returncode > 0 and c.coordinator.said("run hactl restore again"),
               f"after {point}: half a restore is refused, with the mend")
        expect(restore() == 0, f"after {point}: it cannot be run again")
        c.start_coordinator()
        c.start_judge()
        c.wait_done()
        expect(worker.alive(), "the worker was not started anew")
        test.verify(c)
        c.close()


@scenario("gc", "the coordinator is killed while it removes what nothing needs")
def gc_cut_off(test):
    c = test.cluster()
    orders = Orders(c.dir / "orders")
    c.start_all()
    c.wait_done()
    until(15, c.quiet, "the attempts have ended")
    c.stop_coordinator()
    had = sum(1 for path in (c.run / "artifacts").rglob("*") if path.is_file())
    orders.set("clock 2592000\n")  # a month later
    nth = test.random.randrange(1, 3)
    c.start_coordinator(env={**orders.env,
                             "HA_CRASH": f"coordinator.artifact_before_remove:{nth}"})
    call = Call(c, "gc", timeout=60)
    until(30, lambda: not c.coordinator.alive(), "the crash point")
    c.start_coordinator(env=orders.env)
    call.join()
    c.hactl("gc")
    has = sum(1 for path in (c.run / "artifacts").rglob("*") if path.is_file())
    expect(has < had, f"{had} files, and now {has}")
    test.note(f"{had} files, then {has}")
    test.verify(c)


@scenario("wal", "the coordinator is killed before and after it moves its log into its database")
def checkpoint_of_log(test):
    values = ", ".join(f"{1 + i}e-6" for i in range(800))
    for point in ("before", "after"):
        c = test.cluster(schedule=f"[vary]\nlearning_rate = [{values}]")
        c.start_evaluator()
        c.start_coordinator(env={"HA_CRASH": f"coordinator.{point}_wal_checkpoint"})
        c.submit()
        until(30, lambda: not c.coordinator.alive(), "the crash point")
        c.start_coordinator()
        expect(c.hactl("status", "grid").returncode == 0, "the sweep is there")
        until(30, lambda: len((c.status() or {"cells": []})["cells"]) == 801, "all cells are made")
        c.stop_coordinator()
        expect(c.one("PRAGMA integrity_check") == "ok", "the database is whole")
        expect(c.one("SELECT count(*) FROM cell") == 801, "801 cells: base is one")
        c.close()


@scenario("27a", "cancel races with completion")
def cancel_race(test):
    c = test.cluster(strategies=["base"], eval=3, epochs=1)
    c.start_evaluator()
    c.start_coordinator()
    c.start_worker()
    c.start_judge()
    for i in range(6):
        name = f"race{i}"
        c.submit(name=name, tokens=9 + i)  # other answers: nothing is reused
        time.sleep(test.random.uniform(0, 1.2))
        c.hactl("cancel", name)
        c.hactl("wait", name, "--timeout", 60, check=False)
    c.stop_coordinator()
    states = dict(c.query("SELECT name, state FROM sweep"))
    test.note(", ".join(sorted(states.values())))
    expect(set(states.values()) <= {"cancelled", "done"}, f"states: {states}")
    bad = c.query("SELECT job, count(*) FROM attempt WHERE outcome = 'done' GROUP BY job"
                  " HAVING count(*) > 1")
    expect(not bad, f"effective twice: {bad}")
    open_jobs = c.query("SELECT id, state FROM job WHERE state NOT IN"
                        " ('done', 'failed', 'cancelled')")
    expect(not open_jobs, f"jobs are open: {open_jobs}")
    last = c.query("SELECT subject, after FROM event WHERE subject LIKE 'sweep race%' AND after IN"
                   " ('done', 'cancelled', 'gaps') GROUP BY subject, after")
    expect(len(last) == len({s for s, _ in last}), f"two ends: {last}")


@scenario("27b", "a cancel is durable: the coordinator dies, the worker hears it later")
def cancel_durable(test):
    c = test.cluster(step_ms=2000)
    c.start_submitted()
    pair = Proxy(c.control), Proxy(c.files)
    test.proxies += pair
    worker = c.start_worker(control=pair[0].endpoint, files=pair[1].endpoint)
    c.wait_training()
    for proxy in pair:  # it cannot hear
        proxy.mode = "hold"
    c.hactl("cancel", "grid")
    c.coordinator.kill()
    for proxy in pair:
        proxy.cut()
        time.sleep(0.1)
        proxy.mode = "pass"
    time.sleep(0.5)
    expect(worker.children(), "the attempt runs while nobody tells it to stop")
    c.start_coordinator()
    until(30, lambda: not worker.children(), "the attempt is stopped")
    c.hactl("wait", "grid", "--timeout", 60, check=False)
    test.verify(c, finished=False)
    expect(c.one("SELECT state FROM sweep") == "cancelled", "the sweep is cancelled")


@scenario("27c", "a cancel while no coordinator is there is given when it is back")
def cancel_waits(test):
    c = test.cluster(step_ms=2000)
    c.start_submitted()
    worker = c.start_worker()
    c.wait_training()
    c.coordinator.kill()
    failed = c.hactl("cancel", "grid", check=False)
    expect(failed.returncode == 3, f"without a coordinator hactl ends with {failed.returncode}")
    c.start_coordinator()
    c.hactl("cancel", "grid")
    until(30, lambda: not worker.children(), "the attempt is stopped")
    test.verify(c, finished=False)


@scenario(31, "the coordinator moves to another address behind the same name")
def moves(test):
    if os.geteuid() != 0:
        return "needs root, for a mount namespace with its own /etc/hosts"
    c = test.cluster(step_ms=120)
    hosts = c.dir / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    port, files = c.control.rsplit(":", 1)[1], c.files.rsplit(":", 1)[1]
    c.start_submitted()
    enter = ["/usr/bin/unshare", "--mount", "--propagation", "private", "sh", "-c",
             f"mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"]
    build = pathlib.Path(os.environ.get("HA_BUILD", ROOT / "build" / "fault"))
    worker = c.start("w1", *enter, build / "ha-worker", "--connect", f"tcp://localhost:{port}",
                     "--files", f"tcp://localhost:{files}", "--name", "w1", "--work-dir",
                     c.dir / "w1", "--slots", 1, "--threads", 1, "--backend", "cpu",
                     "--model-root", "/", "--insecure-loopback")
    c.wait_training()
    c.coordinator.kill()
    c.control, c.files = f"tcp://127.0.0.2:{port}", f"tcp://127.0.0.2:{files}"
    with open(hosts, "w", encoding="ascii") as file:
        file.write("127.0.0.2 localhost\n")
    c.start_coordinator()
    c.start_judge()
    c.wait_done()
    expect(worker.alive(), "the worker was not started anew")
    test.verify(c)
    return None
