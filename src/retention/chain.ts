import { findCheckpoint } from '../audit/checkpoint.ts';
import { GENESIS } from '../audit/hash.ts';
import { listSealed } from '../audit/queries.ts';
import { type ArchivedEvent, checkUnit } from '../audit/unit.ts';
import type { Sql } from '../postgres/database.ts';
import type { ArchiveTarget, FileArchive } from './archive.ts';
import type { Pruned } from './rows.ts';

/** What goes to the archive as one unit: the events of the chain's beginning, as many as these allow, but one at least. */
const UNIT_EVENTS = 2_000;
const UNIT_BYTES = 8 * 1024 * 1024;

/**
 * Moves the beginning of the audit's chain into the archive, as one unit, and leaves a checkpoint that the rest is chained to.
 * What does not fit its seals stays, for it is evidence. Events since a day before the oldest open incident stay too.
 */
export async function pruneChain(tx: Sql, seconds: number, archive: ArchiveTarget): Promise<Pruned> {
  const start = await findCheckpoint(tx);
  const cutoff = await readCutoff(tx, seconds);
  const from = start?.position ?? 0;
  const sealed = await listSealed(tx, from, await countWithin(tx, from));
  const end = sealed.findIndex(({ row }) => row !== null && row.at >= cutoff);
  const due = end === -1 ? sealed : sealed.slice(0, end);
  const last = due.at(-1);
  if (!last) return { pruned: 0, archived: 0 };
  const beforeHash = start?.chainHash ?? GENESIS;
  const events = due.map(({ position, rowHash, row, seq }): ArchivedEvent => {
    if (!row) throw new Error(`event ${seq} of the audit is gone: nothing is archived before \`reclaimd audit verify\` is at peace`);
    return { position, rowHash: rowHash.toString('hex'), ...row };
  });
  const [problem] = checkUnit(events, {
    beforeHash,
    chainHash: last.chainHash,
    position: last.position,
    firstPosition: from + 1,
  });
  if (problem)
    throw new Error(`event ${problem.seq} of the audit: ${problem.what}: nothing is archived before \`reclaimd audit verify\` is at peace`);
  const file = archive.kind === 'files' ? await writeUnit(tx, events, archive) : null;
  const [removed] = await tx.query<{ count: number }>('SELECT prune_audit($1, $2, $3) AS count', [last.position, last.chainHash, file]);
  if (removed?.count !== events.length)
    throw new Error(`${removed?.count} of ${events.length} archived events were removed: the batch was rolled back`);
  return { pruned: events.length, archived: events.length };
}

async function countWithin(sql: Sql, after: number): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    `SELECT greatest(1, count(*) FILTER (WHERE bytes <= $2))::int AS count FROM (
       SELECT sum(coalesce(octet_length(a.detail::text), 0)) OVER (ORDER BY s.position) AS bytes FROM (
         SELECT position, seq FROM audit_seal WHERE position > $1 ORDER BY position LIMIT ${UNIT_EVENTS}
       ) AS s LEFT JOIN audit a ON a.seq = s.seq
     ) AS running`,
    [after, UNIT_BYTES],
  );
  return row?.count ?? 1;
}

/** Events before it may go: in the form of `at` in the chain, which sorts as text. */
async function readCutoff(sql: Sql, seconds: number): Promise<string> {
  const [row] = await sql.query<{ cutoff: string }>(
    `SELECT to_char(least(now() - make_interval(secs => $1), (SELECT min(opened_at) - interval '1 day' FROM incident WHERE resolved_at IS NULL AND class <> 'retention_behind'))
       AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') AS cutoff`,
    [seconds],
  );
  return row?.cutoff ?? '';
}

async function writeUnit(tx: Sql, events: readonly ArchivedEvent[], archive: FileArchive): Promise<string | undefined> {
  async function* records() {
    for (const event of events) yield { rows: 1, lines: JSON.stringify(event) };
  }
  return (await archive.write(tx, 'audit', records()))?.file;
}
