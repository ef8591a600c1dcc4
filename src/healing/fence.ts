import type { UnitActed, UnitRefusal } from '../actions/unit-door.ts';
import type { UnitStatus } from '../actions/unit-manager.ts';
import { isGoingDown } from './detect.ts';
import type { HealDependencies } from './heal.ts';
import { listLeft, restart, resultOf } from './restart.ts';

const NO_CASE = 'its worker does not hang any more, or its unit is on its way down';

/**
 * Restarts the unit of a worker that hangs, within the unit's budget, and confirms that no process of that life is left: what the
 * worker held is given back on the proof of its end alone. One job of systemd's, not a stop and a start: a daemon that dies in
 * between would leave a unit down that nobody stopped.
 * @param stillHangs asked under the unit's lease, just before systemd is.
 */
export function fenceUnit(
  dependencies: HealDependencies,
  unit: string,
  stillHangs: (seen: UnitStatus) => Promise<boolean>,
  signal: AbortSignal,
): Promise<UnitActed | UnitRefusal> {
  const { door, units, detector, node } = dependencies;
  const intent = { unit, action: 'unit_restart', actor: `reclaimd@${node}`, automatic: true, reason: null } as const;
  return door.change(intent, async (begun) => {
    const before = await detector.look(unit);
    // One that is on its way down is so by somebody's wish: a restart would undo it. So it would for one that is declared to be stopped.
    if (before?.activeState !== 'active' || before.withheld !== null || isGoingDown(before) || !(await stillHangs(before)))
      return resultOf(before, 'not_needed', before?.withheld ?? NO_CASE);
    const old = await units.listProcesses(unit);
    // Asked last: a restart takes the place of a stop that waits, and whoever asked for that is told that it was canceled.
    const now = await units.read(unit);
    if (!now || isGoingDown(now) || now.invocationId !== before.invocationId) return resultOf(before, 'not_needed', NO_CASE);
    const restarted = await restart(dependencies, begun, before, signal);
    if (restarted.outcome !== 'done') return restarted;
    const left = await listLeft(dependencies, unit, old);
    if (left.length === 0) return restarted;
    return { ...restarted, outcome: 'failed', error: `it was restarted, but of its life before the processes ${left.join(', ')} are left` };
  });
}
