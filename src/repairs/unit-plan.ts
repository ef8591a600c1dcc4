import type { SeenUnit } from '../commands/queries.ts';
import type { ExecutorHealth } from '../executors/health.ts';

export const UNIT_ACTIONS = ['unit_heal', 'unit_restart'] as const;
export type UnitAction = (typeof UNIT_ACTIONS)[number];

/** What will be asked of the daemon of a node, about a unit as that daemon saw it. */
export interface UnitPlan {
  node: string;
  unit: string;
  command: UnitAction | 'unit_stop';
  before: SeenUnit;
  after: string;
  warnings: string[];
}

export type UnitPlanned = { plan: UnitPlan } | { refusal: string };

/** Pure: what an action would do to a unit whose executors are these, or why it cannot. */
export function planUnit(action: UnitAction, node: string, seen: SeenUnit, executors: readonly ExecutorHealth[]): UnitPlanned {
  const { activeState, subState } = seen;
  if (action === 'unit_heal' && activeState !== 'failed' && activeState !== 'inactive')
    return { refusal: `it is ${activeState} (${subState}): unit_heal is for units that have failed or stopped; unit_restart restarts it` };
  const warnings = activeState === 'active' ? disturbed(executors) : [];
  return { plan: { node, unit: seen.unit, command: action, before: seen, after: 'active', warnings } };
}

/** Pure: stopping the unit of an executor that has not ended, for certain, before its attempts are given back. */
export function planStop(executor: ExecutorHealth, seen: SeenUnit, executors: readonly ExecutorHealth[]): UnitPlan {
  const { id, verdict, witnessNode } = executor;
  const others = executors.filter((other) => other.id !== id);
  const warnings = [
    ...(verdict === 'hung' ? [] : [`${id} is ${verdict}: its jobs may be running, and will run again`]),
    ...disturbed(others),
    'the unit stays stopped afterwards: unit_heal starts it again',
  ];
  return { node: witnessNode ?? '', unit: seen.unit, command: 'unit_stop', before: seen, after: 'inactive', warnings };
}

function disturbed(executors: readonly ExecutorHealth[]): string[] {
  const living = executors.filter(({ verdict }) => verdict === 'alive' || verdict === 'late' || verdict === 'hung');
  return living.length === 0
    ? []
    : [`${living.length} living ${living.length === 1 ? 'executor runs' : 'executors run'} in it, and will end with it`];
}
