-- Schema 1.
--
-- A sweep has cells (points of its grid), a cell has stages.  What a stage
-- yields is a `result`, which is named by the stage's key and belongs to every
-- stage with that key, in any sweep: so a result is worked out once.  Jobs work
-- on train and generate results; a judge result is made of items.  Answers,
-- metrics, adapters and items hang on results, states and reasons on results
-- and on the stages that show them.
--
-- Counters (sweep.stages..., result.done, ...) are kept by the triggers below.
-- Times are Unix milliseconds; times that decide are kept in memory only,
-- except not_before_ms, which is clamped when it is read.

CREATE TABLE store_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sweep (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (name <> ''),
    state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'done', 'gaps', 'cancelled')),
    reason TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL,             -- rises with every grid that is submitted
    expanding INTEGER NOT NULL CHECK (expanding IN (0, 1)),
    -- what is being done to its stages, slice by slice, also after a restart
    chore TEXT NOT NULL DEFAULT '' CHECK (chore IN ('', 'cancel', 'revive', 'retry', 'retry_all')),
    toml TEXT NOT NULL,
    base_dir TEXT NOT NULL,
    overrides TEXT NOT NULL,              -- JSON array of "section.key=value"
    submit_sha256 TEXT NOT NULL,          -- of everything above, models and files
    data_sha256 TEXT NOT NULL,            -- of the list of data files
    priority INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    budget REAL NOT NULL,                 -- 0: none
    max_attempts INTEGER NOT NULL,
    max_failures INTEGER NOT NULL,
    wait_when_lost INTEGER NOT NULL CHECK (wait_when_lost IN (0, 1)),
    judge_label TEXT NOT NULL,
    cells INTEGER NOT NULL DEFAULT 0,
    stages INTEGER NOT NULL DEFAULT 0,
    stages_done INTEGER NOT NULL DEFAULT 0,
    stages_failed INTEGER NOT NULL DEFAULT 0,
    stages_cancelled INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE model (
    id INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    hub_id TEXT NOT NULL,
    template TEXT NOT NULL,
    digest TEXT NOT NULL,
    tokenizer_digest TEXT NOT NULL,
    layers INTEGER NOT NULL,
    family TEXT NOT NULL,
    open_cells INTEGER NOT NULL DEFAULT 0, -- cells whose generate stage is not final
    UNIQUE (sweep, name)
) STRICT;

CREATE TABLE sweep_file (
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    split TEXT NOT NULL CHECK (split IN ('train', 'eval')),
    position INTEGER NOT NULL,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL REFERENCES artifact (sha256),
    size INTEGER NOT NULL,
    PRIMARY KEY (sweep, split, position)
) STRICT, WITHOUT ROWID;

-- One of the sweep's [[judge]] tables.
CREATE TABLE judge (
    id INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    eager INTEGER NOT NULL CHECK (eager IN (0, 1)),
    samples INTEGER NOT NULL,
    max_reasks INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    budget REAL NOT NULL,                 -- 0: none
    spent REAL NOT NULL DEFAULT 0,
    reserved REAL NOT NULL DEFAULT 0,
    possibly_paid INTEGER NOT NULL DEFAULT 0,
    stop TEXT NOT NULL DEFAULT '',        -- why nothing may be sent now
    trouble TEXT NOT NULL DEFAULT '',     -- what its evaluator said last; '' once it scores
    live INTEGER NOT NULL CHECK (live IN (0, 1)),
    UNIQUE (sweep, name)
) STRICT;

CREATE TABLE setting (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    json TEXT NOT NULL
) STRICT;

CREATE TABLE cell (
    id INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    model INTEGER NOT NULL REFERENCES model (id),
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    strategy TEXT NOT NULL,
    layers TEXT NOT NULL,                 -- "0-10"; '' for base
    setting INTEGER NOT NULL REFERENCES setting (id),
    version INTEGER NOT NULL,             -- of the sweep's grid that it was last seen in
    live INTEGER NOT NULL CHECK (live IN (0, 1)), -- 0: no longer in the grid
    UNIQUE (sweep, name)
) STRICT;

