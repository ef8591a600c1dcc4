import type { ExecutorHealth } from '../executors/health.ts';
import { saveBrake } from '../fleet/queries.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';
import { type BrakeLimits, brakedExecutors } from './brake.ts';
import { listUnseenEnds } from './hung-executors.ts';

/** Executors that the evidence names; the count is exact. */
const NAMED_EXECUTORS = 200;

/** The brake is the fleet's, whatever the scope of the node that looks. It stays an incident while one that it held is out of view without an end. */
export async function projectMassStaleness(
  sql: Sql,
  node: string,
  executors: readonly ExecutorHealth[],
  limits: BrakeLimits,
  lookedAt: string,
): Promise<IncidentChanges> {
  const braked = [...brakedExecutors(executors, limits)].sort();
  await saveBrake(sql, braked.length > 0);
  if (braked.length > 0) return project(sql, node, { class: 'mass_staleness', lookedAt }, [describe(braked)]);
  const unknown: string[] = [];
  for (const { fingerprint, evidence, acknowledged } of await listOpenEvidence<{ executors: string[] }>(sql, 'mass_staleness')) {
    const outOfView = evidence.executors.filter((id) => !executors.some((executor) => executor.id === id));
    const { known, forgotten } = await listUnseenEnds(sql, outOfView);
    if (known.size > 0 || (forgotten.size > 0 && !acknowledged)) unknown.push(fingerprint);
  }
  return project(sql, node, { class: 'mass_staleness', unknown, lookedAt }, []);
}

function describe(executors: string[]): Finding {
  return {
    class: 'mass_staleness',
    fingerprint: 'mass_staleness',
    summary: `${executors.length} executors fell silent together without proof of death: none is rescued`,
    evidence: { executors: executors.slice(0, NAMED_EXECUTORS) },
    affected: executors.length,
  };
}
