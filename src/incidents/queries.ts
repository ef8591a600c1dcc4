import type { Sql } from '../postgres/database.ts';
import type { IncidentClass } from './class.ts';

/** A finding as it is stored. */
export interface FindingRow {
  class: IncidentClass;
  fingerprint: string;
  summary: string;
  evidence: object;
  affected: number;
  node: string | null;
  stack: string | null;
  env: string | null;
  queues: readonly string[];
}

/** What one look covered: only that may it resolve. */
export interface Scope {
  class: IncidentClass;
  node: string | null;
  prefix: string | null;
  /** Fingerprints that the look found, or could not judge. */
  stillThere: readonly string[];
  /** When the look began: it says nothing of what was seen later. Null: nobody else looks. */
  lookedAt: string | null;
}

export interface ClassCount {
  class: IncidentClass;
  count: number;
}

const FINDINGS = `jsonb_to_recordset($1::jsonb) AS f(class text, fingerprint text, summary text, evidence jsonb, affected int, node text,
  stack text, env text, queues text[])`;

/** An open incident's last sighting is noted anew only after so long, so that a trouble that lasts costs next to no writes. */
const SEEN_AGAIN = `i.last_seen_at < now() - interval '5 minutes'`;

const DIFFERS = `(i.summary, i.evidence, i.affected, i.node, i.stack, i.env, i.queues)
  IS DISTINCT FROM (f.summary, f.evidence, f.affected, f.node, f.stack, f.env, f.queues)`;

/** Of each incident the first and the last occurrences and openings are kept. */
const KEPT_FIRST = 5;
const KEPT_LAST = 20;

/** Not `<> ALL`: before Postgres 15 that compares each with each. */
const gone = (first: number) => `i.class = $${first} AND i.resolved_at IS NULL AND ($${first + 1}::text IS NULL OR i.node = $${first + 1})
  AND ($${first + 2}::text IS NULL OR starts_with(i.fingerprint, $${first + 2}))
  AND ($${first + 4}::timestamptz IS NULL OR i.last_seen_at < $${first + 4})
  AND NOT EXISTS (SELECT FROM unnest($${first + 3}::text[]) AS s(fingerprint) WHERE s.fingerprint = i.fingerprint)`;
const goneValues = (scope: Scope) => [scope.class, scope.node, scope.prefix, scope.stillThere, scope.lookedAt];

/** What a projection would change: the fingerprints to write, and whether there is anything to resolve. Reads only. */
export async function readChanges(sql: Sql, findings: readonly FindingRow[], scope: Scope): Promise<{ changed: string[]; gone: boolean }> {
  const [row] = await sql.query<{ changed: string[]; gone: boolean }>(
    `SELECT array(
         SELECT f.fingerprint FROM ${FINDINGS} LEFT JOIN incident i ON i.fingerprint = f.fingerprint
         WHERE i.id IS NULL OR i.resolved_at IS NOT NULL OR ${DIFFERS} OR ${SEEN_AGAIN}
       ) AS changed,
       EXISTS (SELECT FROM incident i WHERE ${gone(2)}) AS gone`,
    [JSON.stringify(findings), ...goneValues(scope)],
  );
  return row ?? { changed: [], gone: false };
}

/** One projection of a class at a time, until the transaction ends. */
export async function lockClass(tx: Sql, incidentClass: IncidentClass): Promise<void> {
  await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.incident.' || $1, 0))`, [incidentClass]);
}

/**
 * Opens, reopens or notes again, in one statement, in the order of the fingerprints: whoever writes the same ones meets
 * their locks in the same order. With `always` every finding counts as an occurrence, else only what says something
 * new; the same trouble with fewer targets is progress, not an occurrence.
 * @returns how many were opened or reopened, by class.
 */