CREATE TABLE result (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('train', 'generate', 'judge')),
    parent INTEGER REFERENCES result (id), -- what it is made from; NULL: only from the model
    owner INTEGER REFERENCES stage (id),   -- the stage on whose behalf it is worked on
    state TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'leased', 'running', 'done', 'failed',
                                         'cancelled')),
    reason TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,       -- steps, answers, scored items
    total INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,      -- items in that state
    leased INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    adapter_sha256 TEXT NOT NULL DEFAULT '',
    summary TEXT NOT NULL DEFAULT '',
    started_ms INTEGER NOT NULL DEFAULT 0,
    finished_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX result_parent ON result (parent);

CREATE TABLE stage (
    id INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    cell INTEGER NOT NULL REFERENCES cell (id),
    model INTEGER NOT NULL REFERENCES model (id),
    kind TEXT NOT NULL CHECK (kind IN ('train', 'generate', 'judge')),
    judge INTEGER REFERENCES judge (id),
    key TEXT NOT NULL,
    result INTEGER NOT NULL REFERENCES result (id),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'leased', 'running', 'done', 'failed',
                                         'cancelled', 'reused')),
    reason TEXT NOT NULL DEFAULT '',
    live INTEGER NOT NULL CHECK (live IN (0, 1)), -- 0: replaced, or no longer in the grid
    CHECK ((kind = 'judge') = (judge IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX stage_live ON stage (cell, kind, ifnull(judge, 0)) WHERE live = 1;
CREATE INDEX stage_result ON stage (result);
CREATE INDEX stage_sweep ON stage (sweep, state);

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep (id),
    kind TEXT NOT NULL CHECK (kind IN ('train', 'generate')),
    model_digest TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'leased', 'running', 'held', 'aside',
                                         'done', 'failed', 'cancelled')),
    reason TEXT NOT NULL DEFAULT '',
    priority INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,  -- leases granted: the number of the newest epoch
    crashes INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX job_ready ON job (priority DESC, id) WHERE state = 'ready';
CREATE INDEX job_wait ON job (not_before_ms) WHERE state = 'ready' AND not_before_ms > 0;
CREATE INDEX job_sweep ON job (sweep, state);

CREATE TABLE job_cell (
    job INTEGER NOT NULL REFERENCES job (id),
    result INTEGER NOT NULL REFERENCES result (id),
    cell INTEGER NOT NULL REFERENCES cell (id), -- its name on the wire
    outcome TEXT NOT NULL CHECK (outcome IN ('pending', 'done', 'failed')),
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, result)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_cell_result ON job_cell (result, job);

CREATE TABLE worker (
    id INTEGER PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('worker', 'judge')),
    name TEXT NOT NULL CHECK (name <> ''),
    machine TEXT NOT NULL,
    instance TEXT NOT NULL,
    host TEXT NOT NULL,
    backend TEXT NOT NULL,
    version TEXT NOT NULL,
    slots INTEGER NOT NULL,
    lost INTEGER NOT NULL CHECK (lost IN (0, 1)),
    seen_ms INTEGER NOT NULL,
    UNIQUE (role, name)
) STRICT;

CREATE TABLE attempt (
    job INTEGER NOT NULL REFERENCES job (id),
    generation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    worker INTEGER NOT NULL REFERENCES worker (id),
    instance TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('leased', 'running', 'lost', 'ended')),
    outcome TEXT CHECK (outcome IN ('done', 'stopped', 'failed', 'refused', 'lost', 'revoked')),
    reason TEXT NOT NULL DEFAULT '',
    exit_code INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL DEFAULT 0,  -- reports taken
    progress INTEGER NOT NULL DEFAULT 0 CHECK (progress IN (0, 1)), -- a checkpoint or answers came
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged IN (0, 1)),   -- its loss counts as a crash
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, generation, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_open ON attempt (worker, job, generation, number)
    WHERE state IN ('leased', 'running', 'lost');

