-- Schema 5: what people hold back, why an attempt is told to stop, drained
-- workers, and what a sweep's attempts need of a worker.

-- "hactl pause": a sweep (model NULL, strategy ''), the row of a model, the column
-- of a strategy, or where the two cross.  A stage is held while a hold covers its
-- cell; sweep.state is 'paused' while one covers all of it.
CREATE TABLE hold (
    id INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    model INTEGER REFERENCES model (id),  -- NULL: every model
    strategy TEXT NOT NULL,               -- '': every strategy
    finish INTEGER NOT NULL CHECK (finish IN (0, 1)), -- what runs may end by itself
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX hold_of ON hold (sweep, ifnull(model, 0), strategy);
INSERT INTO hold (sweep, strategy, finish, actor, reason, since_ms)
    SELECT w.id, '', 1, ifnull(e.actor, 'somebody'), w.reason, ifnull(e.time_ms, w.created_ms)
    FROM sweep w LEFT JOIN event e ON e.id = (SELECT max(id) FROM event WHERE sweep = w.id
                                              AND job = 0 AND after = 'paused')
    WHERE w.state = 'paused';

-- Why job.stop is 1: the job has fewer cells now, a person paused it or drains its
-- worker, a sweep of higher priority needs the place.
ALTER TABLE job ADD COLUMN stop_kind TEXT NOT NULL DEFAULT ''
    CHECK (stop_kind IN ('', 'cell', 'pause', 'drain', 'preempt'));
ALTER TABLE job ADD COLUMN stop_reason TEXT NOT NULL DEFAULT '';
UPDATE job SET stop_kind = 'cell', stop_reason = 'to go on without a cell that was cancelled'
    WHERE stop = 1;

-- "hactl workers drain": it gets no new work; drain_actor '' when it does.
ALTER TABLE worker ADD COLUMN drain_actor TEXT NOT NULL DEFAULT '';
ALTER TABLE worker ADD COLUMN drain_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE worker ADD COLUMN drain_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker ADD COLUMN drain_deadline_ms INTEGER NOT NULL DEFAULT 0; -- 0: none

-- [resources] of the grid; 0 and '': no such need.
ALTER TABLE sweep ADD COLUMN need_labels TEXT NOT NULL DEFAULT ''; -- one per line
ALTER TABLE sweep ADD COLUMN need_cpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep ADD COLUMN need_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep ADD COLUMN need_gpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep ADD COLUMN need_gpu_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep ADD COLUMN time_limit_s INTEGER NOT NULL DEFAULT 0;

-- Ready jobs are read sweep by sweep, so that one sweep hides no other's.
DROP INDEX job_ready;
CREATE INDEX job_ready ON job (sweep, turn, id) WHERE state = 'ready';
