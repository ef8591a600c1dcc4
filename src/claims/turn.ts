import type { Sql } from '../postgres/database.ts';

/** So long after its last renewal a turn may be taken over: what silence is swept for waits so long for a holder that died at it. */
const LEASE_SECONDS = 10;

export type Turn = { mine: true } | { mine: false; againInMs: number };

/**
 * One node a turn. Turns lie on a grid of `intervalMs`, so that equal intervals on every node lose none: who comes
 * too early is told how long to wait. A turn that is further away than `intervalMs` was put there by a longer interval,
 * since changed or another node's, and is due now. A holder that dies loses the turn with its lease.
 */
export async function takeTurn(sql: Sql, name: string, intervalMs: number, daemonId: string): Promise<Turn> {
  const intervalSeconds = intervalMs / 1000;
  const won = await sql.query(
    `INSERT INTO turn AS t (name, holder, due_at, lease_until)
     VALUES ($1, $2, now() + make_interval(secs => $3), now() + make_interval(secs => $4))
     ON CONFLICT (name) DO UPDATE SET holder = $2, lease_until = now() + make_interval(secs => $4),
       due_at = CASE WHEN now() BETWEEN t.due_at AND t.due_at + make_interval(secs => $3) THEN t.due_at + make_interval(secs => $3)
                ELSE now() + make_interval(secs => $3) END
     WHERE NOT (t.due_at > now() AND t.due_at <= now() + make_interval(secs => $3)) AND (t.lease_until IS NULL OR t.lease_until <= now())
     RETURNING 1`,
    [name, daemonId, intervalSeconds, LEASE_SECONDS],
  );
  if (won.length > 0) return { mine: true };
  const [row] = await sql.query<{ waitMs: number }>(
    `SELECT 1000 * greatest(0, extract(epoch FROM due_at - now()))::float8 AS "waitMs" FROM turn WHERE name = $1`,
    [name],
  );
  // At least a moment, for the holder may still be at work past the next due time.
  return { mine: false, againInMs: Math.max(50, Math.min(intervalMs, row?.waitMs ?? intervalMs)) };
}

/** The work goes on: nobody else may have the turn yet. Where somebody has it already, it is theirs. */
export async function renewTurn(sql: Sql, name: string, daemonId: string): Promise<void> {
  await sql.query(
    'UPDATE turn SET lease_until = now() + make_interval(secs => $3) WHERE name = $1 AND holder = $2 AND lease_until IS NOT NULL',
    [name, daemonId, LEASE_SECONDS],
  );
}

export async function endTurn(sql: Sql, name: string, daemonId: string): Promise<void> {
  await sql.query('UPDATE turn SET lease_until = NULL WHERE name = $1 AND holder = $2', [name, daemonId]);
}

/** Whether some node takes turns of that name now: one is due or under way, or was within `withinSeconds`. */
export async function areTurnsTaken(sql: Sql, name: string, withinSeconds: number): Promise<boolean> {
  const alive = 'SELECT FROM turn WHERE name = $1 AND greatest(due_at, lease_until) > now() - make_interval(secs => $2)';
  return (await sql.query(alive, [name, withinSeconds])).length > 0;
}
