import type { Verdict } from '../executors/verdict.ts';

export interface Candidate {
  id: string;
  verdict: Verdict;
  silentSeconds: number;
  ageSeconds: number;
  missingAfter: number;
}

export interface BrakeLimits {
  /** Brakes when more than this share of the executors is missing together, ... */
  percent: number;
  /** ... and at least so many. */
  minimum: number;
}

/**
 * The mass-failure brake: the missing executors that fell silent together with too many others. "Together" is within
 * one missing-after of each other, out of all that lived when they fell silent. Proven deaths do not count.
 */
export function brakedExecutors(executors: readonly Candidate[], limits: BrakeLimits): Set<string> {
  const missing = executors.filter(({ verdict }) => verdict === 'missing').sort((a, b) => a.silentSeconds - b.silentSeconds);
  const living = executors.filter(({ verdict }) => verdict === 'alive' || verdict === 'late' || verdict === 'hung');
  const braked = new Set<string>();
  for (const first of missing) {
    const together = missing.filter(
      ({ silentSeconds }) => silentSeconds >= first.silentSeconds && silentSeconds <= first.silentSeconds + first.missingAfter,
    );
    const latest = Math.max(...together.map(({ silentSeconds }) => silentSeconds));
    const survivors = living.filter(({ ageSeconds }) => ageSeconds >= latest).length;
    const share = (100 * together.length) / (together.length + survivors);
    if (together.length >= limits.minimum && share > limits.percent) for (const { id } of together) braked.add(id);
  }
  return braked;
}
