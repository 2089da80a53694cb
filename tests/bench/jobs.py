"""Jobs of ha-attempt for benchmarks: started as the worker daemon does, timed from the end of loading."""

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import threading
import time


def blocks(count):
    """Layers of every strategy, as the paper's Table 4 cuts them."""
    third, rest = divmod(count, 3)
    first = third + (rest > 0)
    second = first + third + (rest > 1)
    return {"local": range(first), "mid": range(first, second), "global": range(second, count),
            "full": range(count)}


@dataclasses.dataclass
class Done:
    """The lines of a job that ended well, its wall and processor seconds, and when each line came."""

    lines: list
    wall: float
    processor: float
    times: list

    def of(self, kind):
        return [line for line in self.lines if line["type"] == kind]


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_job(program, folder, job, limit=None):
    """Runs job.json in a new folder. limit: seconds, after which the job is killed and None returned."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps({"sweep": "bench", "job": 1, **job}))
    reader, writer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(folder / "log", "w", encoding="utf-8") as log:
        child = subprocess.Popen([program, "job", "--dir", folder, "--contract-fd", str(writer)],
                                 pass_fds=[writer], stderr=log, cwd=folder)
    os.close(writer)
    start, lines, times = None, [], []
    with os.fdopen(reader) as pipe:
        timer = Deadline(child, limit)
        for line in pipe:
            lines.append(line)
            times.append(time.perf_counter())
            if start is None and '"phase"' in line and '"load"' not in line:
                start = times[-1], processor_seconds(child.pid)
        child.wait()
        late = timer.cancel()
    end = time.perf_counter()
    if late:
        return None
    if child.returncode != 0:
        said = (folder / "log").read_text(errors="replace").strip().splitlines()
        sys.exit(f"ha-attempt: {said[-1] if said else f'exit code {child.returncode}'}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Done([json.loads(line) for line in lines], end - start[0], used - start[1], times)


class Deadline:
    """Kills a child that is not done in time."""

    def __init__(self, child, seconds):
        self.late = False
        self.timer = threading.Timer(seconds, self.kill, [child]) if seconds else None
        if self.timer:
            self.timer.start()

    def kill(self, child):
        self.late = True
        child.kill()

    def cancel(self):
        """True where it had to be killed."""
        if self.timer:
            self.timer.cancel()
        return self.late
