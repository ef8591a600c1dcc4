import type { Database } from '../../src/postgres/database.ts';

/** As if a daemon of another node beat for the next hour: a command goes by its beats. */
export async function anotherNodeBeats(database: Database): Promise<void> {
  await database.query(
    `INSERT INTO node (node, daemon_id, host, pid, version, beat_at) VALUES ('another', gen_random_uuid(), 'another', 1, '0', now() + interval '1 hour')`,
  );
}
