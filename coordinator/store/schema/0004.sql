-- [schedule] time_alone_steps: so many steps of each cell that trains beside others
-- are measured by themselves.
ALTER TABLE sweep ADD COLUMN time_alone_steps INTEGER NOT NULL DEFAULT 0
    CHECK (time_alone_steps >= 0);
