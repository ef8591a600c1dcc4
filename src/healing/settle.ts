import type { UnitManager, UnitStatus } from '../actions/unit-manager.ts';
import type { Clock } from '../runtime/clock.ts';
import { describeEnd } from './condition.ts';

export const STAYED_UP = 'stayed up';
export const UNWATCHED = 'it was started, but nobody could watch whether it stays up';

const POLL_MS = 200;

/** Watches a unit that was just started. @returns STAYED_UP after the whole time, UNWATCHED, or what went wrong. */
export async function settle(
  { units, clock, settleMs }: { units: UnitManager; clock: Clock; settleMs: number },
  unit: string,
  signal?: AbortSignal,
): Promise<string> {
  const startedAt = clock.now();
  for (;;) {
    // A bus that is away for a moment says nothing about the unit; the last look counts.
    const status = await units.read(unit).catch(() => null);
    const elapsedMs = clock.now() - startedAt;
    const problem = status === null ? undefined : problemOf(status);
    if (problem !== undefined) return `${problem}, ${(elapsedMs / 1000).toFixed(1)} s after its start`;
    if (elapsedMs >= settleMs) return status === null ? UNWATCHED : STAYED_UP;
    if (signal?.aborted) return UNWATCHED;
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
