import type { JobStore } from '../actions/job-store.ts';
import type { ExecutorHealth } from '../executors/health.ts';
import { isGone } from '../executors/owners.ts';
import { saveBrake } from '../fleet/queries.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';
import { applyBrake } from './brake.ts';
import type { Look } from './dead-executors.ts';
import { listUnseenEnds } from './hung-executors.ts';
import { listOrphansOf, type Orphan } from './orphans.ts';

/** Executors that the evidence names; the count is exact. */
const NAMED_EXECUTORS = 200;

/** The brake is the fleet's, whatever the scope of the node that looks. It stays an incident while one that it held is out of view without an end. */
export async function projectMassStaleness(
  sql: Sql,
  node: string,
  { jobs, executors, brakes, lookedAt }: Pick<Look, 'jobs' | 'executors' | 'brakes' | 'lookedAt'>,
): Promise<IncidentChanges> {
  const { braked } = applyBrake(executors, brakes);
  await saveBrake(sql, braked.size > 0);
  if (braked.size > 0) {
    const holding = await listHolding(sql, jobs, executors, braked);
    return project(sql, node, { class: 'mass_staleness', lookedAt }, [describe([...braked].sort(), holding)]);
  }
  const unknown: string[] = [];
  for (const { fingerprint, evidence, acknowledged } of await listOpenEvidence<{ executors: string[] }>(sql, 'mass_staleness')) {
    const outOfView = evidence.executors.filter((id) => !executors.some((executor) => executor.id === id));
    const { known, forgotten } = await listUnseenEnds(sql, outOfView);
    if (known.size > 0 || (forgotten.size > 0 && !acknowledged)) unknown.push(fingerprint);
  }
  return project(sql, node, { class: 'mass_staleness', unknown, lookedAt }, []);
}

/** Of the braked, some that hold attempts which a person could give back; none where none does. */
async function listHolding(sql: Sql, jobs: JobStore, executors: readonly ExecutorHealth[], braked: ReadonlySet<string>): Promise<string[]> {
  const named = executors.filter(({ id }) => braked.has(id));
  const pages = listOrphansOf(sql, jobs, { named, gone: executors.filter(isGone), all: executors });
  const first: Orphan[] = (await pages.next()).value ?? [];
  const holders = first.flatMap(({ executor }) => (executor && braked.has(executor.id) ? [executor.id] : []));
  return [...new Set(holders)].sort();
}

function describe(executors: string[], holding: string[]): Finding {
  return {
    class: 'mass_staleness',
    fingerprint: 'mass_staleness',
    summary: summarize(executors.length),
    evidence: { executors: executors.slice(0, NAMED_EXECUTORS), holding: holding.slice(0, NAMED_EXECUTORS) },
    affected: executors.length,
  };
}

/** The first to be missing is alone so far: the others are overdue, or hang. */
const summarize = (count: number) =>
  count === 1
    ? '1 executor fell silent together with others without proof of death: it is not rescued'
    : `${count} executors fell silent together without proof of death: none is rescued`;
