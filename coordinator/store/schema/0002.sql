-- Schema 2: jobs of several cells, and references that jobs share.
--
-- Stages with an equal fuse_key may be worked on by one job, which is formed when
-- it is leased: the job of one takes over the cells of the others, whose jobs are
-- deleted, as nobody ever worked on them.  After two crashes each cell gets a job
-- of its own again, with fuse_key ''.
--
-- What a stage costs (core/fuse.h) is worked out once, when its cell is expanded.

ALTER TABLE sweep ADD COLUMN fuse TEXT NOT NULL DEFAULT 'auto'
    CHECK (fuse IN ('auto', 'always', 'never'));

ALTER TABLE model ADD COLUMN plan TEXT NOT NULL DEFAULT ''; -- JSON of `ha-attempt plan`

ALTER TABLE stage ADD COLUMN fuse_key TEXT NOT NULL DEFAULT ''; -- '': in a job by itself
ALTER TABLE stage ADD COLUMN reference_key TEXT NOT NULL DEFAULT ''; -- of its reference
ALTER TABLE stage ADD COLUMN shared REAL NOT NULL DEFAULT 0;
ALTER TABLE stage ADD COLUMN cost REAL NOT NULL DEFAULT 0;
ALTER TABLE stage ADD COLUMN shared_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stage ADD COLUMN pass_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stage ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX stage_fuse ON stage (sweep, fuse_key) WHERE fuse_key <> '' AND state = 'waiting';

ALTER TABLE job ADD COLUMN fuse_key TEXT NOT NULL DEFAULT '';
-- The order of jobs of equal priority: model by model, training first, so that
-- all cells of a model answer together.
ALTER TABLE job ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
-- Its attempt shall stop at a checkpoint and go on without a cell that was cancelled.
ALTER TABLE job ADD COLUMN stop INTEGER NOT NULL DEFAULT 0 CHECK (stop IN (0, 1));
UPDATE job SET turn = 8 * ifnull((SELECT c.model FROM job_cell jc JOIN cell c ON c.id = jc.cell
                                  WHERE jc.job = job.id LIMIT 1), 0)
                    + CASE kind WHEN 'generate' THEN 4 ELSE 2 END;
DROP INDEX job_ready;
CREATE INDEX job_ready ON job (priority DESC, turn, id) WHERE state = 'ready';

-- The base model's log-probs of training pairs, as an attempt stored them.
CREATE TABLE reference (
    key TEXT PRIMARY KEY,                 -- of stage.reference_key and the worker's backend
    name TEXT NOT NULL,                   -- the attempt's own, stricter key
    sha256 TEXT NOT NULL REFERENCES artifact (sha256),
    size INTEGER NOT NULL,
    used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_sha256 ON reference (sha256);
CREATE INDEX reference_used ON reference (used_ms);
