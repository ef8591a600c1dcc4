import type { Daemon } from '../daemon.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Notifier } from '../systemd/notify.ts';

/** A daemon that cannot do its work yet (no database, no pg-boss) is up all the same, and says what it lacks. */
const READY_LIMIT_MS = 20_000;
const STATUS_INTERVAL_MS = 10_000;

/**
 * Tells the service manager that we are ready, and from then on, until `signal`, that the loops turn. When one does not it is
 * told nothing more, and restarts us.
 */
export async function report(
  notifier: Notifier,
  daemon: Pick<Daemon, 'firstPass' | 'isAlive' | 'describe'>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const over = new AbortController();
  const limit = clock.sleep(READY_LIMIT_MS, AbortSignal.any([over.signal, signal]));
  await Promise.race([daemon.firstPass, limit]);
  over.abort();
  if (signal.aborted) return;
  await notifier.ready(daemon.describe());
  const intervalMs = Math.min(STATUS_INTERVAL_MS, (notifier.watchdogMs ?? Number.POSITIVE_INFINITY) / 3);
  while (!signal.aborted) {
    if (daemon.isAlive()) await notifier.alive(daemon.describe());
    await clock.sleep(intervalMs, signal);
  }
}