-- A file below artifacts/ whose bytes were seen to have this hash and are on disk.
CREATE TABLE artifact (
    sha256 TEXT PRIMARY KEY CHECK (length(sha256) = 64),
    size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What an attempt made.  result NULL: of the attempt as a whole (its log).
CREATE TABLE product (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES job (id),
    number INTEGER NOT NULL,
    result INTEGER REFERENCES result (id),
    kind TEXT NOT NULL CHECK (kind IN ('adapter', 'checkpoint', 'log', 'reference')),
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    sha256 TEXT NOT NULL REFERENCES artifact (sha256),
    size INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX product_result ON product (result, kind, step, name) WHERE result IS NOT NULL;
CREATE UNIQUE INDEX product_attempt ON product (job, number, kind, name) WHERE result IS NULL;
CREATE INDEX product_sha256 ON product (sha256);

CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result (id),
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL,                           -- NULL: not a number
    UNIQUE (result, step, name)
) STRICT;

CREATE TABLE prompt (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL
) STRICT;

CREATE TABLE answer (
    id INTEGER PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result (id),
    cell INTEGER NOT NULL REFERENCES cell (id), -- whose job it was
    adapter_sha256 TEXT NOT NULL,         -- '' for base
    prompt INTEGER NOT NULL CHECK (prompt >= 0),
    sample INTEGER NOT NULL CHECK (sample >= 0),
    prompt_row INTEGER NOT NULL REFERENCES prompt (id),
    prompt_sha256 TEXT NOT NULL,
    text TEXT NOT NULL,
    raw TEXT NOT NULL,
    finish TEXT NOT NULL CHECK (finish IN ('stop', 'eos', 'length')),
    prompt_tokens INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (result, adapter_sha256, prompt, sample)
) STRICT;

-- How many of a model's open cells have answered a prompt.
CREATE TABLE block (
    model INTEGER NOT NULL REFERENCES model (id),
    prompt INTEGER NOT NULL,
    sample INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    PRIMARY KEY (model, prompt, sample)
) STRICT, WITHOUT ROWID;

CREATE TABLE item (
    id INTEGER PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result (id),
    answer INTEGER NOT NULL REFERENCES answer (id),
    sample INTEGER NOT NULL CHECK (sample >= 0),
    judge INTEGER NOT NULL REFERENCES judge (id),
    model INTEGER NOT NULL REFERENCES model (id), -- with prompt and answer_sample: its block
    prompt INTEGER NOT NULL,
    answer_sample INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('blocked', 'ready', 'leased', 'scored', 'failed',
                                         'cancelled')),
    epoch INTEGER NOT NULL DEFAULT 0,     -- leases granted
    worker INTEGER REFERENCES worker (id),
    reasks INTEGER NOT NULL DEFAULT 0,
    sends INTEGER NOT NULL DEFAULT 0,     -- sends that failed in a way that may heal
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    fault TEXT NOT NULL DEFAULT '',
    unread_call INTEGER NOT NULL DEFAULT 0, -- its reply is stored and nobody has read it
    call INTEGER NOT NULL DEFAULT 0,      -- whose reply gave the scores
    identity TEXT NOT NULL DEFAULT '',
    flagged INTEGER NOT NULL DEFAULT 0 CHECK (flagged IN (0, 1)),
    repairs TEXT NOT NULL DEFAULT '',     -- JSON array
    UNIQUE (result, answer, sample)
) STRICT;
CREATE INDEX item_ready ON item (judge, turn) WHERE state = 'ready';
CREATE INDEX item_blocked ON item (model, prompt, answer_sample) WHERE state = 'blocked';
CREATE INDEX item_leased ON item (worker) WHERE state = 'leased';
CREATE INDEX item_answer ON item (answer);

