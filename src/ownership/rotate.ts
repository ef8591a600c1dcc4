import type { Database, Sql } from '../postgres/database.ts';
import { LockNotAvailable } from '../postgres/errors.ts';

/** Rotating smaller or younger records costs more than it frees. */
const ROTATE_PAGES = 64;
const ROTATE_AFTER_SECONDS = 300;
/** 256 MB, some three million attempts: a statement that reads so many ends in seconds, however many there are. */
const PIECE_PAGES = 32_768;

export type Rotation = 'idle' | 'switched' | 'emptied' | 'busy';

/**
 * Drops finished attempts without a DELETE per job: the triggers are switched to the empty table, and in a later pass the
 * other one is emptied after its attempts that still run have been copied. A crash leaves a state that the next pass
 * completes; a transaction that still writes to the old table makes the emptying wait for a later pass.
 * @param afterSeconds since the last switch that the next may come; Infinity: never.
 * @param pages of the current table from which on a switch is worth while.
 * @param piecePages of the other table that one statement reads.
 */
export async function rotateOwnership(
  database: Database,
  { afterSeconds = ROTATE_AFTER_SECONDS, pages = ROTATE_PAGES, piecePages = PIECE_PAGES } = {},
): Promise<Rotation> {
  try {
    return await database.transaction(async (tx) => {
      const [turn] = await tx.query<{ current: 'a' | 'b'; emptied: boolean; due: boolean }>(
        `SELECT current, emptied,
           $1::float8 < 'infinity' AND extract(epoch FROM now() - switched_at) > $1
             AND pg_relation_size('attempt_' || current) > $2 * current_setting('block_size')::int AS due
         FROM attempt_turn FOR UPDATE`,
        [afterSeconds, pages],
      );
      if (!turn) return 'idle';
      const other = turn.current === 'a' ? 'b' : 'a';
      if (!turn.emptied) {
        await tx.query(`SET LOCAL lock_timeout = '20ms'`);
        // Keeps writers out. Sweeps read on while the attempts are copied: only the TRUNCATE is for nobody's eyes, and it is short.
        await tx.query(`LOCK TABLE attempt_${other} IN EXCLUSIVE MODE`);
        await copyActive(tx, other, turn.current, piecePages);
        await tx.query(`TRUNCATE attempt_${other}`);
        await tx.query('UPDATE attempt_turn SET emptied = true');
        return 'emptied';
      }
      if (!turn.due) return 'idle';
      await tx.query('UPDATE attempt_turn SET current = $1, switched_at = now(), emptied = false', [other]);
      return 'switched';
    });
  } catch (error) {
    if (error instanceof LockNotAvailable) return 'busy';
    throw error;
  }
}

/** Piece by piece: what grew while nobody rotated (no daemon, an unknown pg-boss) is more than one statement may read. */
async function copyActive(tx: Sql, from: 'a' | 'b', to: 'a' | 'b', piecePages: number): Promise<void> {
  const [size] = await tx.query<{ pages: number }>(
    `SELECT (pg_relation_size('attempt_${from}') / current_setting('block_size')::int)::int AS pages`,
  );
  for (let page = 0; page < (size?.pages ?? 0); page += piecePages)
    await tx.query(
      `INSERT INTO attempt_${to} SELECT DISTINCT o.* FROM attempt_${from} o JOIN job j ON j.name = o.queue AND j.id = o.job_id
       WHERE o.ctid >= $1::tid AND o.ctid < $2::tid
         AND j.state = 'active' AND j.retry_count = o.retry_count AND j.started_on = o.started_on`,
      [`(${page},0)`, `(${page + piecePages},0)`],
    );
}
