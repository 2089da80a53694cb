"""copies.py DATABASE COPIES: more sweeps like the one there is, written into a closed database.

Submitting a million jobs takes minutes; their rows, copied with other ids, names and keys, take
seconds.  Triggers and indexes are set aside meanwhile, and made again."""
import sqlite3
import sys

# Columns that are an id of the table named, and those that have to be unique.
ids = {
    "sweep": {"id": "sweep"},
    "model": {"id": "model", "sweep": "sweep"},
    "sweep_file": {"sweep": "sweep"},
    "cell": {"id": "cell", "sweep": "sweep", "model": "model"},
    "result": {"id": "result", "parent": "result", "owner": "stage"},
    "stage": {"id": "stage", "sweep": "sweep", "cell": "cell", "model": "model", "result": "result"},
    "job": {"id": "job", "sweep": "sweep"},
    "job_cell": {"job": "job", "result": "result", "cell": "cell"},
    "event": {"id": "event", "sweep": "sweep", "job": "job"},
}
names = {
    ("sweep", "name"): "name || '-' || {k}",
    ("model", "digest"): "printf('%064x', {k})",
    ("result", "key"): "printf('%064x', id + {k} * {step_result})",
    ("stage", "key"): "printf('%064x', result + {k} * {step_result})",
    # the model's turn before all others
    ("job", "turn"): "turn + {k} * 8 * {step_model}",
}


def main():
    path, copies = sys.argv[1], int(sys.argv[2])
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = DELETE", "synchronous = OFF", "locking_mode = EXCLUSIVE",
                   "cache_size = -262144", "foreign_keys = OFF"):
        db.execute("PRAGMA " + pragma)
    db.execute("BEGIN")
    aside = db.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL AND tbl_name IN"
                       " (%s) AND type IN ('trigger', 'index')" % ", ".join("?" * len(ids)),
                       list(ids)).fetchall()
    for kind, name, _ in aside:
        db.execute("DROP %s %s" % (kind, name))
    step = {table: db.execute("SELECT max(id) FROM %s" % table).fetchone()[0]
            for table in ids if "id" in ids[table]}
    for k in range(1, copies):
        values = {"k": k, **{"step_" + table: size for table, size in step.items()}}
        for table, columns in ids.items():
            parts = []
            for column in (row[1] for row in db.execute("PRAGMA table_info(%s)" % table)):
                if column in columns:
                    offset = k * step[columns[column]]
                    # 0 in an event is "of none"
                    parts.append("CASE WHEN %s <> 0 THEN %s + %d ELSE %s END"
                                 % (column, column, offset, column))
                else:
                    parts.append(names.get((table, column), column).format(**values))
            first = next(iter(columns))
            db.execute("INSERT INTO %s SELECT %s FROM %s WHERE %s <= %d ORDER BY %s"
                       % (table, ", ".join(parts), table, first, step[columns[first]], first))
    for _, _, sql in aside:
        db.execute(sql)
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


main()