CREATE TABLE dimension (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE score (
    item INTEGER NOT NULL REFERENCES item (id),
    dimension INTEGER NOT NULL REFERENCES dimension (id),
    value INTEGER NOT NULL CHECK (value BETWEEN 1 AND 5),
    reason TEXT NOT NULL,
    PRIMARY KEY (item, dimension)
) STRICT, WITHOUT ROWID;

CREATE TABLE judge_call (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item INTEGER NOT NULL REFERENCES item (id),
    judge INTEGER NOT NULL REFERENCES judge (id),
    epoch INTEGER NOT NULL,
    worker INTEGER NOT NULL REFERENCES worker (id),
    state TEXT NOT NULL CHECK (state IN ('begun', 'replied', 'unknown', 'unsent')),
    reserved REAL NOT NULL,
    cost REAL NOT NULL DEFAULT 0,
    http_status INTEGER NOT NULL DEFAULT 0,
    host TEXT NOT NULL DEFAULT '',
    latency_ms INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    outcome TEXT NOT NULL DEFAULT '',
    begun_ms INTEGER NOT NULL,
    replied_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX judge_call_item ON judge_call (item);

CREATE TABLE judge_raw (
    call INTEGER PRIMARY KEY REFERENCES judge_call (id),
    raw BLOB NOT NULL
) STRICT;

CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    sweep INTEGER NOT NULL DEFAULT 0,     -- 0: of no sweep
    job INTEGER NOT NULL DEFAULT 0,
    subject TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL
) STRICT;
CREATE INDEX event_sweep ON event (sweep, id);
CREATE INDEX event_job ON event (job, id) WHERE job <> 0;

CREATE TABLE request (
    key TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    reply BLOB NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX request_age ON request (created_ms);

CREATE TRIGGER stage_insert AFTER INSERT ON stage WHEN NEW.live = 1 BEGIN
    UPDATE sweep SET stages = stages + 1,
        stages_done = stages_done + (NEW.state IN ('done', 'reused')),
        stages_failed = stages_failed + (NEW.state = 'failed'),
        stages_cancelled = stages_cancelled + (NEW.state = 'cancelled')
    WHERE id = NEW.sweep;
END;

CREATE TRIGGER stage_update AFTER UPDATE OF state, live ON stage
WHEN NEW.state <> OLD.state OR NEW.live <> OLD.live BEGIN
    UPDATE sweep SET stages = stages + NEW.live - OLD.live,
        stages_done = stages_done + (NEW.live AND NEW.state IN ('done', 'reused'))
                                  - (OLD.live AND OLD.state IN ('done', 'reused')),
        stages_failed = stages_failed + (NEW.live AND NEW.state = 'failed')
                                      - (OLD.live AND OLD.state = 'failed'),
        stages_cancelled = stages_cancelled + (NEW.live AND NEW.state = 'cancelled')
                                            - (OLD.live AND OLD.state = 'cancelled')
    WHERE id = NEW.sweep;
END;

CREATE TRIGGER answer_insert AFTER INSERT ON answer BEGIN
    UPDATE result SET done = done + 1 WHERE id = NEW.result;
END;

CREATE TRIGGER item_insert AFTER INSERT ON item BEGIN
    UPDATE result SET total = total + 1, ready = ready + (NEW.state = 'ready')
    WHERE id = NEW.result;
END;

CREATE TRIGGER item_update AFTER UPDATE OF state ON item WHEN NEW.state <> OLD.state BEGIN
    UPDATE result SET done = done + (NEW.state = 'scored') - (OLD.state = 'scored'),
        failed = failed + (NEW.state = 'failed') - (OLD.state = 'failed'),
        ready = ready + (NEW.state = 'ready') - (OLD.state = 'ready'),
        leased = leased + (NEW.state = 'leased') - (OLD.state = 'leased'),
        cancelled = cancelled + (NEW.state = 'cancelled') - (OLD.state = 'cancelled')
    WHERE id = NEW.result;
END;
