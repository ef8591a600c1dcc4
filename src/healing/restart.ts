import type { UnitActionResult } from '../actions/unit-action-queries.ts';
import type { UnitActed, UnitRefusal } from '../actions/unit-door.ts';
import type { HealDependencies, Healer, HealListener } from './heal.ts';
import { STAYED_UP, settle, UNWATCHED } from './settle.ts';

/** A stopped unit's last processes are systemd's to kill; this is for those that are just going. */
const EMPTY_PATIENCE_MS = 5_000;
const EMPTY_POLL_MS = 50;

type Asked = Omit<Healer, 'automatic'> & Partial<Pick<Healer, 'automatic'>>;

/** Stops and starts a unit, whatever its state, and watches that it stays up. Without a person behind it the unit's budget applies. */
export function restartUnit(
  dependencies: HealDependencies,
  unit: string,
  asked: Asked,
  emit: HealListener = () => undefined,
): Promise<UnitActed | UnitRefusal> {
  const { door, units, detector, clock, node, settleMs } = dependencies;
  return door.change({ automatic: false, ...asked, unit, action: 'unit_restart' }, async () => {
    const before = await detector.look(unit);
    const end = (outcome: UnitActionResult['outcome'], error: string | null) => resultOf(before, outcome, error);
    if (before?.loadState !== 'loaded')
      return end('failed', before ? `systemd has it as ${before.loadState}` : 'systemd knows no such unit');
    emit({ phase: 'starting', node, unit });
    if (before.activeState === 'failed') await units.resetFailed(unit);
    const job = await units.restart(unit).finally(() => detector.invalidate());
    if (job !== 'done') return end('failed', `its restart job ended: ${job}`);
    const verdict = await settle({ units, clock, settleMs }, unit);
    if (verdict === STAYED_UP) return end('done', null);
    return end(verdict === UNWATCHED ? 'unknown' : 'failed', verdict);
  });
}

/** Stops a unit, and confirms that no process of it is left; a person asks for it. */
export function stopUnit(
  dependencies: HealDependencies,
  unit: string,
  asked: Asked,
  emit: HealListener = () => undefined,
): Promise<UnitActed | UnitRefusal> {
  const { door, units, detector, clock, node } = dependencies;
  return door.change({ automatic: false, ...asked, unit, action: 'unit_stop' }, async () => {
    const before = await detector.look(unit);
    emit({ phase: 'starting', node, unit });
    const job = await units.stop(unit).finally(() => detector.invalidate());
    if (job !== 'done') return resultOf(before, 'failed', `its stop job ended: ${job}`);
    const deadline = clock.now() + EMPTY_PATIENCE_MS;
    for (;;) {
      const left = await units.listProcesses(unit);
      if (left.length === 0) return resultOf(before, 'done', null);
      if (clock.now() > deadline) return resultOf(before, 'failed', `it was stopped, but its processes ${left.join(', ')} are left`);
      await clock.sleep(EMPTY_POLL_MS);
    }
  });
}

function resultOf(
  before: Awaited<ReturnType<HealDependencies['detector']['look']>>,
  outcome: UnitActionResult['outcome'],
  error: string | null,
): UnitActionResult {
  const { condition = null, invocationId = null, result = null } = before ?? {};
  return { outcome, error, condition, invocation: invocationId, result, phases: [] };
}
