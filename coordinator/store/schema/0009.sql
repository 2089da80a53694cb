-- Schema 9: a worker's name belongs to the key that said it first.

ALTER TABLE worker ADD COLUMN key_name TEXT NOT NULL DEFAULT ''; -- in the allow-list; '': to none
