import type { Database } from '../../src/postgres/database.ts';

/**
 * As if the workers had been silent for so long on every channel: beats, and sessions, whose times are Postgres's alone.
 * Those that live connect and beat again; those that are stopped or dead do not. They began before that silence, unless
 * `keepsStart`: their processes are as old as they are, and whoever compares the two must find them so.
 */
export async function fallSilent(
  database: Database,
  seconds: number,
  workers: readonly { instance: string }[],
  { keepsStart = false } = {},
): Promise<void> {
  const ids = workers.map(({ instance }) => instance);
  await database.query(
    `SELECT pg_terminate_backend(s.pid, 5000) FROM pg_stat_activity s JOIN instance i ON i.application_name = s.application_name
     WHERE s.datname = current_database() AND i.id::text = ANY($1)`,
    [ids],
  );
  const values = [ids, seconds, keepsStart];
  const then = 'now() - make_interval(secs => $2)';
  await database.query(
    `UPDATE instance SET heartbeat_on = ${then}, started_on = CASE WHEN $3 THEN started_on ELSE least(started_on, ${then} - interval '1 minute') END WHERE id::text = ANY($1)`,
    values,
  );
  await database.query(
    `UPDATE executor SET beat_at = ${then}, session_at = NULL, started_at = CASE WHEN $3 THEN started_at ELSE least(started_at, ${then} - interval '1 minute') END WHERE id = ANY($1)`,
    values,
  );
}
