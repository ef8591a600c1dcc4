import type { SupervisionStore } from '../actions/supervision-store.ts';
import type { Sql } from '../postgres/database.ts';

export type LintRule =
  | 'long_expiry_no_beat'
  | 'no_retry_no_dead_letter'
  | 'beat_shorter_than_monitor'
  | 'notify_without_listener'
  | 'supervised_twice';

export interface LintFinding {
  rule: LintRule;
  /** Null: of the fleet. */
  queue: string | null;
  /** What it leads to, and what would help. */
  message: string;
}

/** pg-boss's default; what is longer was chosen. */
const LONG_EXPIRY_SECONDS = 900;
/** Ours too, where it is taken over. */
const DEFAULT_MONITOR_SECONDS = 60;

/** Settings of pg-boss's queues that make recovery slow, or lose jobs. Reads only. */
export async function lintQueues(
  sql: Sql,
  supervision: Pick<SupervisionStore, 'listQueueSettings' | 'readPace'>,
  { takenOver }: { takenOver: boolean },
): Promise<LintFinding[]> {
  const findings: LintFinding[] = [];
  const { monitorSeconds: supervisedEvery } = await supervision.readPace(sql);
  const monitorSeconds = takenOver ? DEFAULT_MONITOR_SECONDS : (supervisedEvery ?? DEFAULT_MONITOR_SECONDS);
  if (takenOver && supervisedEvery !== null)
    findings.push({
      rule: 'supervised_twice',
      queue: null,
      message:
        'RECLAIMD_PGBOSS_SUPERVISE is on, but workers supervise too, and fail live jobs after an outage: set supervise: false on them',
    });
  for (const { queue, expireSeconds, beatSeconds, retryLimit, deadLetter, notify, listeners } of await supervision.listQueueSettings(sql)) {
    const add = (rule: LintRule, message: string) => findings.push({ rule, queue, message });
    if (beatSeconds === null && expireSeconds > LONG_EXPIRY_SECONDS)
      add('long_expiry_no_beat', `without proof of a death its jobs come back after ${expireSeconds} s only: set heartbeatSeconds`);
    if (retryLimit === 0 && deadLetter === null)
      add('no_retry_no_dead_letter', 'a job whose worker dies never runs again: set retryLimit or deadLetter');
    if (beatSeconds !== null && beatSeconds < monitorSeconds)
      add(
        'beat_shorter_than_monitor',
        takenOver
          ? `a beat is lost after ${beatSeconds} s, but the daemons look for it every ${monitorSeconds} s, and that cannot be changed: raise heartbeatSeconds, or leave it at that`
          : `a beat is lost after ${beatSeconds} s, but looked for every ${monitorSeconds} s: lower monitorIntervalSeconds`,
      );
    if (notify && listeners === 0)
      add('notify_without_listener', 'it notifies, but no live worker listens: set useListenNotify on its workers');
  }
  return findings;
}
