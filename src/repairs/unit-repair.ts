import { nameAttempt } from '../actions/job-store.ts';
import { awaitCommand } from '../commands/caller.ts';
import { type PeopledUnit, readNode, saveCommand } from '../commands/queries.ts';
import type { ExecutorHealth } from '../executors/health.ts';
import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import type { RepairPlan } from './plan.ts';
import { findUnshownIn, listExecutorsIn } from './unit-executors.ts';
import { planStop, planUnit, type UnitAction, type UnitPlan } from './unit-plan.ts';

export interface UnitRepairDependencies {
  database: Database;
  clock: Clock;
  /** The node on which it is asked; a target without a node is one of its units. */
  node: string;
}

/** A daemon takes its commands at once; a node that has not beaten for so long has none. */
export const TAKE_WITHIN_SECONDS = 10;
const SILENT_AFTER_SECONDS = 10;
/** A command that speaks for itself. */
export const PLAIN = { reason: null, expected: null, audited: null, executor: null, named: null } as const;

/** `NODE:UNIT`, or `UNIT` of this node; `.service` may be left out. A unit's own name may hold a colon, too. */
export async function parseUnitTarget(sql: Sql, target: string, own: string): Promise<{ node: string; unit: string }> {
  const colon = target.indexOf(':');
  const named = colon > 0 ? target.slice(0, colon) : undefined;
  const isNode = named !== undefined && (named === own || (await readNode(sql, named)) !== undefined);
  const unit = isNode ? target.slice(colon + 1) : target;
  return { node: isNode ? named : own, unit: unit.endsWith('.service') ? unit : `${unit}.service` };
}

/** Said first where the target may have meant a node: what was taken for a unit's own name has its colon still. */
function noSuchNode(target: string, unit: string): string {
  const colon = unit.indexOf(':');
  return colon > 0 && unit.startsWith(target)
    ? `there is no node ${unit.slice(0, colon)} (see \`reclaimd status\`), and no such unit here: `
    : '';
}

/** The plan for a unit, from a look that its node's daemon takes now. */
export async function planUnitRepair(
  dependencies: UnitRepairDependencies,
  action: UnitAction,
  target: string,
  actor: string,
): Promise<{ plan: UnitPlan } | { refusal: string }> {
  const { node, unit } = await parseUnitTarget(dependencies.database, target, dependencies.node);
  const looked = await lookAt(dependencies, node, unit, actor);
  if ('refusal' in looked) return { refusal: `${noSuchNode(target, unit)}${looked.refusal}` };
  const { executors, ...seen } = looked;
  return planUnit(action, node, seen, executors);
}

/** The plan to stop the unit of an executor. */
export async function planStopOf(
  dependencies: UnitRepairDependencies,
  executor: ExecutorHealth,
  actor: string,
): Promise<{ plan: UnitPlan } | { refusal: string }> {
  const { id, verdict, unit, witnessNode } = executor;
  // Wherever it ran: there is nothing left to stop.
  if (verdict === 'dead' || verdict === 'stopped')
    return { refusal: `${id} is ${verdict} already: executor_rescue gives its attempts back` };
  if (unit === null || witnessNode === null)
    return { refusal: `no node knows in which unit ${id} runs: end its process by hand, and what it holds comes back by itself` };
  const looked = await lookAt(dependencies, witnessNode, unit, actor);
  if ('refusal' in looked) return looked;
  const { executors, ...seen } = looked;
  return { plan: planStop(executor, seen, executors) };
}

async function lookAt(
  dependencies: UnitRepairDependencies,
  node: string,
  unit: string,
  actor: string,
): Promise<PeopledUnit | { refusal: string }> {
  const { database } = dependencies;
  const daemon = await readNode(database, node);
  if (!daemon) return { refusal: `there is no node ${node}: see \`reclaimd status\`` };
  if (daemon.stopped || daemon.silentSeconds > SILENT_AFTER_SECONDS)
    return {
      refusal: `the daemon of ${node} ${daemon.stopped ? 'was stopped' : `has been silent for ${Math.round(daemon.silentSeconds)} s`}: start it again, for nobody else may touch its units`,
    };
  const id = await database.transaction((tx) => saveCommand(tx, { ...PLAIN, node, action: 'look', unit, actor }, TAKE_WITHIN_SECONDS));
  const { outcome, error, answer } = await awaitCommand(dependencies, id);
  return outcome === 'done' && answer ? answer : { refusal: `${node}:${unit}: ${error ?? outcome}` };
}

/** Who would end with the unit and was not shown; its node looks once more. */
export async function unitDrift(sql: Sql, { node, unit, executors }: UnitPlan): Promise<string | undefined> {
  const daemon = await readNode(sql, node);
  return daemon && findUnshownIn(unit, executors, await listExecutorsIn(sql, daemon.host, unit));
}

/** Leaves the command in the transaction that uses up the token: from its commit on it is the node's to carry out. */
export function sendPlanned(tx: Sql, { unit, executor, jobs, policy }: RepairPlan, event: UnitEvent): Promise<string> {
  if (!unit) throw new Error('the plan is for no unit');
  const { node, unit: name, command, before, executors } = unit;
  const { actor, reason, action, target, detail } = event;
  const request = { node, action: command, unit: name, actor, reason, expected: { ...before, executors } };
  const audited = { action, target, detail };
  const named = policy && {
    policy,
    attempts: jobs.map(({ queue, jobId, before: { retryCount } }) => nameAttempt({ queue, jobId, retryCount })),
  };
  return saveCommand(tx, { ...request, audited, executor: executor?.id ?? null, named }, TAKE_WITHIN_SECONDS);
}

/** Who repairs, and what the audit record of it says. */
interface UnitEvent {
  actor: string;
  reason: string;
  action: string;
  target: string;
  detail: object;
}
