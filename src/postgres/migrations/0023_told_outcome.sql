-- The outcome that a step's engine was told last, which its replays count: a job that is retried under its own id may end otherwise.
ALTER TABLE workflow_step ADD COLUMN told_outcome text;
