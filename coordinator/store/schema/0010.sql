-- Schema 10: gangs over several workers.  A part is what one worker runs of an attempt of several
-- ranks; part 0 has rank 0, is on the attempt's own worker, and keeps the communicator's id from
-- the moment when every rank was ready.

CREATE TABLE part (
    job        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    part       INTEGER NOT NULL CHECK (part >= 0),
    worker     INTEGER NOT NULL REFERENCES worker (id),
    first_rank INTEGER NOT NULL CHECK (first_rank >= 0),
    ranks      INTEGER NOT NULL CHECK (ranks > 0),
    open       INTEGER NOT NULL DEFAULT 1 CHECK (open IN (0, 1)),
    comm_id    TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, generation, number, part)
) STRICT, WITHOUT ROWID;

CREATE INDEX part_open ON part (worker, job) WHERE open = 1;

-- Workers that share a job that trains; need_gpus is what each of them gives.
ALTER TABLE sweep ADD COLUMN need_nodes INTEGER NOT NULL DEFAULT 1;
