import type { UnitAction, UnitActionResult, UnitCommand } from '../actions/unit-action-queries.ts';
import type { BegunAction, UnitDoor } from '../actions/unit-door.ts';
import type { UnitJournal } from '../actions/unit-journal.ts';
import type { UnitManager } from '../actions/unit-manager.ts';
import { orAborted } from '../runtime/abort.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Allowlist } from './allowlist.ts';
import type { HealLimits } from './budget.ts';
import { describeLoad } from './condition.ts';
import { type Detector, isGoingDown, needsHealing, type UnitHealth } from './detect.ts';
import { enrich } from './enrich.ts';
import { STAYED_UP, settle, UNWATCHED } from './settle.ts';
import { STARTED, startAnew } from './start-anew.ts';

export interface HealEvent {
  phase: 'starting' | 'healed' | 'failed' | 'left_alone' | 'done';
  node: string;
  /** Null for what is about all of them. */
  unit: string | null;
  error?: string;
  /** Of a unit that is left alone. */
  why?: string;
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
  /** `error` says what was seen of the unit, never what it wrote. */
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

/**
 * A start, and a watch that it stays up; one unit, under its lease, within its budget. With the signal nobody watches any
 * more, and what was begun goes on.
 */
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
  const acted = await door.change(intent, (begun) => heal(dependencies, begun, unit, healer, emit, signal));
  if (acted.refused === 'busy')
    return healer.automatic ? { outcome: 'not_needed', unit, why: acted.message } : join(acted.id, acted.actor, acted.action);
  if (acted.refused) {
    const againInSeconds = acted.refused === 'budget' ? acted.againInSeconds : 0;
    if (!healer.automatic) emit({ phase: 'failed', node, unit, error: acted.message });
    return { outcome: 'refused', unit, refused: acted.refused, why: acted.message, againInSeconds };
  }
  if (acted.outcome === 'not_needed') return leaveAlone(acted.error ?? 'it is up');
  if (acted.outcome === 'done') return succeed();
  return fail(acted.error ?? 'nobody can tell');

  function leaveAlone(why: string): UnitHealed {
    if (!healer.automatic) emit({ phase: 'left_alone', node, unit, why });
    return { outcome: 'not_needed', unit, why };
  }

  function succeed(healedBy?: string): UnitHealed {
    emit({ phase: 'healed', node, unit });
    return { outcome: 'healed', unit, ...(healedBy === undefined ? {} : { healedBy }) };
  }

  /** A program's last words are for the person who asks: what is recorded and logged has none of them. */
  async function fail(error: string): Promise<UnitHealed> {
    const words = healer.automatic ? undefined : await readWords();
    emit({ phase: 'failed', node, unit, error: words === undefined ? error : `${error}; last words: ${words}` });
    return { outcome: 'failed', unit, error };
  }

  async function readWords(): Promise<string | undefined> {
    const now = await units.read(unit).catch(() => undefined);
    return now && (await enrich([now], { journal: dependencies.journal, clock: dependencies.clock })).get(now.unit);
  }

  /** A person who asks meanwhile waits for what is under way, and hears how it went: a stop that went well is no heal. */
  async function join(id: string, actor: string, action: UnitAction): Promise<UnitHealed> {
    emit({ phase: 'starting', node, unit });
    const row = await orAborted(door.waitFor(id), signal);
    if (signal?.aborted) return fail(`${actor} is at it, and goes on`);
    if (action === 'unit_stop') return fail(`${actor} was about to stop it: heal it again, if it should run all the same`);
    if (row?.outcome === 'done') return succeed(actor);
    if (row?.outcome === 'not_needed') return leaveAlone(row.error ?? 'it is up');
    return fail(`${actor}: ${row?.error ?? 'nobody can tell'}`);
  }
}

async function heal(
  { units, detector, clock, node, settleMs, healStopped }: HealDependencies,
  { noteEnded }: BegunAction,
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
  if (before?.loadState !== 'loaded') return end('failed', before ? describeLoad(before.loadState) : 'systemd knows no such unit');
  const why = reasonAgainst(before);
  if (why !== null) return end('not_needed', why);
  if (before.obstacle !== undefined) return end('failed', before.obstacle);

  emit({ phase: 'starting', node, unit });
  const start = await startAnew({ units, clock }, before, { kind: 'start', noteEnded, timed, signal }).finally(() =>
    detector.noteChange(unit),
  );
  if (start !== STARTED) return end(start === UNWATCHED ? 'unknown' : 'failed', start);
  const verdict = await timed('settle', () => settle({ units, clock, settleMs }, unit, signal));
  detector.noteChange(unit);
  if (verdict === STAYED_UP) return end('done', null);
  return end(verdict === UNWATCHED ? 'unknown' : 'failed', verdict);

  function reasonAgainst(seen: UnitHealth): string | null {
    if (seen.activeState !== 'failed' && seen.activeState !== 'inactive') return `it is ${seen.reason}`;
    if (healer.automatic && isGoingDown(seen)) return 'it is on its way down';
    if (healer.automatic && !needsHealing(seen, healStopped)) return seen.withheld ?? seen.reason;
    return null;
  }

  async function timed(phase: string, work: () => Promise<string>): Promise<string> {
    const startedAt = clock.now();
    const note = await work();
    phases.push({ phase, ms: Math.round(clock.now() - startedAt), note });
    return note;
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
  signal?: AbortSignal,
): Promise<HealSummary> {
  const wanted = named ?? (await listBroken(dependencies));
  const results: UnitHealed[] = [];
  const queue = [...new Set(wanted)].values();
  const lane = async () => {
    for (const unit of queue) results.push(await healOrFail(dependencies, unit, healer, emit, signal));
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  emit({ phase: 'done', node: dependencies.node, unit: null });
  return summarize(results);
}

async function healOrFail(
  dependencies: HealDependencies,
  unit: string,
  healer: Healer,
  emit: HealListener,
  signal: AbortSignal | undefined,
): Promise<UnitHealed> {
  try {
    signal?.throwIfAborted();
    return await healUnit(dependencies, unit, healer, emit, signal);
  } catch (cause) {
    const error = signal?.aborted ? 'it was not begun any more' : cause instanceof Error ? cause.message : String(cause);
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
