import type { Sql } from '../postgres/database.ts';
import type { AuditText } from './hash.ts';

const TEXT = `a.seq::text, to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') AS at, a.actor, a.action, a.target, a.outcome, a.reason, a.node,
  a.detail::text`;

export interface ChainHead {
  position: number;
  chainHash: Buffer;
  /** No row up to this number can turn up any more that is not sealed. */
  settledSeq: string;
}

export interface LockedHead extends ChainHead {
  /** What is settled once everything that is visible now is sealed. */
  settledNextSeq: string;
  /** Of this transaction, given to it just now: every transaction that had an id before has a smaller one. */
  transactionId: string;
}

/** The last number that is visible; asked before this transaction has an id. */
export async function readLastSeq(tx: Sql): Promise<string> {
  const [row] = await tx.query<{ seq: string }>('SELECT coalesce(max(seq), 0)::text AS seq FROM audit');
  return row?.seq ?? '0';
}

/** Holds the end of the chain until the transaction ends; undefined while another does. */
export async function lockHead(tx: Sql): Promise<LockedHead | undefined> {
  // Once every transaction that had an id at the last look has ended, all of its rows are visible, or will never be. Not by
  // pg_snapshot_xmax: that is the end of what has completed, and transactions that are under way may lie beyond it.
  const [head] = await tx.query<LockedHead>(
    `SELECT position::float8 AS position, chain_hash AS "chainHash",
       settled_seq::text AS "settledSeq",
       (CASE WHEN pg_snapshot_xmin(pg_current_snapshot()) > seen_xid THEN greatest(settled_seq, seen_seq) ELSE settled_seq END)::text
         AS "settledNextSeq",
       pg_current_xact_id()::text AS "transactionId"
     FROM audit_head FOR UPDATE SKIP LOCKED`,
  );
  return head;
}

/** In the order of their numbers; what commits late is met late. */
export function listUnsealed(tx: Sql, settledSeq: string, limit: number): Promise<AuditText[]> {
  return tx.query<AuditText>(
    `SELECT ${TEXT} FROM audit a WHERE a.seq > $1 AND NOT EXISTS (SELECT FROM audit_seal s WHERE s.seq = a.seq) ORDER BY a.seq LIMIT $2`,
    [settledSeq, limit],
  );
}

export interface Seal {
  position: number;
  seq: string;
  rowHash: Buffer;
  chainHash: Buffer;
}

export async function saveSeals(tx: Sql, seals: readonly Seal[]): Promise<void> {
  await tx.query(
    `INSERT INTO audit_seal (position, seq, row_hash, chain_hash)
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])`,
    [seals.map((s) => s.position), seals.map((s) => s.seq), seals.map((s) => s.rowHash), seals.map((s) => s.chainHash)],
  );
}

/** What was seen in this look, when nothing was left unsealed: it is settled once every transaction up to `transactionId` has ended. */
export interface Seen {
  seq: string;
  transactionId: string;
}

export async function saveHead(tx: Sql, { position, chainHash, settledSeq }: ChainHead, seen: Seen | undefined): Promise<void> {
  await tx.query(
    `UPDATE audit_head SET position = $1, chain_hash = $2, settled_seq = $3,
       seen_seq = coalesce(greatest(seen_seq, $4::bigint), seen_seq), seen_xid = coalesce($5::text::xid8, seen_xid)`,
    [position, chainHash, settledSeq, seen?.seq ?? null, seen?.transactionId ?? null],
  );
}

/** Undefined where somebody took it away. */
export async function readHead(sql: Sql): Promise<ChainHead | undefined> {
  const [head] = await sql.query<ChainHead>(
    `SELECT position::float8 AS position, chain_hash AS "chainHash", settled_seq::text AS "settledSeq" FROM audit_head`,
  );
  return head;
}

/** For how long the oldest event has been waiting to be chained, in seconds; null where none waits. */
export async function readSealBacklog(sql: Sql): Promise<number | null> {
  const [row] = await sql.query<{ seconds: number | null }>(
    `SELECT extract(epoch FROM now() - min(a.at))::float8 AS seconds FROM audit a
     WHERE a.seq > coalesce((SELECT min(settled_seq) FROM audit_head), 0) AND NOT EXISTS (SELECT FROM audit_seal s WHERE s.seq = a.seq)`,
  );
  return row?.seconds ?? null;
}

export interface SealedRow extends Seal {
  /** Null where the row that was sealed is not there any more. */
  row: AuditText | null;
}

