import type { UnitActed, UnitRefusal } from './actions/unit-door.ts';
import type { CommandResult } from './commands/end.ts';
import type { CommandRow, PeopledUnit, SeenUnit } from './commands/queries.ts';
import type { UnitHealth } from './healing/detect.ts';
import { type HealDependencies, type HealEvent, healUnit, type UnitHealed } from './healing/heal.ts';
import { restartUnit, stopUnit } from './healing/restart.ts';
import type { Sql } from './postgres/database.ts';
import { findUnshownIn, type UnitExecutor } from './repairs/unit-executors.ts';

/** What a command is run with. */
export interface UnitCommandRun {
  emit(event: HealEvent): void;
  /** Asked before anything is done: false, and nothing may be. */
  hold(tx: Sql): Promise<boolean>;
  /** Who runs in a unit of this host, as of now. */
  listExecutorsIn(unit: string): Promise<UnitExecutor[]>;
  /** Of a stopped executor: whether it has ended and its attempts are back. */
  awaitGivenBack(executorId: string): Promise<CommandResult>;
}

/** What this node's daemon does with a command for one of its units: only those of its own allowlist, and only as they were shown. */
export async function runUnitCommand(
  dependencies: HealDependencies | undefined,
  { id, action, unit, actor, reason, expected, executor }: CommandRow,
  { emit, hold, listExecutorsIn, awaitGivenBack }: UnitCommandRun,
): Promise<CommandResult> {
  if (!dependencies)
    return {
      outcome: 'refused',
      error: 'there is no systemd to be asked, or RECLAIMD_UNITS names no unit there: `reclaimd doctor` on that node says which',
    };
  if (!dependencies.allowlist.allows(unit))
    return {
      outcome: 'refused',
      error: `${JSON.stringify(unit)} is not among the units of RECLAIMD_UNITS there: \`reclaimd units\` on that node shows those`,
    };
  const seen = await dependencies.detector.look(unit);
  if (seen?.unit === unit && !dependencies.allowlist.allowsUnit(seen))
    return { outcome: 'refused', error: `RECLAIMD_UNITS there excludes ${unit} by another of its names: ${seen.names.join(', ')}` };
  const now = seen && seenUnitOf(seen);
  if (action === 'look')
    return now
      ? { outcome: 'done', answer: { ...now, executors: await listExecutorsIn(now.unit) } }
      : { outcome: 'failed', error: 'systemd knows no such unit there: `reclaimd units` on that node shows those that it may touch' };
  // Whoever asked was asked for a right on the name that they gave: it must be the unit's own.
  if (now && now.unit !== unit) return { outcome: 'refused', error: `${unit} is an alias: ask for ${now.unit}` };
  const drift = expected && (driftOf(expected, now) ?? findUnshownIn(unit, expected.executors, await listExecutorsIn(unit)));
  if (drift) return { outcome: 'drifted', error: drift };
  const asked = { actor, reason, command: { id, hold } };
  if (action === 'unit_heal') return ofHeal(await healUnit(dependencies, unit, { ...asked, automatic: false }, emit));
  const changed = ofChange(await (action === 'unit_restart' ? restartUnit : stopUnit)(dependencies, unit, asked, emit));
  return changed.outcome === 'done' && executor !== null ? awaitGivenBack(executor) : changed;
}

const seenUnitOf = ({ unit, activeState, subState, result, invocationId }: UnitHealth): SeenUnit => ({
  unit,
  activeState,
  subState,
  result,
  invocation: invocationId,
});

function driftOf(expected: PeopledUnit, now: SeenUnit | undefined): string | undefined {
  if (!now) return 'systemd knows it no more';
  if (expected.activeState !== now.activeState) return `it was ${expected.activeState}, is ${now.activeState}`;
  if (expected.invocation !== now.invocation) return 'it has been started anew since';
  const { activeState, subState, result } = expected;
  if (subState !== now.subState) return `it was ${activeState} (${subState}), is ${activeState} (${now.subState})`;
  return result === now.result ? undefined : `its result was ${result}, is ${now.result}`;
}

function ofHeal(healed: UnitHealed): CommandResult {
  switch (healed.outcome) {
    case 'healed':
      return { outcome: 'done', ...(healed.healedBy === undefined ? {} : { error: `${healed.healedBy} had it under way` }) };
    case 'failed':
      return { outcome: 'failed', error: healed.error };
    case 'not_needed':
      return { outcome: 'not_needed', error: healed.why };
    case 'refused':
      return { outcome: healed.refused === 'over' ? 'expired' : 'refused', error: healed.why };
  }
}

function ofChange(acted: UnitActed | UnitRefusal): CommandResult {
  if (acted.refused === 'busy') return { outcome: 'refused', error: `${acted.message}: make a new preview when that is over` };
  if (acted.refused) return { outcome: acted.refused === 'over' ? 'expired' : 'refused', error: acted.message };
  return { outcome: acted.outcome, error: acted.error };
}
