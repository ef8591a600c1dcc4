import type { UnitStatus } from '../actions/unit-manager.ts';

type Life = Pick<UnitStatus, 'unit' | 'activeState' | 'invocationId'> & {
  /** The path of what systemd is at with the unit. */
  job: string | null;
};

/** Jobs whose end was missed are not kept for ever. */
const KEPT_TYPES = 256;
const UP = ['active', 'activating', 'reloading', 'deactivating'];

/**
 * Which lives of units a job was seen to stop: for what the journal cannot tell. A start or a restart makes a new life, so a job that
 * ended well before a unit was seen down in the very life in which it had been up was a stop, unless it is known to be something else.
 */
export function createSeenStops() {
  /** By unit, the life in which it was seen up last. */
  const up = new Map<string, string>();
  /** By unit, the life in which it was when its last job ended well. */
  const jobEnded = new Map<string, string>();
  const stopped = new Map<string, string>();
  /** By job: a short one is over before systemd can be asked. */
  const types = new Map<string, string>();

  function noteJobType(job: string, type: string): void {
    types.set(job, type);
    if (types.size > KEPT_TYPES) types.delete(types.keys().next().value as string);
  }

  return {
    noteJobType,
    noteJobEnd: (job: string, unit: string, result: string): void => {
      const type = types.get(job) ?? 'stop';
      types.delete(job);
      const life = up.get(unit);
      if (life !== undefined && result === 'done' && type === 'stop') jobEnded.set(unit, life);
    },
    /** @returns whether a job was seen to stop that life. */
    noteState: ({ unit, activeState, invocationId, job }: Life): boolean => {
      const isDown = activeState === 'failed' || activeState === 'inactive';
      if (isDown && jobEnded.get(unit) === invocationId) stopped.set(unit, invocationId);
      if (stopped.get(unit) !== invocationId) stopped.delete(unit);
      // The job of a unit on its way up is its start: where that cannot be told from a stop, so can no stop be.
      const isUntold = activeState === 'activating' && job !== null && !types.has(job);
      if (UP.includes(activeState) && !isUntold) up.set(unit, invocationId);
      if (isDown || activeState === 'active') jobEnded.delete(unit);
      // A job of a unit that is down already stops nothing.
      if (isDown) up.delete(unit);
      return stopped.has(unit);
    },
    forget: (unit: string): void => {
      for (const lives of [up, jobEnded, stopped]) lives.delete(unit);
    },
    clear: (): void => {
      for (const seen of [up, jobEnded, stopped, types]) seen.clear();
    },
  };
}
