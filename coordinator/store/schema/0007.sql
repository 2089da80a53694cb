-- Schema 7: what a page of cells, a start and a retry look for, without reading all there is.

CREATE INDEX cell_sweep ON cell (sweep);
CREATE INDEX job_held ON job (id) WHERE state IN ('held', 'aside');
CREATE INDEX result_record ON result (finished_ms, id)
    WHERE kind IN ('train', 'generate') AND state = 'done' AND summary <> '';
