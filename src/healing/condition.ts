import type { UnitStatus } from '../actions/unit-manager.ts';

/** What is wrong with a unit. */
export type Condition = 'failed' | 'start_limit_hit' | 'stopped';

/** What is known about who ended the unit's last life: somebody asked for it, nobody did, or nothing can tell. */
export type StopRequest = 'requested' | 'not_requested' | 'unknown';

export interface UnitIntent {
  /** Declared to be up, enabled or not. */
  desired: boolean;
  /** Declared to be down: whatever it does is as it should be. */
  declaredStopped: boolean;
  stop: StopRequest;
}

export interface UnitJudgement {
  condition: Condition | null;
  /** What to say of it, in a few words. */
  reason: string;
  /** Why it is left to a person all the same; null where it may be started. */
  withheld: string | null;
}

const ENABLED = ['enabled', 'enabled-runtime'];
const DRIVEN = /\.(timer|path)$/;
/** 128 + SIGINT, 128 + SIGTERM: how a program that handles the signal by itself ends when it is stopped. */
const STATUS_OF_STOPPED = [130, 143];

/**
 * What a unit's state means. A stop that somebody asked for is respected however the unit ended: many programs answer SIGTERM
 * with a status that systemd takes for a failure.
 */
export function judgeUnit(status: UnitStatus, intent: UnitIntent): UnitJudgement {
  if (status.loadState !== 'loaded') return fine(`not loaded: ${status.loadState}`);
  if (intent.declaredStopped) return fine('declared to be stopped');
  if (status.activeState === 'failed') return judgeFailed(status, intent.stop);
  if (status.activeState === 'inactive') return judgeInactive(status, intent);
  return fine(status.activeState === status.subState ? status.activeState : `${status.activeState} (${status.subState})`);
}

function judgeFailed(status: UnitStatus, stop: StopRequest): UnitJudgement {
  if (stop === 'requested') return fine(`stopped on request, and ended badly: ${describeEnd(status)}`);
  const condition = isStartLimitHit(status) ? 'start_limit_hit' : 'failed';
  return { condition, reason: describeEnd(status), withheld: withheldOf(status, stop) };
}

function withheldOf(status: UnitStatus, stop: StopRequest): string | null {
  if (isDriven(status)) return `started by ${status.triggeredBy.join(', ')}: it runs when that says so`;
  if (stop === 'unknown' && endedAsStopped(status))
    return 'it ended as a stopped program does, and the journal cannot tell whether somebody asked';
  return null;
}

function judgeInactive(status: UnitStatus, { desired, stop }: UnitIntent): UnitJudgement {
  if (isDriven(status) || status.triggeredBy.length > 0) return fine('inactive: something else starts it');
  if (!desired && !isEnabled(status.unitFileState)) return fine('inactive, and neither enabled nor desired');
  if (stop === 'requested') return fine('stopped on request');
  const everRan = status.invocationId !== '' && status.inactiveEnteredAt > 0;
  if (!everRan)
    return desired
      ? { condition: 'stopped', reason: 'desired, but has not run since boot', withheld: null }
      : fine('enabled, but has not run since boot: nobody started it, or its start was skipped');
  if (stop === 'unknown') return fine('stopped; the journal cannot tell by whom');
  return { condition: 'stopped', reason: `ended by itself: ${describeEnd(status)}`, withheld: null };
}

export const isEnabled = (unitFileState: string) => ENABLED.includes(unitFileState);

const fine = (reason: string): UnitJudgement => ({ condition: null, reason, withheld: null });

const isDriven = (status: UnitStatus) => status.triggeredBy.some((trigger) => DRIVEN.test(trigger));

function endedAsStopped({ result, exitCode, exitStatus }: UnitStatus): boolean {
  return result === 'timeout' || (exitCode === 'exited' && STATUS_OF_STOPPED.includes(exitStatus));
}

const isStartLimitHit = ({ result }: UnitStatus) => result === 'start-limit-hit';

/** `exit-code, exited with status 1, 3 restarts`: what systemd knows of the end of a life. */
export function describeEnd({ result, exitCode, exitStatus, restarts }: UnitStatus): string {
  const parts = [result];
  if (exitCode === 'exited') parts.push(`exited with status ${exitStatus}`);
  else if (exitCode === 'killed' || exitCode === 'dumped') parts.push(`${exitCode} by signal ${exitStatus}`);
  if (restarts > 0) parts.push(`${restarts} ${restarts === 1 ? 'restart' : 'restarts'}`);
  return parts.join(', ');
}
