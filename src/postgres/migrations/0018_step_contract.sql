-- The contract of engines says what was wrong with what it was given, and fences a step's end by the job that did it.
-- Limits are in bytes: an event has to fit into one notification. Rows from before may be longer.
CREATE OR REPLACE FUNCTION track_step(
  instance_id text, step text, queue text DEFAULT NULL, job_id uuid DEFAULT NULL,
  workflow text DEFAULT NULL, stack text DEFAULT NULL, env text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
  instance_state text;
BEGIN
  IF coalesce(octet_length($1), 0) NOT BETWEEN 1 AND 500 THEN
    RAISE EXCEPTION 'track_step: instance_id: given % bytes; allowed: 1 to 500', coalesce(octet_length($1), 0) USING ERRCODE = 'invalid_parameter_value';
  ELSIF coalesce(octet_length($2), 0) NOT BETWEEN 1 AND 500 THEN
    RAISE EXCEPTION 'track_step: step: given % bytes; allowed: 1 to 500', coalesce(octet_length($2), 0) USING ERRCODE = 'invalid_parameter_value';
  ELSIF octet_length($3) > 500 THEN
    RAISE EXCEPTION 'track_step: queue: given % bytes; allowed: up to 500', octet_length($3) USING ERRCODE = 'invalid_parameter_value';
  ELSIF octet_length($5) > 500 THEN
    RAISE EXCEPTION 'track_step: workflow: given % bytes; allowed: up to 500', octet_length($5) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO workflow_instance AS i (id, workflow, stack, env) VALUES ($1, coalesce($5, ''), $6, $7)
  ON CONFLICT (id) DO UPDATE SET updated_at = now(), state = CASE WHEN i.state = 'blocked' THEN 'running' ELSE i.state END
  RETURNING i.state INTO instance_state;
  -- Nobody would look after the step.
  IF instance_state <> 'running' THEN
    RAISE EXCEPTION 'track_step: instance %: it is %; allowed: a running one, or instance_moved(instance_id, ''running'') first', $1, instance_state
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  INSERT INTO workflow_step AS s (instance_id, step, queue, job_id) VALUES ($1, $2, $3, $4)
  ON CONFLICT ON CONSTRAINT workflow_step_pkey DO UPDATE SET queue = excluded.queue, job_id = excluded.job_id, state = 'running',
    started_at = now(), updated_at = now(), missing_since = NULL, replays = 0, replayed_at = NULL, next_replay_at = NULL, exhausted_at = NULL;
END $$;

-- Returns false where there is nothing to be done: this end was noted before, or the step is with another job by now.
DROP FUNCTION step_moved(text, text, text);
CREATE FUNCTION step_moved(instance_id text, step text, state text DEFAULT 'completed', job_id uuid DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
  IF $3 IS NULL OR $3 NOT IN ('completed', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'step_moved: state: given %; allowed: completed, failed, cancelled', coalesce($3, 'nothing') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  UPDATE workflow_step s SET state = $3, updated_at = now(), missing_since = NULL, next_replay_at = NULL, exhausted_at = NULL
  WHERE s.instance_id = $1 AND s.step = $2 AND s.state = 'running' AND ($4 IS NULL OR s.job_id = $4);
  IF FOUND THEN
    RETURN true;
  END IF;
  IF NOT EXISTS (SELECT FROM workflow_step s WHERE s.instance_id = $1 AND s.step = $2) THEN
    RAISE EXCEPTION 'step_moved: step % of instance %: it is not tracked; allowed: one that track_step was called for', $2, $1
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN false;
END $$;

CREATE OR REPLACE FUNCTION instance_moved(instance_id text, state text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
  IF $2 IS NULL OR $2 NOT IN ('running', 'blocked', 'completed', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'instance_moved: state: given %; allowed: running, blocked, completed, failed, cancelled', coalesce($2, 'nothing')
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  UPDATE workflow_instance i SET state = $2, updated_at = now() WHERE i.id = $1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'instance_moved: instance %: it is not tracked; allowed: one that track_step was called for', coalesce($1, 'nothing')
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;

-- Supervision that was taken over waits for beats to come in after the mass-failure brake, too.
ALTER TABLE fleet ADD COLUMN brake_released_at timestamptz;
