import type { UnitManager } from '../actions/unit-manager.ts';
import type { Clock } from '../runtime/clock.ts';
import { isDown, type UnitHealth } from './detect.ts';
import { LOST_BY_RESET, needsReset } from './obstacle.ts';
import { runStartJob, UNWATCHED } from './settle.ts';

export const STARTED = 'started';

export interface NewStart {
  kind: 'start' | 'restart';
  /** Writes down, before it is so, which life has ended for this: down in it still, the unit is as broken as it was. */
  noteEnded(life: string | null): Promise<void>;
  /** Each step that is asked of systemd, and how it ended. */
  timed(phase: 'reset_failed' | 'start', work: () => Promise<string>): Promise<string>;
  signal?: AbortSignal | undefined;
}

/**
 * Has systemd start the unit anew. A failed unit needs no reset for that, and must not get one: systemd then forgets that it failed,
 * also where the start does not take. Only a start limit that was hit needs it.
 * @returns STARTED, UNWATCHED, or why it did not start; not yet a healthy unit.
 */
export async function startAnew(
  dependencies: { units: UnitManager; clock: Clock },
  before: UnitHealth,
  { kind, noteEnded, timed, signal }: NewStart,
): Promise<string> {
  const { units } = dependencies;
  const { unit, invocationId } = before;
  const isBroken = before.activeState === 'failed' || before.condition === 'failed';
  const run = () => timed('start', () => runStartJob(dependencies, before, units[kind], signal));
  const reset = async () => {
    // Unloaded it has no id, and what was noted of it before stands.
    if (isBroken && invocationId !== '') await noteEnded(invocationId);
    return timed('reset_failed', () => units.resetFailed(unit).then(() => 'done', String));
  };
  if (!isDown(before)) await noteEnded(invocationId);

  const resetFirst = isDown(before) && needsReset(before);
  let wasReset = resetFirst ? await reset() : 'done';
  let job = await run();
  if (job === UNWATCHED) return job;
  let after = await units.read(unit).catch(() => undefined);
  const isSame = () => after !== undefined && isDown(after) && after.invocationId === invocationId;
  // A start that failed and began no life: the limit refused it.
  if (job === 'failed' && !resetFirst && isSame() && after?.activeState === 'failed') {
    if (before.transient) return LOST_BY_RESET;
    wasReset = await reset();
    job = await run();
    if (job === UNWATCHED) return job;
    after = await units.read(unit).catch(() => undefined);
  }
  const unmet = after?.unmetConditions.map((condition) => `${condition} does not hold`).join(', ') ?? '';
  // Somebody else's job has taken its place; or that life goes on, or is called failed still: systemd itself knows what is wrong.
  const isTold = (after?.activeState === 'active' || after?.activeState === 'failed') && after.invocationId === invocationId;
  if (job === 'canceled' || isTold) await noteEnded(null);
  if (job === 'assert' && unmet !== '') return `its start was refused: ${unmet}`;
  if (job !== 'done') return `its ${kind} job ended: ${job}${wasReset === 'done' ? '' : `; its reset: ${wasReset}`}`;
  // Without an id, once systemd has unloaded it, a life that was short cannot be told from none.
  if (isSame() && invocationId !== '') return `its start was skipped${unmet === '' ? '' : `: ${unmet}`}`;
  if (after?.activeState === 'inactive' && after.result === 'exec-condition') {
    if (isBroken) await noteEnded(after.invocationId);
    return 'its start was skipped: what its ExecCondition= runs does not want it';
  }
  // Unloaded by now: whether it lived, and how it ended, only the journal tells.
  if (isBroken && invocationId !== '' && after?.activeState === 'inactive' && after.invocationId === '') await noteEnded(invocationId);
  return STARTED;
}
