import type { UnitStatus } from '../actions/unit-manager.ts';
import type { UnitJudgement } from './condition.ts';

type Read = (unit: string) => Promise<UnitStatus | undefined>;

const RUNS = ['active', 'activating', 'reloading', 'deactivating', 'refreshing'];

type Down = Pick<UnitStatus, 'startLimitAction' | 'transient'> & Pick<UnitJudgement, 'condition'>;

/** Whether the unit, which is down, takes a reset to start. A limit that reboots the host when it is hit must not be tried. */
export const needsReset = ({ condition, startLimitAction }: Down) =>
  condition === 'start_limit_hit' || !['', 'none'].includes(startLimitAction);

export const LOST_BY_RESET = 'its start limit takes a reset, and systemd would forget it with that: it is transient. Run it anew';

/**
 * Why a unit may not be started by itself: nothing else is started or stopped for it, though systemd would.
 * @returns undefined where nothing is in its way.
 */
export async function findObstacle(
  status: Down & Pick<UnitStatus, 'conflicts' | 'requisite' | 'requires'>,
  read: Read,
): Promise<string | undefined> {
  if (status.transient && needsReset(status)) return LOST_BY_RESET;
  const isUp = async (unit: string) => RUNS.includes((await read(unit))?.activeState ?? '');
  const [rivals, needed] = await Promise.all([Promise.all(status.conflicts.map(isUp)), Promise.all(status.requisite.map(isUp))]);
  const rival = status.conflicts[rivals.indexOf(true)];
  if (rival !== undefined) return `it conflicts with ${rival}, which runs`;
  const missing = status.requisite[needed.indexOf(false)];
  if (missing !== undefined) return `it may run only beside ${missing}, which is down`;
  const states = await Promise.all(status.requires.map(async (unit) => (await read(unit))?.activeState ?? ''));
  const lacking = status.requires.find((unit, index) => isLacking(unit, states[index] ?? ''));
  return lacking === undefined ? undefined : `it requires ${lacking}, which is down`;
}

/** A service that has done its work is inactive, and required all the same; a file system that is not there is never. */
const isLacking = (unit: string, activeState: string) =>
  activeState === 'failed' || (/\.(mount|device)$/.test(unit) && !RUNS.includes(activeState));
