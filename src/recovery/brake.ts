import type { Verdict } from '../executors/verdict.ts';

export interface Candidate {
  id: string;
  verdict: Verdict;
  /** Since the last sign of life, a graceful stop being one; null where there was none. */
  silentSeconds: number | null;
  ageSeconds: number;
  beatSeconds: number;
  missingAfter: number;
}

export interface BrakeLimits {
  /** Brakes when more than this share of the executors is silent together, ... */
  percent: number;
  /** ... and at least so many. */
  minimum: number;
}

/** Past so many beats an executor is overdue: what silences it may be what made others missing, and has only come sooner to their limits. */
const OVERDUE_BEATS = 1.25;

interface Silent extends Candidate {
  silentSeconds: number;
}

/**
 * The mass-failure brake: the missing executors that fell silent together with too many others. "Together" is within one
 * missing-after of each other; hung and overdue ones fell silent, too. The share is out of them and of those that are known to have
 * lived on. Proven deaths do not count.
 */
export function brakedExecutors(executors: readonly Candidate[], limits: BrakeLimits): Set<string> {
  const heard = executors.filter((executor): executor is Silent => executor.silentSeconds !== null);
  const silent = heard.filter(isSilent).sort((a, b) => a.silentSeconds - b.silentSeconds);
  const others = heard.filter((executor) => !isSilent(executor));
  const braked = new Set<string>();
  for (const last of silent) {
    const together = silent.filter(
      ({ silentSeconds }) => silentSeconds >= last.silentSeconds && silentSeconds <= last.silentSeconds + last.missingAfter,
    );
    const survivors = countSurvivors(together, others);
    const share = (100 * together.length) / (together.length + survivors);
    if (together.length < limits.minimum || share <= limits.percent) continue;
    for (const { id, verdict } of together) if (verdict === 'missing') braked.add(id);
  }
  return braked;
}

function isSilent({ verdict, silentSeconds, beatSeconds }: Silent): boolean {
  if (verdict === 'missing' || verdict === 'hung') return true;
  return (verdict === 'alive' || verdict === 'late') && silentSeconds > OVERDUE_BEATS * beatSeconds;
}

/**
 * Those that had begun before the first of them fell silent, and gave a sign since. What silenced them came after their last signs, and
 * before the first beat that one of them missed: who beat in between may be silenced, too, but who stopped gracefully is not.
 */
function countSurvivors(together: readonly Silent[], others: readonly Silent[]): number {
  const silences = together.map(({ silentSeconds }) => silentSeconds);
  const [sinceLast, sinceFirst] = [Math.min(...silences), Math.max(...silences)];
  const sinceMissed = Math.max(...together.map(({ silentSeconds, beatSeconds }) => silentSeconds - beatSeconds));
  return others.filter(({ verdict, silentSeconds, ageSeconds }) => {
    const since = verdict === 'stopped' ? sinceLast : Math.min(sinceLast, sinceMissed);
    return silentSeconds < since && ageSeconds >= sinceFirst;
  }).length;
}
