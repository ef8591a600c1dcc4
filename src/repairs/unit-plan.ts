import type { SeenUnit } from '../commands/queries.ts';
import type { ExecutorHealth } from '../executors/health.ts';
import { namesOf, type UnitExecutor } from './unit-executors.ts';

export const UNIT_ACTIONS = ['unit_heal', 'unit_restart'] as const;
export type UnitAction = (typeof UNIT_ACTIONS)[number];

/** What will be asked of the daemon of a node, about a unit as that daemon saw it. */
export interface UnitPlan {
  node: string;
  unit: string;
  command: UnitAction | 'unit_stop';
  before: SeenUnit;
  /** Who runs in it, and ends with it. */
  executors: readonly UnitExecutor[];
  after: string;
  warnings: string[];
}

export type UnitPlanned = { plan: UnitPlan } | { refusal: string };

/** Pure: what an action would do to a unit in which these executors run, or why it cannot. */
export function planUnit(action: UnitAction, node: string, seen: SeenUnit, executors: readonly UnitExecutor[]): UnitPlanned {
  const { activeState, subState } = seen;
  if (action === 'unit_heal' && mayRun(seen))
    return { refusal: `it is ${activeState} (${subState}): unit_heal is for units that have failed or stopped; unit_restart restarts it` };
  const warnings = mayRun(seen) ? disturbed(executors) : [];
  return { plan: { node, unit: seen.unit, command: action, before: seen, executors, after: 'active', warnings } };
}

/** Pure: stopping the unit of an executor that has not ended, for certain, before its attempts are given back. */
export function planStop(executor: ExecutorHealth, seen: SeenUnit, executors: readonly UnitExecutor[]): UnitPlan {
  const { id, verdict, witnessNode } = executor;
  const warnings = [
    ...(verdict === 'hung' ? [] : [`${id} is ${verdict}: its jobs may be running, and will run again`]),
    ...disturbed(executors.filter((other) => other.id !== id)),
    'the unit stays stopped afterwards: unit_heal starts it again',
  ];
  return { node: witnessNode ?? '', unit: seen.unit, command: 'unit_stop', before: seen, executors, after: 'inactive', warnings };
}

/** A unit that starts, reloads or stops has processes, too. */
const mayRun = ({ activeState }: SeenUnit) => activeState !== 'failed' && activeState !== 'inactive';

function disturbed(executors: readonly UnitExecutor[]): string[] {
  const living = executors.filter(({ lives }) => lives);
  return living.length === 0
    ? []
    : [
        `${living.length} living ${living.length === 1 ? 'executor runs' : 'executors run'} in it, and will end with it: ${namesOf(living)}`,
      ];
}
