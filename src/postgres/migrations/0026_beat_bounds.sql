-- A beat comes from whoever may call the function, and one that no interval can hold would end the adoption of a whole host:
-- what it says is a number of seconds, at most a day. No NaN either, which is greater than all numbers.
-- The constraint goes first: with it comes the lock that keeps further beats out until the new ones stand.
ALTER TABLE executor DROP CONSTRAINT executor_beat_seconds_check;
UPDATE executor SET
  beat_seconds = least(beat_seconds, 86400),
  late_after_seconds = CASE WHEN late_after_seconds IS NOT NULL THEN greatest(least(late_after_seconds, 86400), 0) END,
  missing_after_seconds = CASE WHEN missing_after_seconds IS NOT NULL THEN greatest(least(missing_after_seconds, 86400), 0) END
WHERE beat_seconds > 86400 OR late_after_seconds NOT BETWEEN 0 AND 86400 OR missing_after_seconds NOT BETWEEN 0 AND 86400;
ALTER TABLE executor
  ADD CONSTRAINT executor_beat_seconds_at_most_a_day CHECK (beat_seconds > 0 AND beat_seconds <= 86400),
  ADD CONSTRAINT executor_late_after_seconds_at_most_a_day CHECK (late_after_seconds BETWEEN 0 AND 86400),
  ADD CONSTRAINT executor_missing_after_seconds_at_most_a_day CHECK (missing_after_seconds BETWEEN 0 AND 86400);

-- Who an executor is stands for its life: a beat that does not say it again, as the goodbye, takes nothing of it away. The process
-- may be told later, but not another one: it may be in somebody's sight by then.
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
    beat_at = now(), application_name = coalesce($2, e.application_name), beat_seconds = excluded.beat_seconds,
    late_after_seconds = excluded.late_after_seconds, missing_after_seconds = excluded.missing_after_seconds,
    host = coalesce(e.host, $6), pid = coalesce(e.pid, $7),
    queues = excluded.queues, stack = coalesce($9, e.stack), env = coalesce($10, e.env), stopped_at = excluded.stopped_at,
    proof = NULL, dead_at = NULL, last_alive_at = NULL,
    witness_node = CASE WHEN e.proof IS NULL THEN e.witness_node END,
    witness_boot_id = CASE WHEN e.proof IS NULL THEN e.witness_boot_id END
  WHERE e.kind = 'own'
$$;
