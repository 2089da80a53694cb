"""The evaluator lies or is not there, the judge worker dies: 25, 26."""
import signal
import time

import checker
from frame import Orders, expect, scenario, until


@scenario(25, "the evaluator refuses, cuts, lies and hangs")
def evaluator(test):
    ways = ["429-fraction:5", "500:7", "cut-off:4", "short-body:9", "reset:11", "bad-json:6",
            "empty:13", "html:8", "502:17"]
    test.random.shuffle(ways)
    options = [x for way in ways[:6] for x in ("--misbehave", way)]
    c = test.cluster(epochs=1, eval=8, judge="max_reasks = 16\nmax_attempts = 20\ntimeout = \"4s\"")
    c.start_all(options)
    c.wait_done()
    test.verify(c)
    test.note(" ".join(ways[:6]))


@scenario("25b", "the evaluator is away for a while")
def evaluator_away(test):
    c = test.cluster(epochs=1, eval=5, judge="max_attempts = 30")
    c.start_all(("--latency", "150"))
    until(60, lambda: c.calls.exists() and c.calls.stat().st_size > 0, "it is asked")
    c.evaluator.kill(signal.SIGSTOP)
    time.sleep(test.random.uniform(1, 4))
    c.evaluator.kill(signal.SIGCONT)
    c.wait_done()
    test.verify(c)


@scenario(26, "the judge worker dies at every point between a call and its score")
def judge_points(test):
    for point in ("judge.before_call", "judge.after_reply", "judge.after_spool",
                  "judge.after_sync", "judge.before_drop"):
        n = test.random.randrange(1, 6)
        c = test.cluster(epochs=1, eval=5)
        c.start_submitted()
        c.start_worker()
        env = {"HA_CRASH": f"{point}:{n}@{c.dir}/once"}
        judge = c.start_judge(env=env)
        until(60, lambda: not judge.alive(), f"{point}")
        c.start_judge(env=env)
        c.wait_done()
        test.verify(c)
        extra = sum(1 for _ in c.calls.open()) - 10
        paid = checker.possibly_paid(c.run)
        expect(0 <= extra <= paid, f"{point}: {extra} calls too many, {paid} possibly paid")
        c.close()


@scenario("26b", "the disk of the spool is full")
def spool_full(test):
    c = test.cluster(epochs=1, eval=5)
    orders = Orders(c.dir / "orders")
    c.start_submitted()
    c.start_worker()
    judge = c.start_judge(env=orders.env)
    until(60, lambda: c.scored(1), "some are scored")
    orders.set(f"enospc write {c.dir}/j1/\n")
    time.sleep(2)
    orders.set()
    if not judge.alive():
        c.start_judge(env=orders.env)
    c.wait_done()
    test.verify(c)
