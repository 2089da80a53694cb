"""What every scenario has: a number, a seed, a cluster, and the verdict."""
import random
import subprocess
import threading
import time

import checker
from cluster import BUILD, ROOT, Cluster, Failure, expect, until  # noqa: F401 (for scenarios)

SCENARIOS = []
SHIM = BUILD / "fault-shim.so"
GPUS = BUILD / "fault-gpus.so"  # plays the driver's library


def scenario(number, name, slow=False):
    """number: of design's list of 32, or a word for what stands beside it."""
    def add(function):
        SCENARIOS.append((str(number), name, slow, function))
        return function
    return add


def build_shims():
    source = ROOT / "tests" / "fault" / "shim.c"
    gpus = ROOT / "tests" / "unit" / "daemon" / "fake_nvml.c"
    for library, file in ((SHIM, source), (GPUS, gpus)):
        if not library.exists() or library.stat().st_mtime < file.stat().st_mtime:
            subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", file,
                            "-o", library, "-ldl"], check=True)


class Orders:
    """The page of orders of a shim (shim.c); empty at first."""

    def __init__(self, path):
        self.path = path
        self.path.write_bytes(bytes(4096))
        self.env = {"LD_PRELOAD": str(SHIM), "HA_SHIM": str(path)}

    def set(self, text=""):
        data = text.encode()
        with open(self.path, "r+b") as file:
            file.write(data + bytes(4096 - len(data)))


_references, _lock = {}, threading.Lock()


def reference(**grid):
    """Adapters, answers and scores of this grid when nobody disturbs it, and of gangs over several
    workers when they are on one."""
    grid.pop("nodes", None)
    key = repr(sorted({**Cluster.GRID, **grid, "name": "", "retry": "", "judge": "",
                       "schedule": "", "checkpoint": 1}.items()))
    with _lock:
        if key not in _references:
            cluster = Cluster(0, **grid)
            try:
                cluster.start_all()
                cluster.wait_done()
                cluster.stop_coordinator()
                _references[key] = checker.tables(cluster.run)
            finally:
                cluster.close()
        return _references[key]


class Test:
    """One run of one scenario."""

    def __init__(self, seed, trace):
        self.seed = seed
        self.random = random.Random(seed)
        self.trace = trace
        self.clusters = []
        self.proxies = []
        self.notes = []

    def cluster(self, step_ms=0, **grid):
        cluster = Cluster(self.seed, self.trace, step_ms, **grid)
        self.clusters.append(cluster)
        return cluster

    def note(self, text):
        self.notes.append(text)

    def close(self):
        for proxy in self.proxies:
            proxy.close()
        for cluster in self.clusters:
            cluster.close()

    def verify(self, cluster, finished=True, same=True, cells=None):
        """Stop the coordinator and hold its database to the guarantees."""
        if finished and cluster.coordinator.alive():  # the words about the ends follow
            until(15, cluster.quiet, "the attempts have ended")
        cluster.stop_coordinator()
        grid = cluster.grid
        cells = cells or len(grid["models"]) * len(grid["strategies"])
        ref = None
        if same and finished:
            ref = reference(**{k: v for k, v in grid.items() if Cluster.GRID[k] != v
                               and k not in ("retry", "name", "judge", "schedule", "checkpoint")})
        found = checker.check(cluster.run, grid["eval"] if finished else None, cells, cluster.calls, finished, ref)
        expect(not found.all(), "; ".join(found.all()[:6]))


def nobody_lost(c):
    lost = c.query("SELECT subject, reason FROM event WHERE after = 'lost'")
    expect(not lost, f"lost: {lost}")


def nothing_again(c):
    again = c.query("SELECT job, count(*) FROM attempt GROUP BY job HAVING count(*) > 1")
    expect(not again, f"jobs run again: {again}")


def later(seconds, function, *arguments):
    """Call it in a thread; join to see that it is over."""
    def run():
        time.sleep(seconds)
        function(*arguments)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Call:
    """hactl in a thread, while something else happens."""

    def __init__(self, cluster, *arguments, **options):
        self.done = None
        self.error = None

        def run():
            try:
                self.done = cluster.hactl(*arguments, check=False, **options)
            except Exception as error:  # pylint: disable=broad-except
                self.error = error
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def failed(self):
        """Why it did, once it has."""
        if self.done and self.done.returncode != 0:
            return self.done.stderr.strip()[-200:] or "failed"
        return self.error

    def join(self, seconds=60):
        self.thread.join(seconds)
        expect(not self.thread.is_alive(), "hactl does not end")
        if self.error:
            raise Failure(str(self.error))
        return self.done
