-- Schema 13: what a sweep stores counts everything that grows with it: its grid's text and rows, its
-- history, attempts, items and calls too.  In a table of its own: a row of `sweep` holds a grid's
-- text, and is long to write.  Triggers count what is written in one way only; the rest is counted
-- where it is taken, and artifact.h says what each row counts.

CREATE TABLE sweep_rows (
    sweep INTEGER PRIMARY KEY REFERENCES sweep (id),
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO sweep_rows SELECT s.id, s.row_bytes
    + length(CAST(s.toml AS BLOB)) + length(CAST(s.overrides AS BLOB))
    + ifnull((SELECT sum(100 + length(CAST(name AS BLOB))) FROM cell WHERE sweep = s.id), 0)
    + 700 * (SELECT count(*) FROM stage WHERE sweep = s.id)
    + 200 * (SELECT count(*) FROM job j JOIN attempt a ON a.job = j.id WHERE j.sweep = s.id)
    + ifnull((SELECT sum(100 + length(CAST(reason AS BLOB))) FROM event WHERE sweep = s.id), 0)
    + 150 * (SELECT count(*) FROM judge j JOIN item i ON i.judge = j.id WHERE j.sweep = s.id)
    + 200 * (SELECT count(*) FROM judge j JOIN judge_call k ON k.judge = j.id
             WHERE j.sweep = s.id AND NOT EXISTS (SELECT 1 FROM judge_raw r WHERE r.call = k.id))
    FROM sweep s;

ALTER TABLE sweep DROP COLUMN row_bytes;

CREATE TRIGGER sweep_counted AFTER INSERT ON sweep BEGIN
    INSERT INTO sweep_rows (sweep, bytes)
    VALUES (NEW.id, length(CAST(NEW.toml AS BLOB)) + length(CAST(NEW.overrides AS BLOB)));
END;
CREATE TRIGGER sweep_text_counted AFTER UPDATE OF toml, overrides ON sweep BEGIN
    UPDATE sweep_rows SET bytes = bytes
        + length(CAST(NEW.toml AS BLOB)) + length(CAST(NEW.overrides AS BLOB))
        - length(CAST(OLD.toml AS BLOB)) - length(CAST(OLD.overrides AS BLOB))
    WHERE sweep = NEW.id;
END;
CREATE TRIGGER cell_counted AFTER INSERT ON cell BEGIN
    UPDATE sweep_rows SET bytes = bytes + 100 + length(CAST(NEW.name AS BLOB))
    WHERE sweep = NEW.sweep;
END;
CREATE TRIGGER stage_counted AFTER INSERT ON stage BEGIN
    UPDATE sweep_rows SET bytes = bytes + 700 WHERE sweep = NEW.sweep;
END;
CREATE TRIGGER attempt_counted AFTER INSERT ON attempt BEGIN
    UPDATE sweep_rows SET bytes = bytes + 200
    WHERE sweep = (SELECT sweep FROM job WHERE id = NEW.job);
END;
CREATE TRIGGER event_counted AFTER INSERT ON event WHEN NEW.sweep <> 0 BEGIN
    UPDATE sweep_rows SET bytes = bytes + 100 + length(CAST(NEW.reason AS BLOB))
    WHERE sweep = NEW.sweep;
END;
CREATE TRIGGER item_counted AFTER INSERT ON item BEGIN
    UPDATE sweep_rows SET bytes = bytes + 150
    WHERE sweep = (SELECT sweep FROM judge WHERE id = NEW.judge);
END;
CREATE TRIGGER call_counted AFTER INSERT ON judge_call BEGIN
    UPDATE sweep_rows SET bytes = bytes + 200
    WHERE sweep = (SELECT sweep FROM judge WHERE id = NEW.judge);
END;
