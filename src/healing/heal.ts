import type { UnitAction, UnitActionResult, UnitCommand } from '../actions/unit-action-queries.ts';
import type { UnitDoor } from '../actions/unit-door.ts';
import type { UnitJournal } from '../actions/unit-journal.ts';
import type { UnitManager } from '../actions/unit-manager.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Allowlist } from './allowlist.ts';
import type { HealLimits } from './budget.ts';
import { type Detector, needsHealing, type UnitHealth } from './detect.ts';
import { enrich } from './enrich.ts';
import { STAYED_UP, settle, UNWATCHED } from './settle.ts';

export interface HealEvent {
  phase: 'starting' | 'healed' | 'failed' | 'done';
  node: string;
  /** Null for `done`, which is about all of them. */
  unit: string | null;
  error?: string;
}

/** Who heals, and why. */
export interface Healer {
  actor: string;
  /** Without a person behind it: the budget applies, and only what still needs it is started. */
  automatic: boolean;
  reason: string | null;
  /** That it is done for. */
  command?: UnitCommand;
}

export type UnitHealed =
  /** `healedBy`: somebody else had it under way; their result is told. */
  | { outcome: 'healed'; unit: string; healedBy?: string }
  | { outcome: 'failed'; unit: string; error: string }
  /** It was up already, or (automatic) is no case for healing any more. */
  | { outcome: 'not_needed'; unit: string; why: string }
  | { outcome: 'refused'; unit: string; refused: 'not_allowed' | 'budget' | 'over'; why: string; againInSeconds: number };

export interface HealDependencies {
  door: UnitDoor;
  units: UnitManager;
  journal: UnitJournal;
  detector: Detector;
  clock: Clock;
  allowlist: Allowlist;
  host: string;
  node: string;
  limits: HealLimits;
  settleMs: number;
  healStopped: boolean;
}

export type HealListener = (event: HealEvent) => void;

const LANES = 8;

/** Reset-failed, start, and a watch that it stays up; one unit, under its lease, within its budget. */
export async function healUnit(
  dependencies: HealDependencies,
  asked: string,
  healer: Healer,
  emit: HealListener = () => undefined,
  signal?: AbortSignal,
): Promise<UnitHealed> {
  const { door, units, allowlist, node } = dependencies;
  // An alias stands for its unit: that one must be allowed, and is what others must not touch meanwhile.
  const unit = allowlist.allows(asked) ? ((await units.read(asked))?.unit ?? asked) : asked;
  const intent = { unit, action: 'unit_heal' as UnitAction, ...healer };
  const acted = await door.change(intent, () => heal(dependencies, unit, healer, emit, signal));
  if (acted.refused === 'busy') return healer.automatic ? { outcome: 'not_needed', unit, why: acted.message } : join(acted.id, acted.actor);
  if (acted.refused) {
    const againInSeconds = acted.refused === 'budget' ? acted.againInSeconds : 0;
    if (!healer.automatic) emit({ phase: 'failed', node, unit, error: acted.message });
    return { outcome: 'refused', unit, refused: acted.refused, why: acted.message, againInSeconds };
  }
  if (acted.outcome === 'not_needed') return { outcome: 'not_needed', unit, why: acted.error ?? 'it is up' };
  if (acted.outcome === 'done') return succeed();
  return fail(acted.error ?? 'nobody can tell');

  function succeed(healedBy?: string): UnitHealed {
    emit({ phase: 'healed', node, unit });
    return { outcome: 'healed', unit, ...(healedBy === undefined ? {} : { healedBy }) };
  }

  function fail(error: string): UnitHealed {
    emit({ phase: 'failed', node, unit, error });
    return { outcome: 'failed', unit, error };
  }

  /** A person who asks meanwhile waits for the heal under way, and hears how it went. */
  async function join(id: string, actor: string): Promise<UnitHealed> {
    emit({ phase: 'starting', node, unit });
    const row = await door.waitFor(id);
    if (row?.outcome === 'done') return succeed(actor);
    if (row?.outcome === 'not_needed') return { outcome: 'not_needed', unit, why: row.error ?? 'it is up' };
    return fail(`${actor}: ${row?.error ?? 'nobody can tell'}`);
  }
}

