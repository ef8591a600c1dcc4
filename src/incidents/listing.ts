import type { Sql } from '../postgres/database.ts';
import { isoTime } from '../postgres/iso-time.ts';
import { INCIDENT_CLASSES, type IncidentClass, type Severity, severityOf } from './class.ts';
import { targetsOf } from './targets.ts';

export interface IncidentFilter {
  /** Default `open`. */
  state?: 'open' | 'resolved' | 'all';
  class?: IncidentClass;
  severity?: Severity;
  node?: string;
  queue?: string;
  /** Open now, or resolved within so many seconds. */
  withinSeconds?: number;
  limit?: number;
}

/** Times are the database's, ISO 8601 in UTC; ages in seconds at the time of the look. */
export interface Incident {
  id: string;
  class: IncidentClass;
  severity: Severity;
  state: 'open' | 'acknowledged' | 'snoozed' | 'resolved';
  fingerprint: string;
  summary: string;
  evidence: Record<string, unknown>;
  /** Targets in trouble now, and at most since it opened. */
  affected: number;
  affectedMost: number;
  node: string | null;
  stack: string | null;
  env: string | null;
  queues: string[];
  occurrences: number;
  openings: number;
  firstSeenAt: string;
  openedAt: string;
  openedSeconds: number;
  lastSeenAt: string;
  lastSeenSeconds: number;
  resolvedAt: string | null;
  resolvedSeconds: number | null;
  acknowledged: { at: string; by: string; reason: string } | null;
  snoozed: { until: string; by: string; reason: string } | null;
}

/** ISO 8601 in UTC, as the database writes it. */
const secondsSince = (time: string) => `extract(epoch FROM now() - ${time})::float8`;
const SNOOZED = 'coalesce(i.snoozed_until > now(), false)';

/** Who has it on their desk, and who has moved it out of the way. */
export type Attention = Pick<Incident, 'acknowledged' | 'snoozed'>;

/** The columns of an Attention. */
export const ATTENTION = `CASE WHEN i.acknowledged_at IS NOT NULL THEN jsonb_build_object('at', ${isoTime('i.acknowledged_at')}, 'by', i.acknowledged_by,
    'reason', i.acknowledged_reason) END AS acknowledged,
  CASE WHEN ${SNOOZED} THEN jsonb_build_object('until', ${isoTime('i.snoozed_until')}, 'by', i.snoozed_by,
    'reason', i.snoozed_reason) END AS snoozed`;

const COLUMNS = `i.id::text, i.class, i.fingerprint, i.summary, i.evidence, i.affected, i.affected_most AS "affectedMost", i.node, i.stack,
  i.env, i.queues, i.occurrences, i.openings, ${isoTime('i.first_seen_at')} AS "firstSeenAt", ${isoTime('i.opened_at')} AS "openedAt",
  ${secondsSince('i.opened_at')} AS "openedSeconds", ${isoTime('i.last_seen_at')} AS "lastSeenAt",
  ${secondsSince('i.last_seen_at')} AS "lastSeenSeconds", ${isoTime('i.resolved_at')} AS "resolvedAt",
  ${secondsSince('i.resolved_at')} AS "resolvedSeconds",
  CASE WHEN i.resolved_at IS NOT NULL THEN 'resolved' WHEN ${SNOOZED} THEN 'snoozed'
    WHEN i.acknowledged_at IS NOT NULL THEN 'acknowledged' ELSE 'open' END AS state, ${ATTENTION}`;

const FILTER = `i.class = ANY($1) AND ($2::text IS NULL OR i.node = $2) AND ($3::text IS NULL OR $3 = ANY(i.queues))
  AND ($4::float8 IS NULL OR i.resolved_at IS NULL OR i.resolved_at > now() - make_interval(secs => $4))`;

const DEFAULT_LIMIT = 100;

/** The columns are spelled out for those that are shown only: of ten thousand they cost more than the order. */
const OPEN_ORDER = `ORDER BY ${SNOOZED}, i.acknowledged_at IS NOT NULL, array_position($1, i.class), i.last_seen_at DESC, i.id DESC`;

/** Open ones first: those that nobody has taken on before the others, the gravest first, then the latest. Then resolved ones. */
export async function listIncidents(sql: Sql, filter: IncidentFilter = {}): Promise<{ incidents: Incident[]; total: number }> {
  const { state = 'open', limit = DEFAULT_LIMIT } = filter;
  const values = filterValues(filter);
  const total = await countMatching(sql, state, values);
  const open = state === 'resolved' ? [] : await listOpen(sql, values, limit);
  const resolved = state === 'open' || open.length >= limit ? [] : await listResolved(sql, values, limit - open.length);
  return { incidents: [...open, ...resolved].map(withSeverity), total };
}

type Row = Omit<Incident, 'severity'>;

const withSeverity = (row: Row): Incident => ({ ...row, severity: severityOf(row.class) });

function filterValues({ class: incidentClass, severity, node, queue, withinSeconds }: IncidentFilter): unknown[] {
  const classes = INCIDENT_CLASSES.filter(
    (name) => (incidentClass ?? name) === name && (severity ?? severityOf(name)) === severityOf(name),
  );
  return [classes, node ?? null, queue ?? null, withinSeconds ?? null];
}