export function saveFindings(sql: Sql, reporter: string, findings: readonly FindingRow[], always: boolean): Promise<ClassCount[]> {
  return sql.query<ClassCount>(
    `WITH written AS (
       INSERT INTO incident AS i (class, fingerprint, summary, evidence, affected, affected_most, node, stack, env, queues)
       SELECT f.class, f.fingerprint, f.summary, f.evidence, f.affected, f.affected, f.node, f.stack, f.env, f.queues
       FROM ${FINDINGS} ORDER BY f.fingerprint
       ON CONFLICT (fingerprint) DO UPDATE SET
         summary = excluded.summary, evidence = excluded.evidence, affected = excluded.affected,
         node = excluded.node, stack = excluded.stack, env = excluded.env, queues = excluded.queues, last_seen_at = now(),
         affected_most = CASE WHEN i.resolved_at IS NULL THEN greatest(i.affected_most, excluded.affected) ELSE excluded.affected END,
         occurrences = i.occurrences + CASE WHEN $2 OR i.resolved_at IS NOT NULL
           OR (i.evidence IS DISTINCT FROM excluded.evidence AND excluded.affected >= i.affected) THEN 1 ELSE 0 END,
         openings = i.openings + CASE WHEN i.resolved_at IS NULL THEN 0 ELSE 1 END,
         opened_at = CASE WHEN i.resolved_at IS NULL THEN i.opened_at ELSE now() END,
         acknowledged_at = CASE WHEN i.resolved_at IS NULL THEN i.acknowledged_at END,
         acknowledged_by = CASE WHEN i.resolved_at IS NULL THEN i.acknowledged_by END,
         acknowledged_reason = CASE WHEN i.resolved_at IS NULL THEN i.acknowledged_reason END,
         resolved_at = NULL
       WHERE $2 OR i.resolved_at IS NOT NULL OR ${SEEN_AGAIN} OR ${DIFFERS.replaceAll('f.', 'excluded.')}
       RETURNING i.*
     ), occurred AS (
       INSERT INTO incident_occurrence (incident_id, number, opening, node, summary, affected, evidence)
       SELECT id, occurrences, openings, $3, summary, affected, evidence FROM written ON CONFLICT DO NOTHING
     ), opened AS (
       INSERT INTO incident_opening (incident_id, opening, opened_at)
       SELECT id, openings, opened_at FROM written ON CONFLICT DO NOTHING RETURNING incident_id
     ), forgotten_occurrences AS (
       DELETE FROM incident_occurrence o USING written w
       WHERE o.incident_id = w.id AND o.number > ${KEPT_FIRST} AND o.number <= w.occurrences - ${KEPT_LAST}
     ), forgotten_openings AS (
       DELETE FROM incident_opening o USING written w
       WHERE o.incident_id = w.id AND o.opening > ${KEPT_FIRST} AND o.opening <= w.openings - ${KEPT_LAST}
     )
     SELECT w.class, count(*)::int AS count FROM opened o JOIN written w ON w.id = o.incident_id GROUP BY w.class`,
    [JSON.stringify(findings), always, reporter],
  );
}

const RESOLVE = `resolved AS (UPDATE incident i SET resolved_at = now() FROM gone WHERE i.id = gone.id RETURNING i.id, i.openings),
     noted AS (
       UPDATE incident_opening o SET resolved_at = now() FROM resolved r WHERE o.incident_id = r.id AND o.opening = r.openings
     )
     SELECT FROM resolved`;

/** Resolves what a look covered and did not find; locks in the order of the fingerprints, as saveFindings does. */
export async function resolveMissing(sql: Sql, scope: Scope): Promise<number> {
  const rows = await sql.query(
    `WITH gone AS (SELECT i.id FROM incident i WHERE ${gone(1)} ORDER BY i.fingerprint FOR UPDATE),
     ${RESOLVE}`,
    goneValues(scope),
  );
  return rows.length;
}

/** An incident as somebody read it. */
export interface KnownIncident {
  fingerprint: string;
  occurrences: number;
}

/** Resolves just these, where they are open and as they were read. */
export async function resolveNamed(sql: Sql, incidents: readonly KnownIncident[]): Promise<number> {
  const rows = await sql.query(
    `WITH gone AS (
       SELECT i.id FROM incident i JOIN unnest($1::text[], $2::int[]) AS k(fingerprint, occurrences) USING (fingerprint, occurrences)
       WHERE i.resolved_at IS NULL ORDER BY i.fingerprint FOR UPDATE OF i
     ),
     ${RESOLVE}`,
    [incidents.map(({ fingerprint }) => fingerprint), incidents.map(({ occurrences }) => occurrences)],
  );
  return rows.length;
}
