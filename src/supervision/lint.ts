import type { SupervisionStore } from '../actions/supervision-store.ts';
import type { Sql } from '../postgres/database.ts';

export type LintRule =
  | 'long_expiry_no_beat'
  | 'no_retry_no_dead_letter'
  | 'beat_shorter_than_monitor'
  | 'notify_without_listener'
  | 'supervised_twice'
  | 'grace_shorter_than_beat';

export interface LintFinding {
  rule: LintRule;
  /** Null: of the fleet. */
  queue: string | null;
  /** What it leads to. */
  message: string;
  /** What would help. */
  mend: string;
}

/** pg-boss's default; what is longer was chosen. */
const LONG_EXPIRY_SECONDS = 900;
/** Ours too, where it is taken over. */
const DEFAULT_MONITOR_SECONDS = 60;

/** Settings of pg-boss's queues that make recovery slow, or lose jobs. Reads only. */
export async function lintQueues(
  sql: Sql,
  supervision: Pick<SupervisionStore, 'listQueueSettings' | 'readPace'>,
  { takenOver, outageGraceSeconds }: { takenOver: boolean; outageGraceSeconds: number },
): Promise<LintFinding[]> {
  const findings: LintFinding[] = [];
  const { monitorSeconds: supervisedEvery } = await supervision.readPace(sql);
  const monitorSeconds = takenOver ? DEFAULT_MONITOR_SECONDS : (supervisedEvery ?? DEFAULT_MONITOR_SECONDS);
  if (takenOver && supervisedEvery !== null)
    findings.push({
      rule: 'supervised_twice',
      queue: null,
      message: 'RECLAIMD_PGBOSS_SUPERVISE is on, but workers supervise too, and fail live jobs after an outage',
      mend: 'set supervise: false on them',
    });
  for (const { queue, expireSeconds, beatSeconds, retryLimit, deadLetter, notify, listeners } of await supervision.listQueueSettings(sql)) {
    const add = (rule: LintRule, message: string, mend: string) => findings.push({ rule, queue, message, mend });
    if (beatSeconds === null && expireSeconds > LONG_EXPIRY_SECONDS)
      add('long_expiry_no_beat', `without proof of a death its jobs come back after ${expireSeconds} s only`, 'set heartbeatSeconds');
    if (retryLimit === 0 && deadLetter === null)
      add('no_retry_no_dead_letter', 'a job whose worker dies never runs again', 'set retryLimit or deadLetter');
    if (beatSeconds !== null && beatSeconds < monitorSeconds)
      if (takenOver)
        add(
          'beat_shorter_than_monitor',
          `a beat is lost after ${beatSeconds} s, but the daemons look for it every ${monitorSeconds} s, and that cannot be changed`,
          'raise heartbeatSeconds, or leave it at that',
        );
      else
        add(
          'beat_shorter_than_monitor',
          `a beat is lost after ${beatSeconds} s, but looked for every ${monitorSeconds} s`,
          'lower monitorIntervalSeconds',
        );
    if (takenOver && beatSeconds !== null && outageGraceSeconds <= beatSeconds)
      add(
        'grace_shorter_than_beat',
        `its live jobs may not have beaten yet when the grace of ${outageGraceSeconds} s after an outage is over, and are failed then`,
        `set RECLAIMD_OUTAGE_GRACE to more than ${beatSeconds}s`,
      );
    if (notify && listeners === 0)
      add('notify_without_listener', 'it notifies, but no live worker listens', 'set useListenNotify on its workers');
  }
  return findings;
}
