import { appendAudit } from '../audit/append.ts';
import { readFleetId } from '../fleet/queries.ts';
import type { Database, Sql } from '../postgres/database.ts';

/** One run of retention: a row of the ledger, held by a lease while it lasts. */
export interface Run {
  id: string;
  fleet: string;
  node: string;
  /** When it began, by the database's clock: `20260131T031700Z`. */
  stamp: string;
}

export interface RunUnderWay {
  node: string;
  actor: string;
  startedAt: string;
}

/** The run's lease has run out, and another may be at work. */
export class RunLost extends Error {
  override readonly name = 'RunLost';
  constructor() {
    super('this run stood still for longer than its lease: another may have begun');
  }
}

const LEASE = `interval '2 minutes'`;
export const STAMP = `to_char(started_at AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')`;

/** How much sooner another node may have come for the same scheduled time: its own while, and its clock. */
const SAME_TIME = `interval '10 minutes'`;

/**
 * Begins a run, unless one is under way anywhere in the fleet.
 * @param order `dueForSeconds`: for a schedule that came due so long ago; `done` where that has been done already, or this node has tried.
 */
export function beginRun(
  database: Database,
  { node, actor, reason, dueForSeconds }: { node: string; actor: string; reason: string | null; dueForSeconds?: number | undefined },
): Promise<{ run: Run } | { underWay: RunUnderWay } | { done: RunUnderWay }> {
  return database.transaction(async (tx) => {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('reclaimd.retention.' || current_schema(), 0))`);
    const [underWay] = await tx.query<RunUnderWay>(
      `SELECT node, actor, started_at::text AS "startedAt" FROM retention_run WHERE ended_at IS NULL AND lease_until > now() LIMIT 1`,
    );
    if (underWay) return { underWay };
    await closeBroken(tx);
    const done = dueForSeconds === undefined ? undefined : await findDone(tx, node, dueForSeconds);
    if (done) return { done };
    const [run] = await tx.query<Omit<Run, 'fleet'>>(
      `INSERT INTO retention_run (node, actor, reason, lease_until) VALUES ($1, $2, $3, now() + ${LEASE}) RETURNING id::text, node, ${STAMP} AS stamp`,
      [node, actor, reason],
    );
    if (!run) throw new Error('the run was not recorded');
    return { run: { ...run, fleet: await readFleetId(tx) } };
  });
}

/**
 * One that broke off, whose end was written after its lease, has not done it. Nor has one that failed somewhere, for all nodes but its own: what
 * keeps one of them from its work, a directory that it cannot write to, need not keep another.
 */
async function findDone(tx: Sql, node: string, dueForSeconds: number): Promise<RunUnderWay | undefined> {
  const [done] = await tx.query<RunUnderWay>(
    `SELECT node, actor, started_at::text AS "startedAt" FROM retention_run
     WHERE actor LIKE 'reclaimd@%' AND ended_at <= lease_until AND started_at > now() - make_interval(secs => $1) - ${SAME_TIME}
       AND (node = $2 OR NOT jsonb_path_exists(result, '$.*.error')) ORDER BY id DESC LIMIT 1`,
    [dueForSeconds, node],
  );
  return done;
}

/** What a run did that broke off is in its row: it is audited by the next one. */
async function closeBroken(tx: Sql): Promise<void> {
  const broken = await tx.query<{ id: string; node: string; actor: string; reason: string | null; result: object }>(
    'UPDATE retention_run SET ended_at = clock_timestamp() WHERE ended_at IS NULL RETURNING id::text, node, actor, reason, result',
  );
  for (const { id, node, actor, reason, result } of broken)
    await appendAudit(tx, {
      actor,
      action: 'retention_prune',
      target: 'retention',
      outcome: 'unknown',
      reason,
      node,
      detail: { run: id, classes: result, brokeOff: true },
    });
}

/** What the run has done so far, in the transaction that does it. */
export async function saveProgress(tx: Sql, { id }: Run, result: object): Promise<void> {
  await tx.query('UPDATE retention_run SET result = $2 WHERE id = $1', [id, JSON.stringify(result)]);
}

/** Renews the lease and holds the run's row until the transaction ends: nobody tidies up its files meanwhile. */
export async function holdRun(tx: Sql, { id }: Run): Promise<void> {
  const held = await tx.execute(
    `UPDATE retention_run SET lease_until = now() + ${LEASE} WHERE id = $1 AND ended_at IS NULL AND lease_until > now()`,
    [id],
  );
  if (held === 0) throw new RunLost();
}

export async function endRun(tx: Sql, { id }: Run, result: object): Promise<void> {
  await tx.query('UPDATE retention_run SET ended_at = clock_timestamp(), result = $2 WHERE id = $1', [id, JSON.stringify(result)]);
}
