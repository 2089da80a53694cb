"""The guarantees of ARCHITECTURE section 6, read off the last database.

`check` looks at the tables and the event history of a coordinator that is
stopped and returns what does not hold, in three lists: lost, duplicated, wrong.
Nothing of the coordinator's own code is used.
"""
import hashlib
import itertools
import pathlib
import sqlite3

JOB = {  # coordinator/core/state.c, read once more by hand
    "": {"waiting", "ready"},
    "waiting": {"ready", "held", "failed", "cancelled"},
    "ready": {"leased", "running", "done", "failed", "held", "cancelled", "aside"},
    "leased": {"running", "ready", "done", "failed", "held", "cancelled"},
    "running": {"ready", "done", "failed", "held", "cancelled"},
    "held": {"ready", "running", "done", "failed", "cancelled"},
    "aside": {"ready", "cancelled"},
    "done": set(), "failed": set(), "cancelled": set(),
}
FINAL = ("done", "failed", "cancelled")


class Findings:
    def __init__(self):
        self.lost, self.duplicated, self.wrong, self.stuck = [], [], [], []

    def all(self):
        return ([f"lost: {x}" for x in self.lost] + [f"duplicated: {x}" for x in self.duplicated]
                + [f"stuck: {x}" for x in self.stuck] + self.wrong)


def one(db, sql, *values):
    return db.execute(sql, values).fetchone()[0]


def check_store(db, found):
    for (verdict,) in db.execute("PRAGMA integrity_check"):
        if verdict != "ok":
            found.wrong.append(f"integrity_check: {verdict}")
    for row in db.execute("PRAGMA foreign_key_check"):
        found.wrong.append(f"foreign_key_check: {row}")


def check_jobs(db, found, finished):
    for job, state, attempts in db.execute("SELECT id, state, attempts FROM job"):
        rows = db.execute("SELECT generation, number, state, outcome, sequence, started_ms"
                          " FROM attempt WHERE job = ? ORDER BY number", (job,)).fetchall()
        # Epochs: numbers 1, 2, … without gaps; a restore begins a generation of the store.
        if [r[1] for r in rows] != list(range(1, attempts + 1)):
            found.wrong.append(f"job {job} has attempts {[r[1] for r in rows]} of {attempts}")
        generations = [generation for generation, _ in itertools.groupby(r[0] for r in rows)]
        if len(generations) != len(set(generations)):
            found.wrong.append(f"job {job}: a generation comes back: {generations}")
        done = [r[1] for r in rows if r[3] == "done"]
        if len(done) > 1:
            found.duplicated.append(f"job {job}: attempts {done} are both effective")
        if state == "done" and done and done != [attempts]:
            found.wrong.append(f"job {job}: attempt {done} is effective, {attempts} is the newest")
        open_ones = [r[1] for r in rows if r[2] in ("leased", "running", "lost")]
        if len(open_ones) > 1:
            found.duplicated.append(f"job {job}: attempts {open_ones} are open together")
        if open_ones and open_ones != [attempts]:
            found.wrong.append(f"job {job}: attempt {open_ones} is open, {attempts} the newest")
        if state in FINAL and open_ones:
            found.wrong.append(f"job {job} is {state}, its attempt {open_ones} is open")
        if finished and state == "failed":
            found.lost.append(f"job {job} failed")
        if finished and state not in FINAL:
            found.stuck.append(f"job {job} is {state}")
        if state in ("failed", "held", "aside") and not one(
                db, "SELECT reason <> '' FROM job WHERE id = ?", job):
            found.wrong.append(f"job {job} is {state} without a reason")


