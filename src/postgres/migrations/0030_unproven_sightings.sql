-- The life of a daemon that sees a process which may well be the executor's, but which nobody ever saw while its beats were fresh: no
-- proof when it goes, but while it is there the executor's silence takes nothing.
ALTER TABLE executor ADD COLUMN sighting_daemon_id uuid;
