import type { UnitManager, UnitStatus } from './actions/unit-manager.ts';
import { createAllowlist } from './healing/allowlist.ts';

const FILLING = 'reclaimd-doctor';
const LETTERS = [...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-'];

/** Names that the patterns allow, and that no unit will have: one for each pattern that leaves room for one. */
export function spareNames(patterns: readonly string[]): string[] {
  const allowlist = createAllowlist(patterns);
  return allowlist.patterns
    .filter((pattern) => /[*?[]/.test(pattern))
    .map((pattern) => pattern.replaceAll('*', FILLING).replace(/\?|\[[!^]?\]?[^\]]*\]/g, oneOf))
    .filter((name) => allowlist.allows(name));
}

function oneOf(set: string): string {
  const { allows } = createAllowlist([`${set}.service`]);
  return LETTERS.find((letter) => allows(`${letter}.service`)) ?? '';
}

/**
 * A unit that systemd can be asked to reset without anything coming of it, allowed though it must be like any other: one that is not there
 * (systemd loads a stub, asks polkit, and forgets it), or has never run; else one that rests, else one that runs and was never restarted.
 * Of those two the start limit begins to count anew. Undefined where there is none; never one that has failed (the last kind might, in between).
 */
export async function findHarmless(manager: UnitManager, patterns: readonly string[]): Promise<string | undefined> {
  const { allows, patterns: wanted } = createAllowlist(patterns);
  let best: { unit: string; harm: number } | undefined;
  for (const unit of [...spareNames(patterns), ...wanted.filter(allows)]) {
    const harm = harmOf(unit, await manager.read(unit));
    if (harm < (best?.harm ?? Number.POSITIVE_INFINITY)) best = { unit, harm };
    if (harm === 0) break;
  }
  return best?.unit;
}

function harmOf(asked: string, status: UnitStatus | undefined): number {
  if (!status) return 0;
  const { unit, activeState, result, restarts, invocationId } = status;
  // An alias: polkit would be asked about another name.
  if (unit !== asked || result !== 'success' || restarts > 0) return Number.POSITIVE_INFINITY;
  if (activeState === 'inactive') return invocationId === '' ? 1 : 2;
  return activeState === 'active' ? 3 : Number.POSITIVE_INFINITY;
}