async function heal(
  { units, journal, detector, clock, node, settleMs, healStopped }: HealDependencies,
  unit: string,
  healer: Healer,
  emit: HealListener,
  signal: AbortSignal | undefined,
): Promise<UnitActionResult> {
  const before = await detector.look(unit);
  const { condition = null, invocationId = null, result = null } = before ?? {};
  const phases: { phase: string; ms: number; note: string }[] = [];
  const end = (outcome: UnitActionResult['outcome'], error: string | null): UnitActionResult => ({
    outcome,
    error,
    condition,
    invocation: invocationId,
    result,
    phases,
  });
  if (before?.loadState !== 'loaded') return end('failed', before ? `systemd has it as ${before.loadState}` : 'systemd knows no such unit');
  const why = reasonAgainst(before);
  if (why !== null) return end('not_needed', why);

  emit({ phase: 'starting', node, unit });
  // A unit that is inactive has nothing to reset, and systemd may say so.
  await timed('reset_failed', () => units.resetFailed(unit).then(() => 'done', String));
  const job = await timed('start', () => units.start(unit).catch(String));
  detector.invalidate();
  if (job !== 'done') return failed(`its start job ended: ${job}`);
  const verdict = await timed('settle', () => settle({ units, clock, settleMs }, unit, signal));
  detector.invalidate();
  if (verdict === STAYED_UP) return end('done', null);
  return verdict === UNWATCHED ? end('unknown', verdict) : failed(verdict);

  function reasonAgainst(seen: UnitHealth): string | null {
    if (seen.activeState !== 'failed' && seen.activeState !== 'inactive') return `it is ${seen.reason}`;
    if (healer.automatic && !needsHealing(seen, healStopped)) return seen.withheld ?? seen.reason;
    return null;
  }

  async function timed(phase: string, work: () => Promise<string>): Promise<string> {
    const startedAt = clock.now();
    const note = await work();
    phases.push({ phase, ms: Math.round(clock.now() - startedAt), note });
    return note;
  }

  async function failed(problem: string): Promise<UnitActionResult> {
    const now = await units.read(unit).catch(() => undefined);
    const words = now && (await enrich([now], { journal, clock })).get(now.unit);
    return end('failed', words ? `${problem}; last words: ${words}` : problem);
  }
}

export interface HealSummary {
  healed: string[];
  failed: { unit: string; error: string }[];
  notNeeded: { unit: string; why: string }[];
  refused: { unit: string; why: string }[];
}

/** Every unit that needs it, or the named ones; each on its own, so that one that fails keeps no other from its heal. */
export async function healAll(
  dependencies: HealDependencies,
  healer: Healer,
  emit: HealListener = () => undefined,
  named?: readonly string[],
): Promise<HealSummary> {
  const wanted = named ?? (await listBroken(dependencies));
  const results: UnitHealed[] = [];
  const queue = [...new Set(wanted)].values();
  const lane = async () => {
    for (const unit of queue) results.push(await healOrFail(dependencies, unit, healer, emit));
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  emit({ phase: 'done', node: dependencies.node, unit: null });
  return summarize(results);
}

async function healOrFail(dependencies: HealDependencies, unit: string, healer: Healer, emit: HealListener): Promise<UnitHealed> {
  try {
    return await healUnit(dependencies, unit, healer, emit);
  } catch (cause) {
    const error = cause instanceof Error ? cause.message : String(cause);
    emit({ phase: 'failed', node: dependencies.node, unit, error });
    return { outcome: 'failed', unit, error };
  }
}

/** The units that need it now. */
export async function listBroken({ detector, healStopped }: HealDependencies): Promise<string[]> {
  const { units } = await detector.detect({ fresh: true });
  return units.filter((unit) => needsHealing(unit, healStopped)).map(({ unit }) => unit);
}

function summarize(results: readonly UnitHealed[]): HealSummary {
  return {
    healed: results.filter(({ outcome }) => outcome === 'healed').map(({ unit }) => unit),
    failed: results.flatMap((result) => (result.outcome === 'failed' ? [{ unit: result.unit, error: result.error }] : [])),
    notNeeded: results.flatMap((result) => (result.outcome === 'not_needed' ? [{ unit: result.unit, why: result.why }] : [])),
    refused: results.flatMap((result) => (result.outcome === 'refused' ? [{ unit: result.unit, why: result.why }] : [])),
  };
}

/** One line for a person. */
export function summary({ healed, failed, notNeeded, refused }: HealSummary): string {
  const parts = [
    healed.length > 0 ? `healed ${healed.join(', ')}` : '',
    failed.length > 0 ? `failed ${failed.map(({ unit, error }) => `${unit} (${error})`).join(', ')}` : '',
    refused.length > 0 ? `refused ${refused.map(({ unit, why }) => `${unit} (${why})`).join(', ')}` : '',
    notNeeded.length > 0 ? `left alone ${notNeeded.map(({ unit, why }) => `${unit} (${why})`).join(', ')}` : '',
  ].filter((part) => part !== '');
  return parts.length > 0 ? parts.join('; ') : 'nothing to heal';
}
