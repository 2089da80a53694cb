"""GPUs of a worker fail under its attempts: 19.

The driver's library is played (tests/unit/daemon/fake_nvml.c) while attempts compute on the CPU, and
what a sticky CUDA error does to an attempt is a signal here.  Shown is what the worker and the
coordinator make of it; no GPU and no driver is."""
import json
import os
import pathlib
import re
import signal

from frame import GPUS, expect, scenario, until

TROUBLES = {  # what the driver tells, and what the worker says of it
    "lost=1": "cannot be read",
    "xid=79 xids=1": "XID 79",
    "ecc=2": "2 uncorrected ECC errors",
}
NAMES = [f"GPU-{letter * 4}" for letter in "abcd"]


class Gpus:
    """Four GPUs of one worker."""

    def __init__(self, c):
        self.cluster = c
        self.file = c.dir / "gpus"
        self.words = dict.fromkeys(NAMES, "")
        self.play()
        self.env = {"HA_NVML_LIBRARY": str(GPUS), "HA_FAKE_NVML": str(self.file)}

    def play(self, **words):
        self.words.update({name.replace("_", "-"): text for name, text in words.items()})
        fresh = self.file.with_suffix(".next")
        fresh.write_text("".join(f"uuid={name} name=Played total=8192 temp=41 {text}\n"
                                 for name, text in self.words.items()))
        fresh.rename(self.file)

    def states(self):
        """State and reason of each, as hactl tells them."""
        rows = json.loads(self.cluster.hactl("workers", "--json").stdout)
        return {d["uuid"]: (d["state"], d.get("reason", "")) for w in rows for d in w["devices"]}


def seen(pid):
    """The GPUs that an attempt sees; None where it is no attempt (any more)."""
    try:
        words = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        program = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if program[1:2] != [b"job"]:
        return None  # a check before an attempt
    return next((w.split(b"=", 1)[1].decode() for w in words
                 if w.startswith(b"CUDA_VISIBLE_DEVICES=")), None)


@scenario(19, "GPUs fall off the bus, tell an XID and ECC errors under their attempts")
def gpus_fail(test):
    c = test.cluster(strategies=["local", "mid", "global", "full"], step_ms=150, eval=2,
                     schedule='fuse = "never"', retry="max_attempts = 10")
    gpus = Gpus(c)
    c.start_evaluator()
    c.start_coordinator()
    worker = c.start_worker(slots=4, env=gpus.env, settings=(
        'devices=["all"]', "device_release=1s", "max_devices_aside=3"))
    until(20, lambda: [s for s, _ in gpus.states().values()] == ["free"] * 4, "four free GPUs")
    c.submit()
    c.start_judge()

    def attempts():
        return {pid: gpu for pid in worker.children() if (gpu := seen(pid))}
    until(60, lambda: sum(s["stage"] == "train" and s["state"] == "running" and s["done"] >= 1
                          for s in c.stages()) == 4, "four trainings run")
    running = attempts()
    expect(sorted(running.values()) == NAMES, f"each has a GPU of its own: {running}")
    victims = test.random.sample(sorted(running), 3)
    told = dict(zip(victims, test.random.sample(sorted(TROUBLES), 3)))
    for pid, trouble in told.items():
        gpus.play(**{running[pid].replace("-", "_"): trouble})
        os.kill(pid, signal.SIGABRT)
    bad = {running[pid] for pid in victims}
    until(20, lambda: all(gpus.states()[gpu][0] == "aside" for gpu in bad), "all three are aside")
    for pid, trouble in told.items():
        state = gpus.states()[running[pid]]
        expect(TROUBLES[trouble] in state[1], f"{trouble}: {state}")
    (spared,) = set(running) - set(victims)
    expect(spared in attempts(), "the attempt on the GPU that is well goes on")
    c.wait_done()
    expect(worker.alive(), "the daemon lives")
    test.verify(c)
    given = re.findall(r"job (\d+).* has GPU (\S+)", worker.log.read_text())
    later = [gpu for _, gpu in given[4:]]
    expect(not bad & set(later), f"given again: {given}")
    rows = c.query("SELECT outcome, count(*) FROM attempt a JOIN job j ON j.id = a.job"
                   " WHERE j.kind = 'train' GROUP BY outcome ORDER BY outcome")
    expect(rows == [("done", 4), ("failed", 3)], f"attempts: {rows}")
    # A person brings them back; the one that is still off the bus stays away.
    c.start_coordinator()
    until(20, lambda: "w1" in c.hactl("workers").stdout and gpus.states(), "the worker is back")
    c.hactl("workers", "undrain", "w1")
    lost = next(running[pid] for pid, trouble in told.items() if trouble == "lost=1")

    def aside():
        return [gpu for gpu, (state, _) in gpus.states().items() if state == "aside"]
    until(20, lambda: aside() == [lost], "two are back")
    gpus.play(**{lost.replace("-", "_"): ""})
    until(20, lambda: not aside(), "all four are back")
