-- Schema 6: what each sweep stores, kept by triggers so that a limit costs no count.

ALTER TABLE sweep ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0; -- files and products
UPDATE sweep SET stored_bytes =
    ifnull((SELECT sum(f.size) FROM sweep_file f WHERE f.sweep = sweep.id), 0)
    + ifnull((SELECT sum(p.size) FROM product p JOIN job j ON j.id = p.job
              WHERE j.sweep = sweep.id), 0);

CREATE TRIGGER product_stored AFTER INSERT ON product BEGIN
    UPDATE sweep SET stored_bytes = stored_bytes + NEW.size
    WHERE id = (SELECT sweep FROM job WHERE id = NEW.job);
END;
CREATE TRIGGER product_changed AFTER UPDATE OF size, job ON product BEGIN
    UPDATE sweep SET stored_bytes = stored_bytes - OLD.size
    WHERE id = (SELECT sweep FROM job WHERE id = OLD.job);
    UPDATE sweep SET stored_bytes = stored_bytes + NEW.size
    WHERE id = (SELECT sweep FROM job WHERE id = NEW.job);
END;
CREATE TRIGGER product_gone AFTER DELETE ON product BEGIN
    UPDATE sweep SET stored_bytes = stored_bytes - OLD.size
    WHERE id = (SELECT sweep FROM job WHERE id = OLD.job);
END;
CREATE TRIGGER sweep_file_stored AFTER INSERT ON sweep_file BEGIN
    UPDATE sweep SET stored_bytes = stored_bytes + NEW.size WHERE id = NEW.sweep;
END;
CREATE TRIGGER sweep_file_gone AFTER DELETE ON sweep_file BEGIN
    UPDATE sweep SET stored_bytes = stored_bytes - OLD.size WHERE id = OLD.sweep;
END;

-- gc asks of every artifact whether a sweep names it.
CREATE INDEX sweep_file_sha256 ON sweep_file (sha256);
