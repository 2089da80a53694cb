-- Schema 11: jobs that may be of several cells and wait.  A job gets further cells when it is leased,
-- so that one that was never leased is of one cell: a hold on some cells need not look at it.

CREATE INDEX job_formed ON job (sweep)
    WHERE attempts > 0 AND state IN ('waiting', 'ready', 'held', 'aside');
