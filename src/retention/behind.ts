import { type IncidentChanges, project } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';
import type { ClassStatus } from './status.ts';

/** Due rows may wait for the next run, but not for another whole period. */
const BEHIND_PERIODS = 2;

/** Opens an incident for each class whose due rows are older than twice their period; resolves those that have caught up. */
export function projectBehind(sql: Sql, node: string, classes: readonly ClassStatus[], lookedAt: string): Promise<IncidentChanges> {
  const behind = classes.filter(
    ({ keptSeconds, oldestDueSeconds }) => keptSeconds !== null && (oldestDueSeconds ?? 0) > BEHIND_PERIODS * keptSeconds,
  );
  const findings = behind.map(({ name, due, keptSeconds }) => ({
    class: 'retention_behind' as const,
    fingerprint: `retention_behind:${name}`,
    summary: `${name} that are due are not removed`,
    evidence: { class: name, keptSeconds },
    affected: due,
  }));
  return project(sql, node, { class: 'retention_behind', lookedAt }, findings);
}
