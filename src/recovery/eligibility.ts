import type { ExecutorHealth } from '../executors/health.ts';
import type { FleetState } from '../fleet/queries.ts';
import { applyBrake, type Brake, type BrakeLimits } from './brake.ts';

export interface Scope {
  stack: string | null;
  env: string | null;
}

export interface TimeoutBrakes extends BrakeLimits {
  startupDelaySeconds: number;
  outageGraceSeconds: number;
}

/** Why executors that look gone are left alone for now. */
export interface Restraint {
  reason: 'startup_delay' | 'outage_grace' | 'cut_off' | 'witness_lost' | 'mass_failure';
  executors: string[];
}

export interface Eligibility {
  gone: ExecutorHealth[];
  restraints: Restraint[];
}

/** A node acts on its own env only, strictly equal; on its own stack, or on executors without one. */
export function isInScope(executor: Scope, own: Scope): boolean {
  return executor.env === own.env && (executor.stack === null || executor.stack === own.stack);
}

/** Silence counts only when the executor had time for two beats since the last comeback. */
export function isInGrace(executor: Pick<ExecutorHealth, 'beatSeconds'>, fleet: FleetState, graceSeconds: number): boolean {
  return fleet.comebackSeconds !== null && fleet.comebackSeconds < Math.max(graceSeconds, 2 * executor.beatSeconds);
}

/**
 * A daemon that had its process in sight was heard of until lately. While that daemon restarts, or its host is away, only a process that
 * hangs looks dead: silence counts once the daemon has had the time to begin anew and find it.
 */
function isWitnessJustLost(executor: ExecutorHealth, { startupDelaySeconds, outageGraceSeconds }: TimeoutBrakes): boolean {
  const { witnessed, unseenSeconds } = executor;
  return !witnessed && unseenSeconds !== null && unseenSeconds < Math.max(startupDelaySeconds, outageGraceSeconds);
}

/** Of those that fell silent together some are back: whoever is not yet gets the time for two beats, too. */
function isJustReleased(
  { silentSeconds, beatSeconds }: ExecutorHealth,
  { releasedSeconds }: FleetState,
  { outageGraceSeconds }: TimeoutBrakes,
) {
  return releasedSeconds !== null && silentSeconds > releasedSeconds && releasedSeconds < Math.max(outageGraceSeconds, 2 * beatSeconds);
}

/** Whether something else than its end may explain the silence of an executor by itself. */
export function isSilenceExcused(executor: ExecutorHealth, fleet: FleetState, brakes: TimeoutBrakes): boolean {
  return (
    isInGrace(executor, fleet, brakes.outageGraceSeconds) || isWitnessJustLost(executor, brakes) || isJustReleased(executor, fleet, brakes)
  );
}

const isHeld = ({ id }: ExecutorHealth, { braked, doubtful }: Brake) => braked.has(id) || doubtful.has(id);

/** Who looks gone, while something else than an end may explain it: neither there nor gone, for incidents. */
export function findExcused(executors: readonly ExecutorHealth[], fleet: FleetState, brakes: TimeoutBrakes): Set<ExecutorHealth> {
  const brake = applyBrake(executors, brakes);
  const isExcused = (executor: ExecutorHealth) => isHeld(executor, brake) || isSilenceExcused(executor, fleet, brakes);
  return new Set(executors.filter((executor) => executor.verdict === 'missing' && isExcused(executor)));
}

/** Whether the silence of something that beats so slowly is evidence: it must have had the time for a beat since the last comeback. */
export function maySilenceCount(fleet: FleetState, brakes: TimeoutBrakes, beatSeconds: number): boolean {
  const { ownBeatFresh, daemonAgeSeconds, comebackSeconds } = fleet;
  if (!ownBeatFresh || daemonAgeSeconds < brakes.startupDelaySeconds) return false;
  return comebackSeconds === null || comebackSeconds >= Math.max(brakes.outageGraceSeconds, beatSeconds);
}

