import type { Database, Sql } from '../postgres/database.ts';
import { type IncidentClass, isOfNode } from './class.ts';
import {
  type ClassCount,
  type FindingRow,
  type KnownIncident,
  lockClass,
  readChanges,
  resolveMissing,
  resolveNamed,
  type Scope,
  saveFindings,
} from './queries.ts';

/** Something that is wrong now. The fingerprint names the trouble, not the sighting. */
export interface Finding {
  class: IncidentClass;
  fingerprint: string;
  summary: string;
  evidence: object;
  /** How many targets are in trouble; default 1. Fewer than before is progress: the incident stays open until none is. */
  affected?: number;
  /** Where the trouble is, if it is at one node. Default: the reporting node for classes that only the node itself can see. */
  node?: string | null;
  stack?: string | null;
  env?: string | null;
  /** Default: what the evidence names as `queue` or `queues`. */
  queues?: readonly string[];
}

/** What a projection looked at: nothing outside of it is resolved. */
export interface ProjectionScope {
  class: IncidentClass;
  /** Only this node's incidents. Default for classes that only the node itself can see: the reporting node. */
  node?: string;
  /** Only incidents whose fingerprint begins so. */
  prefix?: string;
  /** Fingerprints that the look could not judge: unknown is neither there nor gone. */
  unknown?: readonly string[];
  /** By `readLookTime`, before the look: what others have seen since stays. Only where others look, too. */
  lookedAt?: string;
}

export interface IncidentChanges {
  /** Opened or reopened, by class. */
  opened: ClassCount[];
  resolved: ClassCount[];
}

const NOTHING: IncidentChanges = { opened: [], resolved: [] };

/** Opens incidents, or notes one more occurrence of the open ones with its evidence. Joins the caller's transaction. */
export async function raise(sql: Sql, node: string, findings: Finding | readonly Finding[]): Promise<IncidentChanges> {
  const rows = intoRows(node, Array.isArray(findings) ? findings : [findings as Finding]);
  if (rows.length === 0) return NOTHING;
  return { opened: await saveFindings(sql, node, rows, true), resolved: [] };
}

/**
 * Projects the whole of a scope: what is found is open, what is not found any more is resolved. Writes only changes, all
 * of them in one transaction (the caller's, where it has one); any number of nodes may project at once.
 */
export async function project(
  sql: Sql | Database,
  node: string,
  scope: IncidentClass | ProjectionScope,
  findings: readonly Finding[],
): Promise<IncidentChanges> {
  const rows = intoRows(node, findings);
  const named = typeof scope === 'string' ? { class: scope } : scope;
  const covered = isOfNode(named.class) ? { node, ...named } : named;
  const found = rows.map(({ fingerprint }) => fingerprint);
  const { changed, gone } = await readChanges(sql, rows, intoScope(covered, found));
  if (changed.length === 0 && !gone) return NOTHING;
  const news = new Set(changed);
  return inTransaction(sql, async (tx) => {
    await lockClass(tx, covered.class);
    const toWrite = rows.filter(({ fingerprint }) => news.has(fingerprint));
    const opened = toWrite.length > 0 ? await saveFindings(tx, node, toWrite, false) : [];
    const { resolved } = gone ? await resolveGone(tx, covered, found) : NOTHING;
    return { opened, resolved };
  });
}

/** Resolves the open incidents of a scope whose condition is no longer among those seen now. */
export async function resolveGone(
  sql: Sql,
  scope: IncidentClass | ProjectionScope,
  stillThere: readonly string[],
): Promise<IncidentChanges> {
  const covered = typeof scope === 'string' ? { class: scope } : scope;
  return { opened: [], resolved: countOf(covered.class, await resolveMissing(sql, intoScope(covered, stillThere))) };
}

/** Resolves just these of a class: their condition has been seen gone. One that has occurred again since it was read stays. */
export async function resolve(sql: Sql, incidentClass: IncidentClass, incidents: readonly KnownIncident[]): Promise<IncidentChanges> {
  return { opened: [], resolved: countOf(incidentClass, incidents.length === 0 ? 0 : await resolveNamed(sql, incidents)) };
}

function countOf(incidentClass: IncidentClass, count: number): ClassCount[] {
  return count === 0 ? [] : [{ class: incidentClass, count }];
}

function intoScope(scope: ProjectionScope, stillThere: readonly string[]): Scope {
  const { class: incidentClass, node = null, prefix = null, unknown = [], lookedAt = null } = scope;
  return { class: incidentClass, node, prefix, stillThere: [...stillThere, ...unknown], lookedAt };
}

/** The last of several findings of one fingerprint stands. */
function intoRows(reporter: string, findings: readonly Finding[]): FindingRow[] {
  const rows = findings.map(
    (finding): FindingRow => ({
      class: finding.class,
      fingerprint: finding.fingerprint,
      summary: finding.summary,
      evidence: finding.evidence,
      affected: finding.affected ?? 1,
      node: finding.node ?? (isOfNode(finding.class) ? reporter : null),
      stack: finding.stack ?? null,
      env: finding.env ?? null,
      queues: finding.queues ?? queuesOf(finding.evidence),
    }),
  );
  return [...new Map(rows.map((row) => [row.fingerprint, row])).values()];
}

function queuesOf(evidence: object): string[] {
  const { queue, queues } = evidence as { queue?: unknown; queues?: unknown };
  const named = [queue, ...(Array.isArray(queues) ? (queues as unknown[]) : [])];
  return [...new Set(named.filter((name) => typeof name === 'string'))];
}

function inTransaction<T>(sql: Sql | Database, work: (tx: Sql) => Promise<T>): Promise<T> {
  return 'transaction' in sql ? sql.transaction(work) : work(sql);
}

/** The database's time, as its text, before a look that a projection will rest on. */
export async function readLookTime(sql: Sql): Promise<string> {
  const [row] = await sql.query<{ now: string }>('SELECT clock_timestamp()::text AS now');
  if (!row) throw new Error('the time returned no row');
  return row.now;
}

export interface OpenIncident<Evidence> extends KnownIncident {
  evidence: Evidence;
  acknowledged: boolean;
}

/** The open incidents of a class with their latest evidence. */
export async function listOpenEvidence<Evidence>(sql: Sql, incidentClass: IncidentClass): Promise<OpenIncident<Evidence>[]> {
  return sql.query(
    'SELECT fingerprint, occurrences, evidence, acknowledged_at IS NOT NULL AS acknowledged FROM incident WHERE class = $1 AND resolved_at IS NULL',
    [incidentClass],
  );
}
