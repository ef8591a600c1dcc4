import { createHash } from 'node:crypto';
import { schedule } from 'node-cron';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';

export interface ScheduleDependencies {
  config: { retentionSchedule: string; retentionZone: string | undefined; node: string };
  clock: Clock;
  log: Logger;
  onDue(): void;
}

/** Nodes of one schedule come one after another; the first runs. */
const SPREAD_MS = 5 * 60_000;

/** Says when a run is due, by the wall clock; each node a while of its own after the time, always the same. */
export function scheduleRetention({ config, clock, log, onDue }: ScheduleDependencies) {
  const stopping = new AbortController();
  const delayMs = createHash('sha256').update(config.node).digest().readUInt32BE(0) % SPREAD_MS;
  let dueSince: number | undefined;
  const announce = async () => {
    await clock.sleep(delayMs, stopping.signal);
    if (stopping.signal.aborted) return;
    dueSince = clock.now();
    onDue();
  };
  let task: ReturnType<typeof schedule> | undefined;
  const start = () => {
    task = schedule(config.retentionSchedule, announce, config.retentionZone === undefined ? {} : { timezone: config.retentionZone });
  };
  return {
    /** From now on it keeps the process alive, until `stop`. */
    start,
    /** For how many seconds a run has been due; undefined: none is. It stays due until `settle`. */
    dueForSeconds: (): number | undefined => (dueSince === undefined ? undefined : (clock.now() - dueSince) / 1000),
    /** The run is over, here or elsewhere. */
    settle: (): void => {
      dueSince = undefined;
    },
    stop: (): void => {
      stopping.abort();
      Promise.resolve(task?.destroy()).catch((error: unknown) => log.debug({ error: String(error) }, 'the schedule could not be ended'));
    },
  };
}
