-- Everything here is created in the schema that the migrator puts first on the search_path.
-- All times are the database's; no column is ever filled from a process's clock.

-- One reclaimd schema serves one pg-boss schema; the first daemon or command records which.
CREATE TABLE fleet (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  pgboss_schema text NOT NULL,
  -- When evidence from silence last became worthless (database, daemon or host came back).
  comeback_at timestamptz,
  comeback_reason text,
  -- Set while the mass-failure brake holds, by the sweep that saw it.
  braked_since timestamptz
);

CREATE TABLE node (
  node text PRIMARY KEY,
  daemon_id uuid NOT NULL,
  host text NOT NULL,
  pid int NOT NULL,
  boot_id text,
  version text NOT NULL,
  stack text,
  env text,
  started_at timestamptz NOT NULL DEFAULT now(),
  beat_at timestamptz NOT NULL DEFAULT now(),
  stopped_at timestamptz
);

CREATE TABLE executor (
  id text PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('pgboss', 'own')),
  name text,
  host text,
  pid int,
  application_name text,
  queues text[] NOT NULL DEFAULT '{}',
  stack text,
  env text,
  beat_seconds double precision NOT NULL CHECK (beat_seconds > 0),
  late_after_seconds double precision,
  missing_after_seconds double precision,
  started_at timestamptz NOT NULL DEFAULT now(),
  beat_at timestamptz NOT NULL DEFAULT now(),
  -- Last activity of a database session that carries the executor's application_name.
  session_at timestamptz,
  stopped_at timestamptz,
  -- The node that holds the local process in sight, and the identity of that process.
  witness_node text,
  witness_boot_id text,
  witness_pid_namespace text,
  witness_start_ticks bigint,
  -- Proof of death, never taken back.
  proof text CHECK (proof IN ('process_gone', 'host_rebooted')),
  dead_at timestamptz,
  last_alive_at timestamptz,
  verdict text NOT NULL DEFAULT 'unknown'
    CHECK (verdict IN ('alive', 'late', 'missing', 'dead', 'hung', 'stopped', 'unknown')),
  verdict_reason text NOT NULL DEFAULT 'not judged yet',
  verdict_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX executor_application_name ON executor (application_name);
CREATE INDEX executor_host ON executor (host) WHERE stopped_at IS NULL AND proof IS NULL;

-- Ownership: appended by the trigger when a job becomes active; two tables that take turns, so that finished
-- attempts go by TRUNCATE. No keys: the trigger must never meet a conflict.
CREATE TABLE attempt_a (
  queue text NOT NULL,
  job_id uuid NOT NULL,
  retry_count int NOT NULL,
  application_name text NOT NULL,
  started_on timestamptz NOT NULL
);
CREATE INDEX attempt_a_application_name ON attempt_a (application_name);
CREATE TABLE attempt_b (LIKE attempt_a);
CREATE INDEX attempt_b_application_name ON attempt_b (application_name);
CREATE VIEW attempt AS SELECT * FROM attempt_a UNION ALL SELECT * FROM attempt_b;

CREATE TABLE attempt_turn (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  current text NOT NULL DEFAULT 'a' CHECK (current IN ('a', 'b')),
  switched_at timestamptz NOT NULL DEFAULT now(),
  -- False from the switch until the other table has been emptied.
  emptied boolean NOT NULL DEFAULT true
);
INSERT INTO attempt_turn DEFAULT VALUES;

-- Every recovery of a job, whatever its outcome; the count per job is the poison limit's.
CREATE TABLE recovery (
  id bigint GENERATED ALWAYS AS IDENTITY,
  queue text NOT NULL,
  job_id uuid NOT NULL,
  retry_count int NOT NULL,
  executor_id text,
  verdict text NOT NULL,
  proof text,
  policy text NOT NULL CHECK (policy IN ('restart', 'fail', 'discard', 'hold')),
  policy_source text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('restarted', 'failed', 'discarded', 'held')),
  poison boolean NOT NULL DEFAULT false,
  reason text NOT NULL,
  node text NOT NULL,
  last_alive_at timestamptz,
  recovered_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (queue, job_id, id)
);
-- A held attempt stays active: held once, however many sweeps meet it.
CREATE UNIQUE INDEX recovery_held_attempt ON recovery (queue, job_id, retry_count) WHERE outcome = 'held';
-- Rows are written in the order of time, so that a few pages of summaries find the old ones.
CREATE INDEX recovery_recovered_at ON recovery USING brin (recovered_at);

CREATE TABLE policy (
  queue text PRIMARY KEY,
  policy text NOT NULL CHECK (policy IN ('restart', 'fail', 'discard', 'hold')),
  max_recoveries int CHECK (max_recoveries >= 0),
  poison text CHECK (poison IN ('discard', 'hold')),
  stale_after_seconds double precision CHECK (stale_after_seconds > 0),
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL
);

-- Cluster-wide turns: one row a kind of turn.
CREATE TABLE turn (
  name text PRIMARY KEY,
  holder uuid,
  due_at timestamptz NOT NULL DEFAULT now(),
  lease_until timestamptz
);

CREATE TABLE incident (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  class text NOT NULL,
  fingerprint text NOT NULL,
  summary text NOT NULL,
  evidence jsonb NOT NULL DEFAULT '{}',
  occurrences int NOT NULL DEFAULT 1,
  node text NOT NULL,
  first_seen_at timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz NOT NULL DEFAULT now(),
  resolved_at timestamptz
);
CREATE UNIQUE INDEX incident_open_fingerprint ON incident (fingerprint) WHERE resolved_at IS NULL;

-- The heartbeat contract for executors that are not pg-boss instances, in any language. Calling it again is a
-- beat; thresholds travel with it; a stop ends the life. Ids are the caller's: a new life takes a new id.
CREATE FUNCTION heartbeat(
  executor_id text,
  application_name text DEFAULT NULL,
  beat_seconds double precision DEFAULT 15,
  late_after_seconds double precision DEFAULT NULL,
  missing_after_seconds double precision DEFAULT NULL,
  host text DEFAULT NULL,
  pid int DEFAULT NULL,
  queues text[] DEFAULT '{}',
  stack text DEFAULT NULL,
  env text DEFAULT NULL,
  stopped boolean DEFAULT false
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  INSERT INTO executor AS e (id, kind, application_name, beat_seconds, late_after_seconds, missing_after_seconds,
    host, pid, queues, stack, env, stopped_at)
  VALUES ($1, 'own', coalesce($2, current_setting('application_name')), $3, $4, $5, $6, $7, $8, $9, $10,
    CASE WHEN $11 THEN now() END)
  ON CONFLICT (id) DO UPDATE SET
    beat_at = now(), application_name = excluded.application_name, beat_seconds = excluded.beat_seconds,
    late_after_seconds = excluded.late_after_seconds, missing_after_seconds = excluded.missing_after_seconds,
    queues = excluded.queues, stack = excluded.stack, env = excluded.env, stopped_at = excluded.stopped_at
  WHERE e.kind = 'own' AND e.proof IS NULL
$$;