def check_parts(db, found, finished):
    """Gangs over several workers have all their places or none, each attempt its own id, and no
    worker more attempts at a time than slots."""
    gangs = {}
    for job, generation, number, part, worker, first, ranks, is_open in db.execute(
            "SELECT job, generation, number, part, worker, first_rank, ranks, open FROM part"
            " ORDER BY job, generation, number, part"):
        gangs.setdefault((job, generation, number), []).append((part, worker, first, ranks, is_open))
    shared = any(len(parts) > 1 for parts in gangs.values())
    held = {}
    for job, generation, number, worker, state, outcome, began, ended, nodes in db.execute(
            "SELECT a.job, a.generation, a.number, a.worker, a.state, a.outcome, a.started_ms,"
            " a.ended_ms, s.need_nodes FROM attempt a"
            " JOIN job j ON j.id = a.job JOIN sweep s ON s.id = j.sweep"):
        parts = gangs.pop((job, generation, number), [])
        name = f"job {job}, attempt {number}"
        if parts and ([p[0] for p in parts] != list(range(len(parts))) or parts[0][1] != worker
                      or len({p[1] for p in parts}) != len(parts)
                      or [p[2] for p in parts] != [i * parts[0][3] for i in range(len(parts))]):
            found.wrong.append(f"{name} has the parts {parts}")
        if nodes > 1 and len(parts) != nodes:  # all of its places, or none
            found.wrong.append(f"{name} has {len(parts)} of {nodes} parts")
        if any(p[4] != (state != "ended") for p in parts):
            found.wrong.append(f"{name} is {state}, its parts' places are {[p[4] for p in parts]}")
        if (state == "ended") != (outcome is not None):
            found.wrong.append(f"{name} is {state} with the outcome {outcome}")
        if finished and state != "ended":
            found.stuck.append(f"{name} is {state}")
        if shared and state == "ended" and outcome != "lost":
            for place in {worker, *(p[1] for p in parts)}:
                held.setdefault(place, []).append((began, 1))
                held[place].append((ended, -1))
    if gangs:
        found.wrong.append(f"parts without an attempt: {list(gangs)}")
    for worker, times in held.items():
        most = max(itertools.accumulate(change for _, change in sorted(times)))
        slots = one(db, "SELECT slots FROM worker WHERE id = ?", worker)
        if most > slots:
            found.duplicated.append(f"worker {worker} had {most} attempts at a time, {slots} slots")
    for count, n in db.execute("SELECT count(*), count(DISTINCT comm_id) FROM part"
                               " WHERE comm_id <> ''"):
        if count != n:
            found.duplicated.append(f"{count} gangs had {n} ids")


def check_history(db, found):
    """Each change of a job begins where the last one ended, and is legal."""
    at = {}
    jobs = {job for (job,) in db.execute("SELECT id FROM job")}
    for event, subject, before, after in db.execute(
            "SELECT id, subject, before, after FROM event WHERE subject LIKE 'job %' ORDER BY id"):
        job = int(subject.split()[1])
        known = at.get(job)
        if known is not None and before and before != known:
            found.wrong.append(f"event {event}: {subject} goes from {before}, but was {known}")
        if after in JOB:
            if before in JOB and after != before and after not in JOB[before]:
                found.wrong.append(f"event {event}: {subject} goes from {before or 'nothing'} "
                                   f"to {after}")
            at[job] = after
    for job, state in at.items():
        if job in jobs:
            now = one(db, "SELECT state FROM job WHERE id = ?", job)
            if now != state:
                found.wrong.append(f"job {job} is {now}, its history ends with {state}")


def check_answers(db, found, prompts, cells, finished):
    results = db.execute("SELECT id, state FROM result WHERE kind = 'generate'").fetchall()
    for result, state in results:
        rows = db.execute("SELECT prompt, sample, count(*) FROM answer WHERE result = ?"
                          " GROUP BY prompt, sample", (result,)).fetchall()
        for prompt, sample, n in rows:
            if n > 1:
                found.duplicated.append(f"result {result}: prompt {prompt} answered {n} times")
        if state == "done" and prompts is not None and len(rows) != prompts:
            found.lost.append(f"result {result}: {len(rows)} of {prompts} answers")
    if finished and cells is not None and len(results) != cells:
        found.lost.append(f"{len(results)} of {cells} cells have answers")


def check_scores(db, found, finished):
    for item, n, dimensions in db.execute(
            "SELECT i.id, count(s.item), count(DISTINCT s.dimension) FROM item i"
            " LEFT JOIN score s ON s.item = i.id WHERE i.state = 'scored' GROUP BY i.id"):
        if n != 16 or dimensions != 16:
            (found.lost if n < 16 else found.duplicated).append(f"item {item} has {n} scores")
    extra = one(db, "SELECT count(*) FROM score s JOIN item i ON i.id = s.item"
                    " WHERE i.state <> 'scored'")
    if extra:
        found.wrong.append(f"{extra} scores of items that are not scored")
    for answer, judge, sample, n in db.execute(
            "SELECT answer, judge, sample, count(*) FROM item"
            " GROUP BY answer, judge, sample HAVING count(*) > 1"):
        found.duplicated.append(f"answer {answer} has {n} items of judge {judge}, sample {sample}")
    if finished:
        missing = one(db, "SELECT count(*) FROM answer a JOIN judge j ON j.live"
                          " WHERE NOT EXISTS (SELECT 1 FROM item WHERE answer = a.id)")
        if missing:
            found.lost.append(f"{missing} answers are judged by nobody")
        for item, state in db.execute("SELECT id, state FROM item WHERE state <> 'scored'"):
            found.stuck.append(f"item {item} is {state}")


