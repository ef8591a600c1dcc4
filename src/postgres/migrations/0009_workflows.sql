-- What event-driven engines mirror of themselves, in any language: the contract are the three functions below.
CREATE TABLE workflow_instance (
  id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 500),
  workflow text NOT NULL,
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'blocked', 'completed', 'failed', 'cancelled')),
  stack text,
  env text,
  started_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE workflow_step (
  instance_id text NOT NULL REFERENCES workflow_instance ON DELETE CASCADE,
  step text NOT NULL CHECK (length(step) BETWEEN 1 AND 500),
  -- The job that does the step; null while it has none.
  queue text,
  job_id uuid,
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'completed', 'failed', 'cancelled')),
  started_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- When its job was first seen to be gone.
  missing_since timestamptz,
  replays int NOT NULL DEFAULT 0,
  replayed_at timestamptz,
  next_replay_at timestamptz,
  -- Its event was emitted as often as the limit allows, and the engine did not move it on.
  exhausted_at timestamptz,
  PRIMARY KEY (instance_id, step)
);
CREATE INDEX workflow_step_running ON workflow_step (instance_id, step) WHERE state = 'running';
CREATE INDEX workflow_step_exhausted ON workflow_step (exhausted_at) WHERE exhausted_at IS NOT NULL AND state = 'running';

-- What was done to flows without a person: bounds how often a parent is retried.
CREATE TABLE workflow_action (
  queue text NOT NULL,
  job_id uuid NOT NULL,
  action text NOT NULL,
  acted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workflow_action_of_job ON workflow_action (queue, job_id);

-- A step has been given to a job: called in the transaction that sends it. A new job begins the step's replays afresh.
CREATE FUNCTION track_step(
  instance_id text, step text, queue text DEFAULT NULL, job_id uuid DEFAULT NULL,
  workflow text DEFAULT NULL, stack text DEFAULT NULL, env text DEFAULT NULL
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  INSERT INTO workflow_instance AS i (id, workflow, stack, env) VALUES ($1, coalesce($5, ''), $6, $7)
  ON CONFLICT (id) DO UPDATE SET updated_at = now(), state = CASE WHEN i.state = 'blocked' THEN 'running' ELSE i.state END;
  INSERT INTO workflow_step AS s (instance_id, step, queue, job_id) VALUES ($1, $2, $3, $4)
  ON CONFLICT ON CONSTRAINT workflow_step_pkey DO UPDATE SET queue = excluded.queue, job_id = excluded.job_id, state = 'running',
    started_at = now(), updated_at = now(), missing_since = NULL, replays = 0, replayed_at = NULL, next_replay_at = NULL, exhausted_at = NULL;
$$;

-- The engine has taken note of a step's end: called in the transaction that acts upon it.
-- Returns whether the step was still running: false tells an engine that it has handled this event before.
CREATE FUNCTION step_moved(instance_id text, step text, state text DEFAULT 'completed')
RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  WITH moved AS (
    UPDATE workflow_step s SET state = $3, updated_at = now(), missing_since = NULL, next_replay_at = NULL, exhausted_at = NULL
    WHERE s.instance_id = $1 AND s.step = $2 AND s.state = 'running' RETURNING 1
  ) SELECT EXISTS (SELECT FROM moved)
$$;

-- The instance as a whole has another state.
CREATE FUNCTION instance_moved(instance_id text, state text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  UPDATE workflow_instance i SET state = $2, updated_at = now() WHERE i.id = $1
$$;
