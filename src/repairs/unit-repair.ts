import { awaitCommand } from '../commands/caller.ts';
import { type CommandRow, readNodeSilence, type SeenUnit, saveCommand } from '../commands/queries.ts';
import { type ExecutorHealth, findExecutorHealth, listExecutorHealth } from '../executors/health.ts';
import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import type { RepairPlan } from './plan.ts';
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
const GIVEN_BACK_PATIENCE_MS = 10_000;
const POLL_MS = 100;

/** `NODE:UNIT`, or `UNIT` of this node; `.service` may be left out. A unit's own name may hold a colon, too. */
export async function parseUnitTarget(sql: Sql, target: string, own: string): Promise<{ node: string; unit: string }> {
  const colon = target.indexOf(':');
  const named = colon > 0 ? target.slice(0, colon) : undefined;
  const isNode = named !== undefined && (named === own || (await readNodeSilence(sql, named)) !== undefined);
  const unit = isNode ? target.slice(colon + 1) : target;
  return { node: isNode ? named : own, unit: unit.endsWith('.service') ? unit : `${unit}.service` };
}

/** The plan for a unit, from a look that its node's daemon takes now. */
export async function planUnitRepair(
  dependencies: UnitRepairDependencies,
  action: UnitAction,
  target: string,
  actor: string,
): Promise<{ plan: UnitPlan } | { refusal: string }> {
  const { node, unit } = await parseUnitTarget(dependencies.database, target, dependencies.node);
  const seen = await lookAt(dependencies, node, unit, actor);
  if ('refusal' in seen) return seen;
  return planUnit(action, node, seen, await listIn(dependencies.database, node, seen.unit));
}

/** The plan to stop the unit of an executor. */
export async function planStopOf(
  dependencies: UnitRepairDependencies,
  executor: ExecutorHealth,
  actor: string,
): Promise<{ plan: UnitPlan } | { refusal: string }> {
  const { id, unit, witnessNode } = executor;
  if (unit === null || witnessNode === null)
    return { refusal: `no node knows in which unit ${id} runs, so it cannot be stopped from here` };
  const seen = await lookAt(dependencies, witnessNode, unit, actor);
  if ('refusal' in seen) return seen;
  return planStop(executor, seen, await listIn(dependencies.database, witnessNode, unit));
}

async function lookAt(
  dependencies: UnitRepairDependencies,
  node: string,
  unit: string,
  actor: string,
): Promise<SeenUnit | { refusal: string }> {
  const { database } = dependencies;
  const silence = await readNodeSilence(database, node);
  if (!silence) return { refusal: `there is no node ${node}: see \`reclaimd status\`` };
  if (silence.stopped || silence.seconds > SILENT_AFTER_SECONDS)
    return {
      refusal: `the daemon of ${node} ${silence.stopped ? 'was stopped' : `has been silent for ${Math.round(silence.seconds)} s`}: nobody else may touch its units`,
    };
  const request = { node, action: 'look', unit, actor, reason: null, expected: null } as const;
  const id = await database.transaction((tx) => saveCommand(tx, request, TAKE_WITHIN_SECONDS));
  const { outcome, error, answer } = await awaitCommand(dependencies, id);
  return outcome === 'done' && answer ? answer : { refusal: `${node}:${unit}: ${error ?? outcome}` };
}

const listIn = async (sql: Sql, node: string, unit: string): Promise<ExecutorHealth[]> =>
  (await listExecutorHealth(sql)).filter((executor) => executor.witnessNode === node && executor.unit === unit);

/** Leaves the command in the transaction that uses up the token: from its commit on it is the node's to carry out. */
export function sendPlanned(tx: Sql, { node, unit, command, before }: UnitPlan, actor: string, reason: string): Promise<string> {
  const { activeState, invocation } = before;
  return saveCommand(tx, { node, action: command, unit, actor, reason, expected: { activeState, invocation } }, TAKE_WITHIN_SECONDS);
}

/** Waits for the node to carry it out; of an executor that was stopped, also for its attempts to be given back. */
export async function awaitUnitRepair<Event>(
  dependencies: UnitRepairDependencies & { jobs: { listActive(sql: Sql, names: readonly string[], limit: number): Promise<object[]> } },
  commandId: string,
  { executor }: RepairPlan,
  onEvent: (event: Event) => void,
): Promise<CommandRow & { state: string }> {
  const { database, clock, jobs } = dependencies;
  const command = await awaitCommand<Event>(dependencies, commandId, onEvent);
  if (command.outcome !== 'done' || !executor) return { ...command, state: command.action === 'unit_stop' ? 'inactive' : 'active' };
  const deadline = clock.now() + GIVEN_BACK_PATIENCE_MS;
  for (;;) {
    const [now] = await findExecutorHealth(database, { ids: [executor.id] });
    const ended = now?.verdict === 'dead' || now?.verdict === 'stopped';
    const held = now?.applicationName ? (await jobs.listActive(database, [now.applicationName], 1_000)).length : 0;
    if ((ended && held === 0) || clock.now() > deadline)
      return {
        ...command,
        state: `${now?.verdict ?? 'gone'}, ${held === 0 ? 'holds no attempt any more' : `still holds ${held}: see \`reclaimd orphans\``}`,
      };
    await clock.sleep(POLL_MS);
  }
}
