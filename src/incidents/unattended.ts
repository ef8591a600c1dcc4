import type { Sql } from '../postgres/database.ts';
import { INCIDENT_CLASSES, type IncidentClass, isOfNode } from './class.ts';
import { type IncidentChanges, project, resolve } from './incident.ts';
import type { KnownIncident } from './queries.ts';

/** A daemon's restart is over long before: a node that was not heard of for so long may be gone for good. */
const UNHEARD_SECONDS = 3_600;

/**
 * Incidents that only their node can see, once it is not heard of any more and a person has acknowledged them: nobody else
 * could ever see their condition gone. A node that comes back opens anew what is still wrong.
 */
export async function resolveUnattended(sql: Sql): Promise<IncidentChanges> {
  const rows = await sql.query<KnownIncident & { class: IncidentClass }>(
    `SELECT i.class, i.fingerprint, i.occurrences FROM incident i
     WHERE i.resolved_at IS NULL AND i.acknowledged_at IS NOT NULL AND i.class = ANY ($1)
       AND NOT EXISTS (SELECT FROM node n WHERE n.node = i.node AND n.beat_at > now() - make_interval(secs => $2))`,
    [INCIDENT_CLASSES.filter(isOfNode), UNHEARD_SECONDS],
  );
  const changes: IncidentChanges = { opened: [], resolved: [] };
  for (const [incidentClass, found] of Map.groupBy(rows, (row) => row.class)) {
    const { resolved } = await resolve(sql, incidentClass, found);
    changes.resolved.push(...resolved);
  }
  return changes;
}

/** A daemon that looks after no units any more has none that is wrong. */
export async function resolveUnits(sql: Sql, node: string): Promise<IncidentChanges> {
  const [failed, flapping] = [await project(sql, node, 'unit_failed', []), await project(sql, node, 'unit_flapping', [])];
  return { opened: [], resolved: [...failed.resolved, ...flapping.resolved] };
}
