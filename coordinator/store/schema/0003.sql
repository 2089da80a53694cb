-- Schema 3: probes.
--
-- A probe is a stage like the others, and its result is shared by every cell with
-- its key.  A train result whose layers a probe chooses (layers = "auto:K") is
-- made from the probe's: its parent.
--
-- A CHECK constraint cannot be altered, and the three tables whose `kind` gets
-- another value are referred to by most others; so the text of their
-- definitions is changed, as SQLite's documentation of ALTER TABLE describes for
-- changes that concern no stored row.

PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'kind IN (''train'',', 'kind IN (''probe'', ''train'',')
WHERE type = 'table' AND name IN ('result', 'stage', 'job');
PRAGMA writable_schema = RESET;

-- What probes found: the mean over pairs of the norm of the loss's gradient by
-- the frozen weights of a module of one layer (block '') or of a block of layers.
-- Rows of a probe that is done never change: layers were chosen by them.
CREATE TABLE norm (
    id INTEGER PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result (id),
    block TEXT NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),   -- the first of `layers`
    layers INTEGER NOT NULL CHECK (layers >= 1),
    module TEXT NOT NULL,                        -- 'all': the four together
    norm REAL NOT NULL CHECK (norm >= 0),
    parameters INTEGER NOT NULL CHECK (parameters >= 1),
    pairs INTEGER NOT NULL CHECK (pairs >= 1),
    UNIQUE (result, block, layer, module)
) STRICT;
CREATE INDEX stage_probe ON stage (sweep, result) WHERE kind = 'probe' AND live = 1;

-- The rule of a train result's layers, and what it gave.
CREATE TABLE choice (
    result INTEGER PRIMARY KEY REFERENCES result (id),
    count INTEGER NOT NULL CHECK (count >= 1),   -- so many neighbours
    measure TEXT NOT NULL CHECK (measure IN ('norm', 'per_sqrt_parameters')),
    layers TEXT NOT NULL DEFAULT '',             -- '3-4'; '' until the probe is done
    share REAL NOT NULL DEFAULT 0                -- of the measure's sum over all layers
) STRICT;