def check_calls(db, found, calls):
    """Money: every call that the evaluator saw is in the books, and none twice."""
    for judge, spent, reserved, possibly in db.execute(
            "SELECT id, spent, reserved, possibly_paid FROM judge"):
        books = db.execute(
            "SELECT total(cost), total(reserved * (state IN ('begun', 'unknown'))),"
            " total(state = 'unknown') FROM judge_call WHERE judge = ?", (judge,)).fetchone()
        if abs(spent - books[0]) > 1e-9 * (1 + abs(spent)) or possibly != books[2]:
            found.wrong.append(f"judge {judge} says spent {spent}, possibly paid {possibly}; "
                               f"its calls say {books[0]}, {books[2]}")
        if abs(reserved - books[1]) > 1e-9 * (1 + abs(reserved)):
            found.wrong.append(f"judge {judge} has {reserved} reserved, its calls {books[1]}")
    left = one(db, "SELECT count(*) FROM judge_call c JOIN item i ON i.id = c.item WHERE"
                   " c.state = 'begun' AND (i.state <> 'leased' OR i.epoch <> c.epoch)")
    if left:
        found.wrong.append(f"{left} calls are open whose lease is over")
    bad = one(db, "SELECT count(*) FROM item i WHERE i.state = 'scored' AND NOT EXISTS"
                  " (SELECT 1 FROM judge_call c JOIN judge_raw r ON r.call = c.id WHERE"
                  " c.id = i.call AND c.item = i.id AND c.state = 'replied')")
    if bad:
        found.wrong.append(f"{bad} items are scored without a stored reply")
    if calls is not None and calls.exists():
        seen = sum(1 for _ in calls.open())
        known = one(db, "SELECT count(*) FROM judge_call WHERE state <> 'unsent'")
        if seen > known:
            found.lost.append(f"the evaluator was asked {seen} times, {known} calls are known")
        again = one(db, "SELECT count(*) FROM (SELECT item FROM judge_call WHERE state = 'replied'"
                        " AND outcome = 'scored' GROUP BY item HAVING count(*) > 1)")
        paid_twice = one(db, "SELECT count(*) FROM judge_call c JOIN item i ON i.id = c.item"
                             " WHERE c.state = 'replied' AND c.outcome = 'scored'"
                             " AND c.id <> i.call")
        unknown = one(db, "SELECT count(*) FROM judge_call c WHERE state IN ('unknown', 'begun')")
        if (again or paid_twice) and not unknown and not one(
                db, "SELECT count(*) FROM judge_call GROUP BY item HAVING count(*) > 1"
                    " UNION ALL SELECT 0"):
            found.duplicated.append(f"{again} items were scored by several replies")


def check_counters(db, found):
    for row in db.execute("SELECT id, name, stages, stages_done, stages_failed, stages_cancelled"
                          " FROM sweep").fetchall():
        now = db.execute(
            "SELECT count(*), total(state IN ('done', 'reused')), total(state = 'failed'),"
            " total(state = 'cancelled') FROM stage WHERE sweep = ? AND live = 1",
            (row[0],)).fetchone()
        if tuple(row[2:]) != tuple(int(x) for x in now):
            found.wrong.append(f"sweep {row[1]} counts {row[2:]}, its stages say {now}")
    for result, done, total, failed, ready, leased in db.execute(
            "SELECT id, done, total, failed, ready, leased FROM result WHERE kind = 'judge'"):
        now = db.execute("SELECT total(state = 'scored'), count(*), total(state = 'failed'),"
                         " total(state = 'ready'), total(state = 'leased') FROM item"
                         " WHERE result = ?", (result,)).fetchone()
        if (done, total, failed, ready, leased) != tuple(int(x) for x in now):
            found.wrong.append(f"result {result} counts {(done, total, failed, ready, leased)}, "
                               f"its items say {now}")


def check_sizes(db, found):
    """Each row that triggers count for its sweep is counted (schema 13), beside those that are not."""
    for name, bytes_, least in db.execute(
            "SELECT s.name, r.bytes, length(CAST(s.toml AS BLOB)) + length(CAST(s.overrides AS BLOB))"
            " + (SELECT total(100 + length(CAST(name AS BLOB))) FROM cell WHERE sweep = s.id)"
            " + 700 * (SELECT count(*) FROM stage WHERE sweep = s.id)"
            " + 200 * (SELECT count(*) FROM attempt a JOIN job j ON j.id = a.job WHERE j.sweep = s.id)"
            " + (SELECT total(100 + length(CAST(reason AS BLOB))) FROM event WHERE sweep = s.id)"
            " + 150 * (SELECT count(*) FROM item i JOIN judge j ON j.id = i.judge"
            "          WHERE j.sweep = s.id)"
            " + 200 * (SELECT count(*) FROM judge_call k JOIN judge j ON j.id = k.judge"
            "          WHERE j.sweep = s.id)"
            " FROM sweep s LEFT JOIN sweep_rows r ON r.sweep = s.id"):
        if bytes_ is None or bytes_ < least:
            found.wrong.append(f"sweep {name} counts {bytes_} bytes of rows, some of its have {least}")


