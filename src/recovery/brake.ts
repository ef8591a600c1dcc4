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

export interface Brake {
  /** Missing, and silent together with too many others. */
  braked: Set<string>;
  /** Missing, and nobody can tell yet: others whose beat is not due may have fallen silent together with them. */
  doubtful: Set<string>;
}

/** Past so many beats an executor is overdue: what silences it may be what made others missing, and has only come sooner to their limits. */
const OVERDUE_BEATS = 1.25;
/** Whoever beats more slowly is not waited for. */
const SLOW_BEAT_SECONDS = 120;

interface Silent extends Candidate {
  silentSeconds: number;
}

/**
 * The mass-failure brake: the missing executors that fell silent together with too many others. "Together" is within the
 * longer of their missing-afters; hung and overdue ones fell silent, too. The share is out of them and of those that are known to have
 * lived on. Proven deaths do not count.
 */
export function applyBrake(executors: readonly Candidate[], { percent, minimum }: BrakeLimits): Brake {
  const heard = executors.filter((executor): executor is Silent => executor.silentSeconds !== null);
  const silent = heard.filter(isSilent).sort((a, b) => a.silentSeconds - b.silentSeconds);
  const others = heard.filter((executor) => !isSilent(executor));
  const brake: Brake = { braked: new Set(), doubtful: new Set() };
  const isTooMany = (count: number, survivors: number) => count >= minimum && (100 * count) / (count + survivors) > percent;
  for (const last of silent) {
    const together = silent.filter(
      ({ silentSeconds, missingAfter }) =>
        silentSeconds >= last.silentSeconds && silentSeconds <= last.silentSeconds + Math.max(missingAfter, last.missingAfter),
    );
    const { survivors, undecided } = tally(together, others);
    const missing = together.filter(({ verdict }) => verdict === 'missing');
    if (isTooMany(together.length, survivors)) for (const { id } of missing) brake.braked.add(id);
    else if (isTooMany(together.length + undecided, survivors)) for (const { id } of missing) brake.doubtful.add(id);
  }
  return brake;
}

function isSilent({ verdict, silentSeconds, beatSeconds }: Silent): boolean {
  if (verdict === 'missing' || verdict === 'hung') return true;
  return isThere(verdict) && silentSeconds > OVERDUE_BEATS * beatSeconds;
}

const isThere = (verdict: Verdict) => verdict === 'alive' || verdict === 'late';

/**
 * Of those that had begun before the first of them fell silent: who gave a sign since, and who is not due to. What silenced them came
 * after their last signs, and before the first beat that one of them missed: who beat in between may be silenced, too, but who stopped
 * gracefully is not.
 */
function tally(together: readonly Silent[], others: readonly Silent[]): { survivors: number; undecided: number } {
  const silences = together.map(({ silentSeconds }) => silentSeconds);
  const [sinceLast, sinceFirst] = [Math.min(...silences), Math.max(...silences)];
  const sinceMissed = Math.max(...together.map(({ silentSeconds, beatSeconds }) => silentSeconds - beatSeconds));
  const old = others.filter(({ ageSeconds }) => ageSeconds >= sinceFirst);
  const hasSurvived = ({ verdict, silentSeconds }: Silent) =>
    silentSeconds < (verdict === 'stopped' ? sinceLast : Math.min(sinceLast, sinceMissed));
  const survivors = old.filter(hasSurvived).length;
  const undecided = old.filter(
    (executor) => isThere(executor.verdict) && !hasSurvived(executor) && executor.beatSeconds <= SLOW_BEAT_SECONDS,
  ).length;
  return { survivors, undecided };
}
