-- What was pruned from a class that is archived first: the row as it was.
CREATE TABLE archive (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  class text NOT NULL,
  record jsonb NOT NULL,
  archived_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX archive_archived_at ON archive USING brin (archived_at);

-- Every run, while it lasts and after: a run without an end broke off.
CREATE TABLE retention_run (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node text NOT NULL,
  actor text NOT NULL,
  reason text,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  -- { class: { pruned, archived, left: bool, error? } }
  result jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX unit_action_ended_at ON unit_action USING brin (ended_at);
CREATE INDEX unit_crash_crashed_at ON unit_crash USING brin (crashed_at);
