-- Whoever ends a command (its daemon, the caller, or any daemon once it is overdue) writes its one audit record in the same
-- transaction: what that record says travels with the command.
ALTER TABLE node_command
  -- { action, target, detail } of the repair; null: the command speaks for itself.
  ADD COLUMN audited jsonb,
  -- Whose attempts must be back before it has ended, and by which policy; null: each job's own.
  ADD COLUMN executor text,
  ADD COLUMN policy text,
  -- Set with the intent, in one transaction: before it nothing has been done, and another daemon of the node may take the command over.
  ADD COLUMN begun_at timestamptz,
  DROP CONSTRAINT node_command_outcome_check,
  ADD CONSTRAINT node_command_outcome_check
    CHECK (outcome IN ('done', 'partial', 'failed', 'not_needed', 'refused', 'drifted', 'unknown', 'expired'));
CREATE INDEX node_command_policy ON node_command (begun_at) WHERE policy IS NOT NULL;
UPDATE node_command SET begun_at = requested_at WHERE daemon_id IS NOT NULL AND outcome IS NULL;

-- What the daemon did for a command is audited with the command.
ALTER TABLE unit_action ADD COLUMN command_id bigint;
CREATE INDEX unit_action_command ON unit_action (command_id) WHERE command_id IS NOT NULL;

-- Everything that an event is about: its target, and what identifies each effect, as the doors write it.
-- In plpgsql, which plans it once a session: as SQL it would be planned anew for each event.
CREATE FUNCTION audit_names(target text, detail jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
BEGIN
  IF NOT detail ?| ARRAY['effects', 'jobs', 'drifted'] THEN
    RETURN array_remove(ARRAY[target, detail->>'unit'], NULL);
  END IF;
  RETURN (SELECT array_agg(DISTINCT n.name) FROM (
    SELECT target AS name
    UNION ALL SELECT detail->>'unit'
    -- A person's repair, and a workflow's: QUEUE/JOB-ID, with its attempt behind a colon.
    UNION ALL SELECT regexp_replace(j #>> '{}', ':\d+$', '') FROM jsonb_path_query(detail, '$.effects[*].job') j
    UNION ALL SELECT regexp_replace(j #>> '{}', ':\d+$', '') FROM jsonb_path_query(detail, '$.jobs[*]') j
    UNION ALL SELECT x #>> '{}' FROM jsonb_path_query(detail, '$.effects[*].executor') x
    -- A sweep's: of the queue that is its target.
    UNION ALL SELECT target || '/' || split_part(a #>> '{}', ':', 1) FROM jsonb_path_query(detail, '$.effects[*].attempts[*]') a
    UNION ALL SELECT d #>> '{}' FROM jsonb_path_query(detail, '$.drifted[*].target') d
  ) AS n WHERE n.name IS NOT NULL);
END
$$;
CREATE INDEX audit_named ON audit USING gin (audit_names(target, detail));