/** The seals after a position, in their order, each with its row as it is now. */
export async function listSealed(sql: Sql, after: number, limit: number): Promise<SealedRow[]> {
  const rows = await sql.query<Seal & AuditText & { found: boolean; sealedSeq: string }>(
    `SELECT s.position::float8 AS position, s.seq::text AS "sealedSeq", s.row_hash AS "rowHash", s.chain_hash AS "chainHash",
       a.seq IS NOT NULL AS found, ${TEXT}
     FROM audit_seal s LEFT JOIN audit a ON a.seq = s.seq WHERE s.position > $1 ORDER BY s.position LIMIT $2`,
    [after, limit],
  );
  return rows.map(({ position, sealedSeq, rowHash, chainHash, found, ...row }) => ({
    position,
    seq: sealedSeq,
    rowHash,
    chainHash,
    row: found ? row : null,
  }));
}

/** Rows that are in no chain: `forged` where they turned up among those that were settled. */
export function listOutside(sql: Sql, limit: number): Promise<{ seq: string; forged: boolean }[]> {
  return sql.query(
    `SELECT a.seq::text, a.seq <= coalesce((SELECT settled_seq FROM audit_head), 0) AS forged FROM audit a
     WHERE NOT EXISTS (SELECT FROM audit_seal s WHERE s.seq = a.seq) ORDER BY a.seq LIMIT $1`,
    [limit],
  );
}

export interface AuditFilter {
  actor?: string | undefined;
  action?: string | undefined;
  /** What an event is about: its target, or what identifies one of its effects. */
  target?: string | undefined;
  outcome?: string | undefined;
  sinceSeconds?: number | undefined;
  limit: number;
}

export interface AuditRow {
  seq: string;
  at: string;
  actor: string;
  action: string;
  target: string;
  outcome: string;
  reason: string | null;
  node: string;
  detail: Record<string, unknown>;
}

const COLUMNS = 'seq::text, at::text, actor, action, target, outcome, reason, node, detail';
const MATCHES = `($1::text IS NULL OR actor = $1) AND ($2::text IS NULL OR action = $2)
  AND ($3::text IS NULL OR audit_names(target, detail) @> ARRAY[$3]) AND ($4::text IS NULL OR outcome = $4)`;
const matchValues = ({ actor, action, target, outcome }: AuditFilter) => [actor ?? null, action ?? null, target ?? null, outcome ?? null];

/** The latest that fit, oldest first. */
export function listAudit(sql: Sql, filter: AuditFilter): Promise<AuditRow[]> {
  const { sinceSeconds = null, limit } = filter;
  return sql.query<AuditRow>(
    `SELECT * FROM (
       SELECT ${COLUMNS} FROM audit WHERE ${MATCHES} AND ($5::float8 IS NULL OR at > now() - make_interval(secs => $5))
       ORDER BY audit.seq DESC LIMIT $6
     ) AS latest ORDER BY latest.seq::bigint`,
    [...matchValues(filter), sinceSeconds, limit],
  );
}

/** The first that fit after a number, without those of `seen`. */
export function listAuditAfter(sql: Sql, filter: AuditFilter, after: string, seen: readonly string[]): Promise<AuditRow[]> {
  return sql.query<AuditRow>(
    `SELECT ${COLUMNS} FROM audit WHERE ${MATCHES} AND seq > $5
       AND NOT EXISTS (SELECT FROM unnest($6::bigint[]) AS s(seq) WHERE s.seq = audit.seq)
     ORDER BY audit.seq LIMIT $7`,
    [...matchValues(filter), after, seen, filter.limit],
  );
}

/** The latest number that can be seen, and the transactions that were under way at that look. */
export interface AuditMark {
  seq: string;
  /** All that began before the look have a lower one. */
  xmax: string;
  /** All below have ended. */
  xmin: string;
}

export async function readAuditMark(sql: Sql): Promise<AuditMark> {
  const [mark] = await sql.query<AuditMark>(
    `SELECT coalesce(max(seq), 0)::text AS seq, pg_snapshot_xmax(pg_current_snapshot())::text AS xmax,
       pg_snapshot_xmin(pg_current_snapshot())::text AS xmin FROM audit`,
  );
  return mark as AuditMark;
}

/** The numbers that can be seen among the last so many. */
export async function listLastNumbers(sql: Sql, many: number): Promise<string[]> {
  const rows = await sql.query<{ seq: string }>(
    `SELECT seq::text FROM audit WHERE seq > (SELECT max(seq) FROM audit) - $1 ORDER BY audit.seq`,
    [many],
  );
  return rows.map(({ seq }) => seq);
}
