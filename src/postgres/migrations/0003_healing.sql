-- Every change of a unit: the intent is written before systemd is asked, the result after. A row without an outcome is
-- under way while its lease lasts; after that others may take over. Host, not node: two daemons of one host share its units.
CREATE TABLE unit_action (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  host text NOT NULL,
  unit text NOT NULL,
  node text NOT NULL,
  action text NOT NULL CHECK (action IN ('unit_heal', 'unit_restart', 'unit_stop')),
  actor text NOT NULL,
  automatic boolean NOT NULL,
  reason text,
  -- What was found before anything was done: the life that had ended, and how.
  condition text,
  invocation text,
  result text,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  lease_until timestamptz NOT NULL,
  -- What was asked of systemd, and how long each took.
  phases jsonb NOT NULL DEFAULT '[]',
  -- `unknown`: its healer died, or lost the database, before it could tell. `not_needed`: nothing was touched.
  outcome text CHECK (outcome IN ('done', 'failed', 'not_needed', 'unknown')),
  error text,
  ended_at timestamptz
);
CREATE UNIQUE INDEX unit_action_under_way ON unit_action (host, unit) WHERE outcome IS NULL;
CREATE INDEX unit_action_unit ON unit_action (host, unit, started_at);

-- The lives of units as they were seen, with systemd's counter of automatic restarts: what flapping is judged by.
CREATE TABLE unit_life (
  host text NOT NULL,
  unit text NOT NULL,
  invocation text NOT NULL,
  restarts int NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (host, unit, invocation)
);

-- Executors that died with their unit: which life of the unit, how it ended, its last words, and what was in flight.
CREATE TABLE unit_crash (
  executor_id text PRIMARY KEY,
  host text NOT NULL,
  node text NOT NULL,
  unit text NOT NULL,
  invocation text NOT NULL,
  result text NOT NULL,
  exit_code text,
  exit_status int NOT NULL,
  last_error text,
  -- [{ queue, jobId, retryCount }]: at most a hundred of them, and how many there were.
  attempts jsonb NOT NULL,
  attempt_count int NOT NULL,
  crashed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX unit_crash_unit ON unit_crash (host, unit, crashed_at);
