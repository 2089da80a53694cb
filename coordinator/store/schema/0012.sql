-- Schema 12: what every turn asks about sweeps, without reading all of them: those that run, by
-- priority; those whose state is not what their counts say; those with too many failures.

CREATE INDEX sweep_running ON sweep (priority DESC, id) WHERE state = 'running';
CREATE INDEX sweep_unsettled ON sweep (id)
    WHERE state IN ('running', 'done', 'gaps') AND expanding = 0
    AND state <> CASE WHEN stages > stages_done + stages_failed + stages_cancelled THEN 'running'
                      WHEN stages_failed + stages_cancelled = 0 THEN 'done' ELSE 'gaps' END;
CREATE INDEX sweep_failing ON sweep (id)
    WHERE state = 'running' AND chore = '' AND max_failures > 0 AND stages_failed >= max_failures
    AND stages > stages_done + stages_failed + stages_cancelled;
