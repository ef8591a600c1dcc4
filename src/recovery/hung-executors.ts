import { listEnded } from '../executors/queries.ts';
import { type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';
import type { Look } from './dead-executors.ts';
import { findExcused } from './eligibility.ts';

const fingerprintOf = (id: string) => `hung_executor:${id}`;

/**
 * Executors whose process is there, but silent. One that has gone out of view without an end is neither there nor gone, nor is one
 * that only looks missing because the daemon that had its process in sight is away.
 */
export async function projectHungExecutors(
  sql: Sql,
  node: string,
  { executors, fleet, brakes, lookedAt }: Pick<Look, 'executors' | 'fleet' | 'brakes' | 'lookedAt'>,
): Promise<IncidentChanges> {
  const hung = executors.filter(({ verdict }) => verdict === 'hung');
  const open = await listOpenEvidence<{ executor: string }>(sql, 'hung_executor');
  const outOfView = open.filter(({ evidence }) => !executors.some(({ id }) => id === evidence.executor));
  const unseen = await listUnseenEnds(
    sql,
    outOfView.map(({ evidence }) => evidence.executor),
  );
  const unjudged = outOfView
    .filter(
      ({ evidence, acknowledged }) => unseen.known.has(evidence.executor) || (unseen.forgotten.has(evidence.executor) && !acknowledged),
    )
    .map(({ fingerprint }) => fingerprint);
  const excused = [...findExcused(executors, fleet, brakes)].map(({ id }) => fingerprintOf(id));
  return project(
    sql,
    node,
    { class: 'hung_executor', unknown: [...unjudged, ...excused], lookedAt },
    hung.map(({ id, name, host, pid, reason, queues, stack, env, witnessNode, unit, unitAllowed }) => ({
      class: 'hung_executor',
      fingerprint: fingerprintOf(id),
      summary: `${name ?? id} on ${host}: ${reason}`,
      evidence: { executor: id, host, pid, queues, unit, unitAllowed, proven: witnessNode !== null },
      node: witnessNode ?? host,
      stack,
      env,
    })),
  );
}

/**
 * Of executors out of view: those that are `known` and have not ended, and those that are `forgotten`, their rows gone.
 * The rest has ended.
 */
export async function listUnseenEnds(sql: Sql, ids: readonly string[]): Promise<{ known: Set<string>; forgotten: Set<string> }> {
  if (ids.length === 0) return { known: new Set(), forgotten: new Set() };
  const rows = new Map((await listEnded(sql, ids)).map(({ id, ended }) => [id, ended]));
  return {
    known: new Set(ids.filter((id) => rows.get(id) === false)),
    forgotten: new Set(ids.filter((id) => !rows.has(id))),
  };
}
