-- Whoever beats after its death was recorded was not dead: as for pg-boss's instances, the proof is void, and so is the
-- sighting that led to it.
CREATE OR REPLACE FUNCTION heartbeat(
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
    queues = excluded.queues, stack = excluded.stack, env = excluded.env, stopped_at = excluded.stopped_at,
    proof = NULL, dead_at = NULL, last_alive_at = NULL,
    witness_node = CASE WHEN e.proof IS NULL THEN e.witness_node END,
    witness_boot_id = CASE WHEN e.proof IS NULL THEN e.witness_boot_id END
  WHERE e.kind = 'own'
$$;
