import type { UnitActionResult } from '../actions/unit-action-queries.ts';
import type { BegunAction, UnitActed, UnitRefusal } from '../actions/unit-door.ts';
import { describeLoad } from './condition.ts';
import type { UnitHealth } from './detect.ts';
import type { HealDependencies, Healer, HealListener } from './heal.ts';
import { STAYED_UP, settle, UNWATCHED } from './settle.ts';
import { STARTED, startAnew } from './start-anew.ts';

/** A stopped unit's last processes are systemd's to kill; this is for those that are just going. */
const EMPTY_PATIENCE_MS = 5_000;
const EMPTY_POLL_MS = 50;

type Asked = Omit<Healer, 'automatic'>;

/** Stops and starts a unit, whatever its state, and watches that it stays up; a person asks for it. */
export function restartUnit(
  dependencies: HealDependencies,
  unit: string,
  asked: Asked,
  emit: HealListener = () => undefined,
): Promise<UnitActed | UnitRefusal> {
  const { door, detector, node } = dependencies;
  return door.change({ automatic: false, ...asked, unit, action: 'unit_restart' }, async (begun) => {
    const before = await detector.look(unit);
    if (before?.loadState !== 'loaded')
      return resultOf(before, 'failed', before ? describeLoad(before.loadState) : 'systemd knows no such unit');
    emit({ phase: 'starting', node, unit });
    return restart(dependencies, begun, before);
  });
}

export async function restart(
  { units, detector, clock, settleMs }: HealDependencies,
  { noteEnded }: BegunAction,
  before: UnitHealth,
  signal?: AbortSignal,
): Promise<UnitActionResult> {
  const { unit, obstacle } = before;
  if (obstacle !== undefined) return resultOf(before, 'failed', obstacle);
  const start = await startAnew({ units, clock }, before, { kind: 'restart', noteEnded, timed: (_, work) => work(), signal }).finally(() =>
    detector.noteChange(unit),
  );
  if (start !== STARTED) return resultOf(before, start === UNWATCHED ? 'unknown' : 'failed', start);
  const verdict = await settle({ units, clock, settleMs }, unit, signal);
  if (verdict === STAYED_UP) return resultOf(before, 'done', null);
  return resultOf(before, verdict === UNWATCHED ? 'unknown' : 'failed', verdict);
}

/** Stops a unit, and confirms that no process of it is left; a person asks for it. */
export function stopUnit(
  dependencies: HealDependencies,
  unit: string,
  asked: Asked,
  emit: HealListener = () => undefined,
): Promise<UnitActed | UnitRefusal> {
  const { door, units, detector, node } = dependencies;
  return door.change({ automatic: false, ...asked, unit, action: 'unit_stop' }, async () => {
    const before = await detector.look(unit);
    emit({ phase: 'starting', node, unit });
    const job = await units.stop(unit).finally(() => detector.noteChange(unit));
    if (job !== 'done') return resultOf(before, 'failed', `its stop job ended: ${job}`);
    const left = await listLeft(dependencies, unit);
    return left.length === 0
      ? resultOf(before, 'done', null)
      : resultOf(before, 'failed', `it was stopped, but its processes ${left.join(', ')} are left`);
  });
}

/** The processes that the unit still has after a moment's patience; of the named ones, where some are named. */
export async function listLeft({ units, clock }: HealDependencies, unit: string, of?: readonly number[]): Promise<number[]> {
  const deadline = clock.now() + EMPTY_PATIENCE_MS;
  for (;;) {
    const left = (await units.listProcesses(unit)).filter((pid) => of === undefined || of.includes(pid));
    if (left.length === 0 || clock.now() > deadline) return left;
    await clock.sleep(EMPTY_POLL_MS);
  }
}

export function resultOf(before: UnitHealth | undefined, outcome: UnitActionResult['outcome'], error: string | null): UnitActionResult {
  const { condition = null, invocationId = null, result = null } = before ?? {};
  return { outcome, error, condition, invocation: invocationId, result, phases: [] };
}
