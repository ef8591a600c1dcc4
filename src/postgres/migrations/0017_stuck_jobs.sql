-- The jobs behind each open incident of a stuck flow: retention may take them, and pg-boss deletes the dependencies of a
-- parent that is deleted, so that nothing else says any more who waited for whom.
CREATE TABLE stuck_job (
  fingerprint text NOT NULL,
  queue text NOT NULL,
  job_id uuid NOT NULL,
  -- `QUEUE/JOB-ID` of one that it waits for itself; empty: unknown, or it waits for another stuck job.
  parent text NOT NULL,
  -- Since when it is known to have been deleted without having run.
  lost_at timestamptz,
  PRIMARY KEY (fingerprint, queue, job_id, parent)
);
CREATE INDEX stuck_job_of_job ON stuck_job (queue, job_id);
CREATE INDEX stuck_job_of_parent ON stuck_job (parent) WHERE parent <> '';

INSERT INTO stuck_job (fingerprint, queue, job_id, parent)
SELECT DISTINCT i.fingerprint, left(child, -37), right(child, 36)::uuid, coalesce(i.evidence->>'parent', '')
FROM incident i CROSS JOIN LATERAL jsonb_array_elements_text(i.evidence->'children') AS child
WHERE i.class = 'workflow_stuck' AND i.resolved_at IS NULL AND i.fingerprint LIKE 'workflow_stuck:flow:%'
  AND jsonb_typeof(i.evidence->'children') = 'array';

-- How far the look over the blocked jobs has come: each turn goes on where the one before ended.
CREATE TABLE flow_walk (
  -- `act` or `dry run`: what only looks keeps nobody from looking.
  name text PRIMARY KEY,
  queue text NOT NULL,
  state text NOT NULL,
  start_after text NOT NULL,
  job_id uuid NOT NULL
);