def check_metrics(db, found):
    """Every step of a training that is done was reported, once."""
    for (result,) in db.execute("SELECT id FROM result WHERE kind = 'train' AND state = 'done'"):
        steps = [s for (s,) in db.execute("SELECT step FROM metric WHERE result = ? AND"
                                          " name = 'loss' ORDER BY step", (result,))]
        if steps and steps != list(range(steps[0], steps[-1] + 1)):
            found.lost.append(f"result {result}: metrics of steps {steps}")


def digest(path):
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            hasher.update(piece)
    return hasher.hexdigest()


def check_artifacts(db, found, folder):
    files = {p.name: p for p in folder.rglob("*") if p.is_file() and len(p.name) == 64}
    for sha256, size in db.execute("SELECT sha256, size FROM artifact"):
        path = files.get(sha256)
        if path is None:
            used = one(db, "SELECT count(*) FROM product WHERE sha256 = ?", sha256)
            if used or one(db, "SELECT count(*) FROM sweep_file WHERE sha256 = ?", sha256):
                found.lost.append(f"artifact {sha256[:12]} has no file")
        elif path.stat().st_size != size or digest(path) != sha256:
            found.wrong.append(f"artifact {sha256[:12]} is damaged")
    for (result,) in db.execute("SELECT id FROM result WHERE kind = 'train' AND state = 'done'"):
        names = {n for (n,) in db.execute("SELECT name FROM product WHERE result = ? AND"
                                          " kind = 'adapter'", (result,))}
        if names != {"adapter_config.json", "adapter_model.safetensors"}:
            found.lost.append(f"result {result} has the adapter files {sorted(names)}")


def adapters(db):
    """What was trained, by cell: the digests of its adapter's files."""
    return {cell: dict(db.execute(
        "SELECT p.name, p.sha256 FROM stage s JOIN product p ON p.result = s.result"
        " WHERE s.cell = ? AND s.kind = 'train' AND p.kind = 'adapter'", (id_,)))
        for id_, cell in db.execute("SELECT id, name FROM cell").fetchall()}


def answers(db):
    return sorted(db.execute(
        "SELECT c.name, a.prompt, a.sample, a.text FROM stage s JOIN cell c ON c.id = s.cell"
        " JOIN answer a ON a.result = s.result WHERE s.kind = 'generate'"))


def scores(db):
    return sorted(db.execute(
        "SELECT c.name, a.prompt, a.sample, d.name, x.value FROM score x"
        " JOIN dimension d ON d.id = x.dimension JOIN item i ON i.id = x.item"
        " JOIN answer a ON a.id = i.answer JOIN stage s ON s.result = a.result"
        " AND s.kind = 'generate' JOIN cell c ON c.id = s.cell"))


def check(run, prompts=None, cells=None, calls=None, finished=True, reference=None):
    """Findings about the coordinator's folder `run`.

    finished: the sweep ended without gaps, so nothing may wait.  reference: the
    same from `tables` of an undisturbed run, whose adapters, answers and scores
    must be equal."""
    found = Findings()
    db = sqlite3.connect(pathlib.Path(run) / "coordinator.db")
    try:
        check_store(db, found)
        check_jobs(db, found, finished)
        check_parts(db, found, finished)
        check_history(db, found)
        check_answers(db, found, prompts, cells, finished)
        check_scores(db, found, finished)
        check_calls(db, found, calls)
        check_counters(db, found)
        check_sizes(db, found)
        check_metrics(db, found)
        check_artifacts(db, found, pathlib.Path(run) / "artifacts")
        if reference:
            for name, mine, other in zip(("adapters", "answers", "scores"), tables_of(db),
                                         reference):
                if mine != other:
                    found.wrong.append(f"the {name} are not those of an undisturbed run")
    finally:
        db.close()
    return found


def tables_of(db):
    return adapters(db), answers(db), scores(db)


def tables(run):
    db = sqlite3.connect(pathlib.Path(run) / "coordinator.db")
    try:
        return tables_of(db)
    finally:
        db.close()


def possibly_paid(run):
    db = sqlite3.connect(pathlib.Path(run) / "coordinator.db")
    try:
        return one(db, "SELECT count(*) FROM judge_call WHERE state IN ('unknown', 'begun')")
    finally:
        db.close()
