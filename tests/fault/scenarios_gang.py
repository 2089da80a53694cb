"""A rank of a gang dies, wherever that may be; the gang is tried again whole.

The ranks are processes on the CPU that talk through shared memory: what is shown is the gang's
protocol (crew.c, gang.c, kernels/comm), and nothing about NCCL."""
import os
import pathlib
import signal
import time

from frame import expect, scenario, until

GANG = {"gpus": 2, "accumulation": 2, "strategies": ["mid"], "retry": "max_attempts = 100"}


def die_at(test, *points, **grid):
    """One rank is killed at each of the points in turn, each in an attempt of its own."""
    c = test.cluster(step_ms=40, **GANG, **grid)
    claims = c.dir / "claims"
    claims.mkdir()
    orders = ",".join(f"{point}@{claims}/{i}" for i, point in enumerate(points))
    c.start_submitted()
    c.start_worker(env={"HA_CRASH": orders})
    c.start_judge()
    c.wait_done()
    reached = sorted(int(path.name) for path in claims.iterdir())
    expect(reached == list(range(len(points))), f"not come to: {points} but {reached}")
    test.verify(c)
    failed = [text for (text,) in c.query("SELECT reason FROM attempt WHERE outcome = 'failed'")]
    # The rank that is left may be heard before the other's end is seen.
    expect(all("of 2 (killed by signal 9" in text or "of the gang is gone" in text
               for text in failed), f"the reasons: {failed}")
    test.note(f"{len(failed)} attempts failed")
    return len(failed)


@scenario(21, "a rank is killed while it prepares, in init, in an all-reduce and at its end")
def rank_dies(test):
    failed = die_at(test, "attempt.gang_prepared", "attempt.gang_ready", "attempt.gang_go",
                    f"attempt.gang_collective:{test.random.randrange(2, 9)}",
                    f"attempt.gang_collective:{test.random.randrange(10, 30)}", "attempt.gang_end")
    expect(failed >= 4, f"{failed} attempts failed")


@scenario(22, "the owner of the unique id dies between hand-out and init")
def owner_dies(test):
    expect(die_at(test, "attempt.gang_owner") == 1, "more than one attempt failed")


@scenario("gang-weights", "a rank is killed while a layer that the ranks share is put together, and while "
          "they give each other answers")
def rank_dies_in_a_gather(test):
    failed = die_at(test, f"attempt.gang_weights:{test.random.randrange(2, 9)}",
                    f"attempt.gang_weights:{test.random.randrange(30, 90)}", "attempt.gang_answers",
                    shard="always")
    expect(failed == 3, f"{failed} attempts failed")


@scenario("gang", "a worker with a gang is killed, and stopped for longer than its lease")
def worker_of_a_gang(test):
    c = test.cluster(step_ms=80, **GANG)
    worker, _ = c.start_all()
    c.wait_training(steps=test.random.randrange(1, 6))
    ranks = worker.children()
    expect(len(ranks) == 2, f"the ranks are {ranks}")
    worker.kill()
    until(10, lambda: not any(pathlib.Path(f"/proc/{pid}").exists() and alive(pid)
                              for pid in ranks), "the ranks end with their worker")
    worker = c.start_worker()
    c.wait_training(steps=test.random.randrange(4, 9))
    for pid in worker.children():
        os.kill(pid, signal.SIGSTOP)
    worker.kill(signal.SIGSTOP)
    time.sleep(4)
    for pid in worker.children():
        os.kill(pid, signal.SIGCONT)
    worker.kill(signal.SIGCONT)
    c.wait_done()
    test.verify(c)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
