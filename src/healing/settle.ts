import type { JobResult, UnitManager, UnitStatus } from '../actions/unit-manager.ts';
import { orAborted } from '../runtime/abort.ts';
import type { Clock } from '../runtime/clock.ts';
import { describeEnd } from './condition.ts';

export const STAYED_UP = 'stayed up';
export const UNWATCHED = 'it was started, but nobody could watch whether it stays up';

const POLL_MS = 200;
/** For a unit on its way, and for a bus that is away meanwhile: as long as a job may take. */
const ARRIVAL_PATIENCE_MS = 120_000;

/**
 * Has systemd run a job that starts the unit anew. A bus that goes away takes the job's result with it, not the job: then the unit
 * tells, once it can be asked again.
 * @returns the job's result, UNWATCHED where nobody can tell or the signal came, or what kept systemd from being asked.
 */
export async function runStartJob(
  dependencies: { units: UnitManager; clock: Clock },
  before: Pick<UnitStatus, 'unit' | 'invocationId'>,
  job: (unit: string) => Promise<JobResult>,
  signal?: AbortSignal,
): Promise<string> {
  try {
    return (await orAborted(job(before.unit), signal)) ?? UNWATCHED;
  } catch (error) {
    const after = await awaitArrival(dependencies, before.unit, signal);
    if (after === undefined) return `${error}; systemd knows it no more`;
    if (after === null) return UNWATCHED;
    if (isUp(after) && after.invocationId !== before.invocationId) return 'done';
    // With the error's name: `doctor` tells a denial by it.
    return String(error);
  }
}

/** The unit once it can be looked at and is not on its way any more; undefined where systemd knows it no more, null where it could not be looked at in time. */
async function awaitArrival(
  { units, clock }: { units: UnitManager; clock: Clock },
  unit: string,
  signal: AbortSignal | undefined,
): Promise<UnitStatus | undefined | null> {
  const deadline = clock.now() + ARRIVAL_PATIENCE_MS;
  for (;;) {
    const status = await orAborted(
      units.read(unit).catch(() => null),
      signal,
    );
    if (signal?.aborted) return null;
    const isMoving = status === null || status?.activeState === 'activating' || status?.activeState === 'deactivating';
    if (!isMoving || clock.now() > deadline) return status;
    await clock.sleep(POLL_MS, signal);
  }
}

/** Watches a unit that was just started. @returns STAYED_UP after the whole time, UNWATCHED, or what went wrong. */
export async function settle(
  { units, clock, settleMs }: { units: UnitManager; clock: Clock; settleMs: number },
  unit: string,
  signal?: AbortSignal,
): Promise<string> {
  const startedAt = clock.now();
  for (;;) {
    // A bus that is away for a moment says nothing about the unit; the last look counts.
    const status = await orAborted(
      units.read(unit).catch(() => null),
      signal,
    );
    if (signal?.aborted) return UNWATCHED;
    const elapsedMs = clock.now() - startedAt;
    const problem = status === null ? undefined : problemOf(status);
    if (problem !== undefined) return `${problem}, ${(elapsedMs / 1000).toFixed(1)} s after its start`;
    if (elapsedMs >= settleMs) return status === null ? UNWATCHED : STAYED_UP;
    await clock.sleep(Math.min(POLL_MS, Math.max(1, settleMs - elapsedMs)), signal);
  }
}

/** Why a unit that was just started is not up; systemd counts its own restarts from that start. */
function problemOf(status: UnitStatus | undefined): string | undefined {
  if (!status) return 'systemd knows it no more';
  if (!isUp(status)) return `it was ${status.activeState} (${status.subState}; ${describeEnd(status)})`;
  return status.restarts > 0 ? 'it ended, and systemd restarted it' : undefined;
}

const isUp = ({ activeState }: UnitStatus) => activeState === 'active' || activeState === 'reloading';
