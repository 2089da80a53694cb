"""A program is killed when it has made a folder and not yet synced its name: the next one finds the
folder there, and what it says to rely on is on the disk all the same, up to the root."""
from frame import SHIM, Call, expect, scenario
from power import Disk, Reliance, records


class Lives:
    """A program that begins again after each kill; one disk that never loses its power."""

    def __init__(self, cluster, name, kills):
        self.cluster, self.name, self.kills = cluster, name, kills
        self.root = cluster.dir / f"disk-{name}"
        self.root.mkdir()
        self.folder = self.root / "deep" / "down"
        self.traces = []

    def env(self):
        life = len(self.traces)
        self.traces.append(self.cluster.dir / f"trace-{self.name}-{life}")
        order = {"HA_CRASH": f"file.folder_made:1@{self.cluster.dir}/claim-{self.name}-{life}"}
        return {"LD_PRELOAD": str(SHIM), "HA_SHIM_TRACE": str(self.traces[-1]),
                "HA_SHIM_ROOT": str(self.root), **(order if life < self.kills else {})}

    def verdict(self):
        """How often files were relied on."""
        disk, count = Disk(self.root), 0
        for trace in self.traces:
            life = Reliance(self.root, disk)
            for _, what, path, offset, data, other in records(trace):
                life.take(what, path, offset, data, other)
            expect(not life.broken, f"{self.name}, life {self.traces.index(trace)}: "
                   + "; ".join(life.broken[:3]))
            count += life.count
        killed = len(list(self.cluster.dir.glob(f"claim-{self.name}-*")))
        expect(count > 0, f"the {self.name} relied on nothing")
        expect(killed == self.kills, f"the {self.name} was killed {killed} of {self.kills} times")
        return count


@scenario("power-folders", "programs killed between the making of a folder and its sync")
def power_folders(test):
    c = test.cluster(strategies=["base"], eval=2, retry="max_attempts = 100")
    # deep, down, artifacts, partial, snapshot, and one of a data file
    coordinator = Lives(c, "coordinator", 6)
    worker = Lives(c, "worker", 4)  # deep, down, cache, an attempt's
    judge = Lives(c, "judge", 2)
    c.run = coordinator.folder
    c.start_evaluator()
    grid = c.write_grid()
    for _ in range(5):
        c.start_coordinator(env=coordinator.env(), ready=False).wait(20)
    submitted = []

    def submit():
        if not submitted:
            submitted.append(Call(c, "submit", grid))
        return submitted[0].thread.is_alive() is False and c.ended()

    c.supervise({"coordinator": lambda: c.start_coordinator(env=coordinator.env()),
                 "w1": lambda: c.start_worker(env=worker.env(), work_dir=worker.folder),
                 "j1": lambda: c.start_judge(env=judge.env(), spool=judge.folder)}, 60, submit)
    test.verify(c)
    for process in c.processes:
        process.kill()
    counts = [life.verdict() for life in (coordinator, worker, judge)]
    test.note(f"12 kills; relied on files {counts} times")