function listOpen(sql: Sql, values: unknown[], limit: number): Promise<Row[]> {
  return sql.query<Row>(
    `SELECT ${COLUMNS} FROM incident i WHERE i.id IN (
       SELECT i.id FROM incident i WHERE i.resolved_at IS NULL AND ${FILTER} ${OPEN_ORDER} LIMIT $5
     ) ${OPEN_ORDER}`,
    [...values, limit],
  );
}

function listResolved(sql: Sql, values: unknown[], limit: number): Promise<Row[]> {
  return sql.query<Row>(
    `SELECT ${COLUMNS} FROM incident i WHERE i.id IN (
       SELECT i.id FROM incident i WHERE i.resolved_at IS NOT NULL AND ${FILTER} ORDER BY i.resolved_at DESC, i.id DESC LIMIT $5
     ) ORDER BY i.resolved_at DESC, i.id DESC`,
    [...values, limit],
  );
}

async function countMatching(sql: Sql, state: 'open' | 'resolved' | 'all', values: unknown[]): Promise<number> {
  const [row] = await sql.query<{ total: number }>(
    `SELECT count(*)::int AS total FROM incident i WHERE ($5 = 'all' OR (i.resolved_at IS NULL) = ($5 = 'open')) AND ${FILTER}`,
    [...values, state],
  );
  return row?.total ?? 0;
}

export async function countOpen(sql: Sql): Promise<{ class: IncidentClass; count: number }[]> {
  return sql.query('SELECT class, count(*)::int AS count FROM incident WHERE resolved_at IS NULL GROUP BY class');
}

export interface Opening {
  opening: number;
  openedAt: string;
  resolvedAt: string | null;
}

export interface Occurrence {
  number: number;
  opening: number;
  at: string;
  /** The node that saw it. */
  node: string;
  summary: string;
  affected: number;
  evidence: Record<string, unknown>;
}

/** What the sweeps did to the incident's job, or to the jobs of its executor. */
export interface Rescue {
  at: string;
  node: string;
  outcome: string;
  policy: string;
  jobs: number;
}

export interface RelatedAudit {
  seq: string;
  at: string;
  actor: string;
  action: string;
  target: string;
  outcome: string;
  reason: string | null;
}

/** An incident with its whole history, oldest first. */
export interface IncidentHistory extends Incident {
  history: Opening[];
  occurrencesKept: Occurrence[];
  rescues: Rescue[];
  audit: RelatedAudit[];
}

/** One incident whole; undefined where there is none of that id. */
export async function readIncident(sql: Sql, id: string): Promise<IncidentHistory | undefined> {
  const [row] = await sql.query<Row>(`SELECT ${COLUMNS} FROM incident i WHERE i.id = $1`, [id]);
  if (!row) return undefined;
  const incident = withSeverity(row);
  const occurrencesKept = await listOccurrences(sql, id);
  const targets = [incident, ...occurrencesKept].flatMap(({ evidence }) => targetsOf({ class: row.class, node: row.node, evidence }));
  return {
    ...incident,
    history: await listOpenings(sql, id),
    occurrencesKept,
    rescues: await listRescues(sql, incident),
    audit: await listAudit(sql, [...new Set([incidentTarget(id), ...targets])]),
  };
}

/** How the audit spells an incident as a target. */
export const incidentTarget = (id: string) => `incident/${id}`;

function listOpenings(sql: Sql, id: string): Promise<Opening[]> {
  return sql.query<Opening>(
    `SELECT opening, ${isoTime('opened_at')} AS "openedAt", ${isoTime('resolved_at')} AS "resolvedAt"
     FROM incident_opening WHERE incident_id = $1 ORDER BY opening`,
    [id],
  );
}

function listOccurrences(sql: Sql, id: string): Promise<Occurrence[]> {
  return sql.query<Occurrence>(
    `SELECT number, opening, ${isoTime('at')} AS at, node, summary, affected, evidence
     FROM incident_occurrence WHERE incident_id = $1 ORDER BY number`,
    [id],
  );
}

const RELATED_LIMIT = 50;

/** A job's by its key; an executor's among those since shortly before the incident, for they have no index of their own. */
function listRescues(sql: Sql, { evidence, firstSeenAt }: Incident): Promise<Rescue[]> {
  const { queue, jobId, executor } = evidence;
  return sql
    .query<Rescue>(
      `SELECT ${isoTime('max(r.recovered_at)')} AS at, r.node, r.outcome, r.policy, count(*)::int AS jobs
     FROM recovery r
     WHERE (r.queue = $1 AND r.job_id = $2::uuid) OR (r.executor_id = $3 AND r.recovered_at > $4::timestamptz - interval '1 hour')
     GROUP BY date_trunc('second', r.recovered_at), r.node, r.outcome, r.policy
     ORDER BY max(r.recovered_at) DESC LIMIT ${RELATED_LIMIT}`,
      [...[queue, jobId, executor].map((value) => (typeof value === 'string' ? value : null)), firstSeenAt],
    )
    .then((rows) => rows.reverse());
}

function listAudit(sql: Sql, targets: readonly string[]): Promise<RelatedAudit[]> {
  return sql
    .query<RelatedAudit>(
      `SELECT seq::text, ${isoTime('at')} AS at, actor, action, target, outcome, reason FROM audit
       WHERE audit_names(target, detail) && $1 ORDER BY audit.seq DESC LIMIT ${RELATED_LIMIT}`,
      [targets],
    )
    .then((rows) => rows.reverse());
}
