import type { UnitActed, UnitRefusal } from './actions/unit-door.ts';
import type { CommandRow, SeenUnit } from './commands/queries.ts';
import type { CommandResult } from './commands/server.ts';
import { type HealDependencies, type HealEvent, healUnit, type UnitHealed } from './healing/heal.ts';
import { restartUnit, stopUnit } from './healing/restart.ts';

/** What this node's daemon does with a command for one of its units: only those of its own allowlist, and only as they were shown. */
export async function runUnitCommand(
  dependencies: HealDependencies | undefined,
  { action, unit, actor, reason, expected }: CommandRow,
  emit: (event: HealEvent) => void,
): Promise<CommandResult> {
  if (!dependencies) return { outcome: 'refused', error: 'there is no systemd to be asked, or RECLAIMD_UNITS names no unit there' };
  if (!dependencies.allowlist.allows(unit))
    return { outcome: 'refused', error: `${JSON.stringify(unit)} is not among the units of RECLAIMD_UNITS there` };
  const now = await look(dependencies, unit);
  if (action === 'look') return now ? { outcome: 'done', answer: now } : { outcome: 'failed', error: 'systemd knows no such unit there' };
  const drift = driftOf(expected, now);
  if (drift !== undefined) return { outcome: 'drifted', error: drift };
  const asked = { actor, reason };
  if (action === 'unit_heal') return ofHeal(await healUnit(dependencies, unit, { ...asked, automatic: false }, emit));
  return ofChange(await (action === 'unit_restart' ? restartUnit : stopUnit)(dependencies, unit, asked, emit));
}

async function look({ detector }: HealDependencies, unit: string): Promise<SeenUnit | undefined> {
  const seen = await detector.look(unit);
  return (
    seen && { unit: seen.unit, activeState: seen.activeState, subState: seen.subState, result: seen.result, invocation: seen.invocationId }
  );
}

function driftOf(expected: CommandRow['expected'], now: SeenUnit | undefined): string | undefined {
  if (!expected) return undefined;
  if (!now) return 'systemd knows it no more';
  if (expected.activeState !== now.activeState) return `it was ${expected.activeState}, is ${now.activeState}`;
  return expected.invocation === now.invocation ? undefined : 'it has been started anew since';
}

function ofHeal(healed: UnitHealed): CommandResult {
  if (healed.outcome === 'healed') return { outcome: 'done' };
  return { outcome: healed.outcome, error: healed.outcome === 'failed' ? healed.error : healed.why };
}

function ofChange(acted: UnitActed | UnitRefusal): CommandResult {
  if (acted.refused) return { outcome: 'refused', error: acted.message };
  return { outcome: acted.outcome, error: acted.error };
}
