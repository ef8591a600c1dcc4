import type { LifeEnd } from '../actions/unit-journal.ts';
import type { UnitStatus } from '../actions/unit-manager.ts';

/** What is wrong with a unit. */
export type Condition = 'failed' | 'start_limit_hit' | 'stopped';

export interface UnitIntent {
  /** Declared to be up, enabled or not. */
  desired: boolean;
  /** Declared to be down: whatever it does is as it should be. */
  declaredStopped: boolean;
  /** Why its last life ended. */
  end: LifeEnd;
  /** It was taken down, or reset, for a start that did not take. */
  leftDown: boolean;
}

export interface UnitJudgement {
  condition: Condition | null;
  /** What to say of it, in a few words. */
  reason: string;
  /** Why it is left to a person, broken or not; null where it may be started, or restarted. */
  withheld: string | null;
}

const OUTSIDE = 'what kept it from starting lies outside of it';
const UNTOLD_YET = 'the journal has not told yet whether somebody asked for its end';
const ENABLED = ['enabled', 'enabled-runtime'];
const DRIVEN = /\.(timer|path)$/;
/** 128 + SIGINT, 128 + SIGTERM: how a program that handles the signal by itself ends when it is stopped. */
const STATUS_OF_STOPPED = [130, 143];

/**
 * What a unit's state means. A stop that somebody asked for is respected however the unit ended: many programs answer SIGTERM
 * with a status that systemd takes for a failure.
 */
export function judgeUnit(status: UnitStatus, intent: UnitIntent): UnitJudgement {
  if (intent.declaredStopped) return { condition: null, reason: 'declared to be stopped', withheld: 'RECLAIMD_UNITS_STOPPED names it' };
  if (status.loadState !== 'loaded') return judgeUnloadable(status, intent.end);
  if (status.activeState === 'failed') return judgeFailed(status, intent.end);
  if (status.activeState === 'inactive') return judgeInactive(status, intent);
  return fine(status.activeState === status.subState ? status.activeState : `${status.activeState} (${status.subState})`);
}

/** Masked it is on purpose; a file that is broken, or gone while the unit runs or has failed, is nobody's wish, and no start mends it. */
function judgeUnloadable(status: UnitStatus, end: LifeEnd): UnitJudgement {
  const { loadState, activeState } = status;
  const withheld = describeLoad(loadState);
  if (activeState !== 'failed') return { ...fine(`${activeState}; ${withheld}`), withheld };
  return loadState === 'masked' ? fine(withheld) : { ...judgeFailed(status, end), withheld };
}

/** Why a unit is not to be started, in words. */
export function describeLoad(loadState: string): string {
  if (loadState === 'not-found') return 'its unit file is gone';
  return loadState === 'masked' ? 'it is masked' : `its unit file cannot be loaded: ${loadState}`;
}

function judgeFailed(status: UnitStatus, end: LifeEnd): UnitJudgement {
  // No stop ends so: it is a start that was refused, whatever had stopped the life before.
  const startRefused = status.result === 'start-limit-hit';
  if (end.stopRequested && !startRefused) return fine(`stopped on request, and ended badly: ${describeEnd(status)}`);
  const condition = isStartLimitHit(status, end) ? 'start_limit_hit' : 'failed';
  return { condition, reason: describeEnd(status), withheld: withheldOf(status, end) };
}

function withheldOf(status: UnitStatus, { stopRequested, overdue }: LifeEnd): string | null {
  if (isDriven(status)) return `started by ${status.triggeredBy.join(', ')}: it runs when that says so`;
  if (overdue && status.result !== 'start-limit-hit') return UNTOLD_YET;
  if (stopRequested === undefined && endedAsStopped(status))
    return 'it ended as a stopped program does, and the journal cannot tell whether somebody asked';
  return null;
}

function judgeInactive(status: UnitStatus, { desired, end, leftDown }: UnitIntent): UnitJudgement {
  // systemd has forgotten that it failed, or that it ran; nobody wanted it down.
  if (leftDown && !end.stopRequested && !isDriven(status))
    return { condition: 'failed', reason: 'was to be started anew, but did not start', withheld: end.overdue ? UNTOLD_YET : null };
  if (isDriven(status) || status.triggeredBy.length > 0) return fine('inactive: something else starts it');
  if (!desired && !isEnabled(status.unitFileState)) return fine('inactive, and neither enabled nor desired');
  if (end.stopRequested) return fine('stopped on request');
  if (end.startFailed !== undefined) return { condition: 'stopped', reason: `did not come up: ${end.startFailed}`, withheld: OUTSIDE };
  if (end.stopRequested === false) return { condition: 'stopped', reason: `ended by itself: ${describeEnd(status)}`, withheld: null };
  const untold = 'nothing can tell whether somebody stopped it, or whether it ran at all since boot';
  return desired
    ? { condition: 'stopped', reason: 'desired, but does not run', withheld: untold }
    : fine(`enabled, but does not run: ${untold}`);
}

export const isEnabled = (unitFileState: string) => ENABLED.includes(unitFileState);

const fine = (reason: string): UnitJudgement => ({ condition: null, reason, withheld: null });

const isDriven = (status: UnitStatus) => status.triggeredBy.some((trigger) => DRIVEN.test(trigger));

function endedAsStopped({ result, exitCode, exitStatus }: UnitStatus): boolean {
  if (result === 'start-limit-hit') return false;
  return result === 'timeout' || (exitCode === 'exited' && STATUS_OF_STOPPED.includes(exitStatus));
}

/**
 * systemd keeps the result of the last crash where its start limit ends a series of restarts. Where the journal cannot tell, a
 * unit that was restarted and then was not any more has most likely met the limit.
 */
function isStartLimitHit({ result, restarts }: UnitStatus, { startLimitHit }: LifeEnd): boolean {
  return result === 'start-limit-hit' || (startLimitHit ?? restarts > 0);
}

/** `exit-code, exited with status 1, 3 restarts`: what systemd knows of the end of a life. */
export function describeEnd({ result, exitCode, exitStatus, restarts }: UnitStatus): string {
  const parts = [result];
  if (exitCode === 'exited') parts.push(`exited with status ${exitStatus}`);
  else if (exitCode === 'killed' || exitCode === 'dumped') parts.push(`${exitCode} by signal ${exitStatus}`);
  if (restarts > 0) parts.push(`${restarts} ${restarts === 1 ? 'restart' : 'restarts'}`);
  return parts.join(', ');
}
