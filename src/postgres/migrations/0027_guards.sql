-- What an engine was told is about one job: a step that begins afresh has been told nothing. And what makes no sense is refused.
UPDATE workflow_step SET told_outcome = NULL WHERE replays = 0;

CREATE OR REPLACE FUNCTION track_step(
  instance_id text, step text, queue text DEFAULT NULL, job_id uuid DEFAULT NULL,
  workflow text DEFAULT NULL, stack text DEFAULT NULL, env text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
  instance workflow_instance;
BEGIN
  IF coalesce(octet_length($1), 0) NOT BETWEEN 1 AND 500 THEN
    RAISE EXCEPTION 'track_step: instance_id: given % bytes; allowed: 1 to 500', coalesce(octet_length($1), 0) USING ERRCODE = 'invalid_parameter_value';
  ELSIF coalesce(octet_length($2), 0) NOT BETWEEN 1 AND 500 THEN
    RAISE EXCEPTION 'track_step: step: given % bytes; allowed: 1 to 500', coalesce(octet_length($2), 0) USING ERRCODE = 'invalid_parameter_value';
  ELSIF octet_length($3) > 500 THEN
    RAISE EXCEPTION 'track_step: queue: given % bytes; allowed: up to 500', octet_length($3) USING ERRCODE = 'invalid_parameter_value';
  ELSIF octet_length($5) > 500 THEN
    RAISE EXCEPTION 'track_step: workflow: given % bytes; allowed: up to 500', octet_length($5) USING ERRCODE = 'invalid_parameter_value';
  ELSIF $3 IS NULL AND $4 IS NOT NULL THEN
    RAISE EXCEPTION 'track_step: queue: given nothing, beside a job_id; allowed: both, or neither for a step without a job' USING ERRCODE = 'invalid_parameter_value';
  ELSIF $3 IS NOT NULL AND $4 IS NULL THEN
    RAISE EXCEPTION 'track_step: job_id: given nothing, beside a queue; allowed: both, or neither for a step without a job' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO workflow_instance AS i (id, workflow, stack, env) VALUES ($1, coalesce($5, ''), $6, $7)
  ON CONFLICT (id) DO UPDATE SET updated_at = now(), state = CASE WHEN i.state = 'blocked' THEN 'running' ELSE i.state END
  RETURNING i.* INTO instance;
  -- Its instance is looked after elsewhere, or another's of the same id.
  IF $6 IS DISTINCT FROM coalesce(instance.stack, '') AND $6 <> '' OR $7 IS DISTINCT FROM coalesce(instance.env, '') AND $7 <> '' THEN
    RAISE EXCEPTION 'track_step: instance %: given stack % and env %; allowed: those of its first step, stack % and env %, or none', $1,
      coalesce($6, 'none'), coalesce($7, 'none'), coalesce(instance.stack, 'none'), coalesce(instance.env, 'none') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- Nobody would look after the step.
  IF instance.state <> 'running' THEN
    RAISE EXCEPTION 'track_step: instance %: it is %; allowed: a running one, or instance_moved(instance_id, ''running'') first', $1, instance.state
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  INSERT INTO workflow_step AS s (instance_id, step, queue, job_id) VALUES ($1, $2, $3, $4)
  ON CONFLICT ON CONSTRAINT workflow_step_pkey DO UPDATE SET queue = excluded.queue, job_id = excluded.job_id, state = 'running',
    started_at = now(), updated_at = now(), missing_since = NULL, replays = 0, replayed_at = NULL, next_replay_at = NULL, exhausted_at = NULL,
    told_outcome = NULL;
END $$;

-- A checkpoint lets the events before it go: whoever writes one, they must be old enough, sealed so, and in the archive.
CREATE FUNCTION refuse_checkpoint() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  start audit_checkpoint;
BEGIN
  SELECT c.* INTO start FROM audit_checkpoint c ORDER BY c.position DESC LIMIT 1;
  NEW.archived_at := clock_timestamp();
  IF NEW.first_position = coalesce(start.position, 0) + 1 AND NEW.before_hash = coalesce(start.chain_hash, decode(repeat('00', 32), 'hex'))
    AND EXISTS (SELECT FROM audit_seal s WHERE s.position = NEW.position AND s.chain_hash = NEW.chain_hash AND s.position >= NEW.first_position)
    AND NOT EXISTS (SELECT FROM audit_seal s JOIN audit a ON a.seq = s.seq WHERE s.position <= NEW.position AND a.at > now() - interval '30 days')
    AND NEW.position - NEW.first_position + 1 = coalesce(
      (SELECT jsonb_array_length(u.record->'events') FROM archive u WHERE u.id = NEW.archive_id AND u.class = 'audit'),
      (SELECT f.rows FROM archive_file f WHERE f.name = NEW.archive_file AND f.class = 'audit'))
    AND NOT EXISTS (SELECT FROM audit_checkpoint c WHERE c.archive_id = NEW.archive_id OR c.archive_file = NEW.archive_file)
  THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the events up to % are not in the archive: a checkpoint refused', NEW.position USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER archived_only BEFORE INSERT ON audit_checkpoint FOR EACH ROW EXECUTE FUNCTION refuse_checkpoint();
ALTER TABLE audit_checkpoint ENABLE ALWAYS TRIGGER archived_only;
