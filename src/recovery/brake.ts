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
/** Whoever beats more slowly is not waited for, and lives on until it is overdue. */
const SLOW_BEAT_SECONDS = 120;

interface Heard extends Candidate {
  silentSeconds: number;
}

/**
 * The mass-failure brake: the missing executors that fell silent together with too many others. "Together" is within the
 * longer of their missing-afters; hung and overdue ones fell silent, too. The share is out of them and of those that are known to have
 * lived on. Proven deaths do not count.
 */
export function applyBrake(executors: readonly Candidate[], { percent, minimum }: BrakeLimits): Brake {
  const heard = executors.filter((executor): executor is Heard => executor.silentSeconds !== null);
  heard.sort((a, b) => a.silentSeconds - b.silentSeconds);
  const silent = heard.filter(isSilent);
  const undue = heard.filter((executor) => isThere(executor) && !isSilent(executor));
  const brake: Brake = { braked: new Set(), doubtful: new Set() };
  const isTooMany = (count: number, survivors: number) => count >= minimum && (100 * count) / (count + survivors) > percent;
  const widest = silent.reduce((most, { missingAfter }) => Math.max(most, missingAfter), 0);
  for (const index of silent.keys()) {
    const together = togetherFrom(silent, index, widest);
    const missing = together.filter(({ verdict }) => verdict === 'missing');
    if (missing.length === 0) continue;
    const { survivors, undecided } = tally(together, heard, undue);
    if (isTooMany(together.length, survivors)) for (const { id } of missing) brake.braked.add(id);
    else if (isTooMany(together.length + undecided, survivors)) for (const { id } of missing) brake.doubtful.add(id);
  }
  return brake;
}

const isThere = ({ verdict }: Heard) => verdict === 'alive' || verdict === 'late';

function isSilent(executor: Heard): boolean {
  const { verdict, silentSeconds, beatSeconds } = executor;
  return verdict === 'missing' || verdict === 'hung' || (isThere(executor) && silentSeconds > OVERDUE_BEATS * beatSeconds);
}

/** The one at `index`, and those that fell silent before it, but not long before. */
function togetherFrom(silent: readonly Heard[], index: number, widest: number): Heard[] {
  const together: Heard[] = [];
  const last = silent[index] as Heard;
  for (let next = index; next < silent.length; next++) {
    const one = silent[next] as Heard;
    const before = one.silentSeconds - last.silentSeconds;
    if (before > widest) break;
    if (before <= Math.max(one.missingAfter, last.missingAfter)) together.push(one);
  }
  return together;
}

/**
 * Of those that had begun before the first of them fell silent: who gave a sign since, whatever became of it later, and of whom nobody can
 * tell yet. What silenced them came after their last signs, and before the first beat that one of them missed: who beat in between may be
 * silenced, too, but who stopped gracefully is not.
 * @param together @param heard by how long they have been silent, both.
 */
function tally(together: readonly Heard[], heard: readonly Heard[], undue: readonly Heard[]): { survivors: number; undecided: number } {
  const sinceLast = together[0]?.silentSeconds ?? 0;
  const sinceFirst = together.at(-1)?.silentSeconds ?? 0;
  const sinceMissed = together.reduce((most, { silentSeconds, beatSeconds }) => Math.max(most, silentSeconds - beatSeconds), 0);
  const sinceCause = Math.min(sinceLast, sinceMissed);
  const hasSurvived = ({ verdict, silentSeconds }: Heard) => silentSeconds < (verdict === 'stopped' ? sinceLast : sinceCause);
  let [survivors, undecided] = [0, 0];
  for (const one of heard) {
    if (one.silentSeconds >= sinceLast) break;
    if (one.ageSeconds >= sinceFirst && hasSurvived(one)) survivors += 1;
  }
  for (const one of undue) {
    if (one.ageSeconds < sinceFirst || hasSurvived(one)) continue;
    if (one.beatSeconds > SLOW_BEAT_SECONDS) survivors += 1;
    else undecided += 1;
  }
  return { survivors, undecided };
}
