import type { Sql } from '../postgres/database.ts';

export type IncidentClass = 'held_orphan' | 'poison_job' | 'hung_executor' | 'mass_staleness' | 'ownership_missing' | 'pgboss_unsupported';

/** Something that is wrong now. The fingerprint names the trouble, not the sighting. */
export interface Finding {
  class: IncidentClass;
  fingerprint: string;
  summary: string;
  evidence: object;
}

/** Opens an incident, or notes one more sighting of the open one with its latest evidence. */
export async function raise(sql: Sql, node: string, finding: Finding): Promise<void> {
  await sql.query(
    `INSERT INTO incident AS i (class, fingerprint, summary, evidence, node) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (fingerprint) WHERE resolved_at IS NULL
     DO UPDATE SET occurrences = i.occurrences + 1, last_seen_at = now(), summary = $3, evidence = $4`,
    [finding.class, finding.fingerprint, finding.summary, JSON.stringify(finding.evidence), node],
  );
}

/** Resolves the open incidents of a class whose condition is no longer among those seen now. */
export async function resolveGone(sql: Sql, incidentClass: IncidentClass, stillThere: readonly string[]): Promise<void> {
  await sql.query('UPDATE incident SET resolved_at = now() WHERE class = $1 AND resolved_at IS NULL AND NOT fingerprint = ANY($2)', [
    incidentClass,
    stillThere,
  ]);
}

/** Projects the whole of a class: what is found is open, what is not found any more is resolved. Writes only changes. */
export async function project(sql: Sql, node: string, incidentClass: IncidentClass, findings: readonly Finding[]): Promise<void> {
  const open = await sql.query<{ fingerprint: string }>('SELECT fingerprint FROM incident WHERE class = $1 AND resolved_at IS NULL', [
    incidentClass,
  ]);
  const known = new Set(open.map((row) => row.fingerprint));
  for (const finding of findings) if (!known.has(finding.fingerprint)) await raise(sql, node, finding);
  const found = findings.map((finding) => finding.fingerprint);
  if ([...known].some((fingerprint) => !found.includes(fingerprint))) await resolveGone(sql, incidentClass, found);
}

/** The evidence of the open incidents of a class, by fingerprint. */
export async function listOpenEvidence<Evidence>(
  sql: Sql,
  incidentClass: IncidentClass,
): Promise<{ fingerprint: string; evidence: Evidence }[]> {
  return sql.query('SELECT fingerprint, evidence FROM incident WHERE class = $1 AND resolved_at IS NULL', [incidentClass]);
}

export async function countOpen(sql: Sql): Promise<{ class: IncidentClass; count: number }[]> {
  return sql.query('SELECT class, count(*)::int AS count FROM incident WHERE resolved_at IS NULL GROUP BY class');
}