/** What makes silence worthless now, whoever it is that beats at that pace. */
export function restraintOnSilence(
  fleet: FleetState,
  brakes: TimeoutBrakes,
  executor: Pick<ExecutorHealth, 'beatSeconds'> = { beatSeconds: 0 },
): Exclude<Restraint['reason'], 'mass_failure' | 'witness_lost'> | undefined {
  if (!fleet.ownBeatFresh) return 'cut_off';
  if (fleet.daemonAgeSeconds < brakes.startupDelaySeconds) return 'startup_delay';
  return isInGrace(executor, fleet, brakes.outageGraceSeconds) ? 'outage_grace' : undefined;
}

const WHY_VOID: Record<Restraint['reason'], string> = {
  cut_off: 'no daemon of the fleet beats, so what cut it off from the database may have silenced its workers, too',
  startup_delay: 'the daemon has only just begun to look',
  outage_grace: 'the database, or every daemon, was away until lately',
  witness_lost: 'the daemon that saw its process was heard of until lately, and may find it again',
  mass_failure:
    'so many fell silent together (as far as can be told by now), or had until lately, that they have most likely one cause, and live',
};

/** Of silent executors that no sweep would take now: who, and why. */
export function explainRestraints(
  silent: readonly ExecutorHealth[],
  all: readonly ExecutorHealth[],
  fleet: FleetState,
  brakes: TimeoutBrakes,
): { executor: string; why: string }[] {
  const { restraints } = restrain(silent, fleet, brakes, applyBrake(all, brakes));
  return restraints.flatMap(({ reason, executors }) => executors.map((executor) => ({ executor, why: WHY_VOID[reason] })));
}

/** Whose attempts are orphans now: proof counts at once, silence only past every brake. */
export function findGone(executors: readonly ExecutorHealth[], fleet: FleetState, own: Scope, brakes: TimeoutBrakes): Eligibility {
  const ended = executors.filter((executor) => isInScope(executor, own) && (executor.verdict === 'dead' || executor.verdict === 'stopped'));
  const missing = executors.filter((executor) => isInScope(executor, own) && executor.verdict === 'missing');
  const { free, restraints } = restrain(missing, fleet, brakes, applyBrake(executors, brakes));
  const gone = new Set([...ended, ...free]);
  return { gone: executors.filter((executor) => gone.has(executor)), restraints };
}

/**
 * Who has hung for so long, past every brake that holds for silence: a database that was away makes everybody look hung, and a
 * process that is there is no reason to believe its silence more.
 */
export function findHung(
  executors: readonly ExecutorHealth[],
  fleet: FleetState,
  own: Scope,
  brakes: TimeoutBrakes,
  hungAfterSeconds: number,
): { hung: ExecutorHealth[]; restraints: Restraint[] } {
  const isLongHung = ({ verdict, witnessed, silentSeconds }: ExecutorHealth) =>
    verdict === 'hung' && witnessed && silentSeconds > hungAfterSeconds;
  const candidates = executors.filter((executor) => isInScope(executor, own) && isLongHung(executor));
  const asSilent = executors.map((executor) => (executor.verdict === 'hung' ? { ...executor, verdict: 'missing' as const } : executor));
  const { free, restraints } = restrain(candidates, fleet, brakes, applyBrake(asSilent, brakes));
  return { hung: free, restraints };
}

function restrain(silent: readonly ExecutorHealth[], seen: FleetState, brakes: TimeoutBrakes, brake: Brake) {
  // It held until now, and only whoever looks after the incidents has not been there yet.
  const fleet = seen.braked && brake.braked.size === 0 ? { ...seen, releasedSeconds: 0 } : seen;
  const byReason = Map.groupBy(silent, restraintOn);
  const free = byReason.get(undefined) ?? [];
  const restraints = [...byReason].flatMap(([reason, held]): Restraint[] =>
    reason === undefined ? [] : [{ reason, executors: held.map(({ id }) => id) }],
  );
  return { free, restraints };

  function restraintOn(executor: ExecutorHealth): Restraint['reason'] | undefined {
    return (
      restraintOnSilence(fleet, brakes, executor) ??
      (isWitnessJustLost(executor, brakes) ? 'witness_lost' : undefined) ??
      (isHeld(executor, brake) || isJustReleased(executor, fleet, brakes) ? 'mass_failure' : undefined)
    );
  }
}
