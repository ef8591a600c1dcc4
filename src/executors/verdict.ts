export type Verdict = 'alive' | 'late' | 'missing' | 'dead' | 'hung' | 'stopped' | 'unknown';
export type Proof = 'process_gone' | 'host_rebooted';

/** What is known of one executor; ages in seconds by the database's clock. */
export interface Evidence {
  stopped: boolean;
  proof: Proof | null;
  /** A daemon whose own beats are fresh holds the process in sight. */
  witnessed: boolean;
  /** Such a daemon sees a process that may well be its, but that nobody ever saw while its beats were fresh. */
  sighted: boolean;
  /** Since the daemon that held the process in sight last was last heard of; null where none ever did. */
  unseenSeconds: number | null;
  /** Its unit is being stopped, and has not ended. */
  draining: boolean;
  /** Since the last beat or session activity, whichever is younger; null when there was neither. */
  silentSeconds: number | null;
}

export interface Thresholds {
  lateAfterSeconds: number;
  missingAfterSeconds: number;
}

export interface Judgement {
  verdict: Verdict;
  reason: string;
}

/** A witness counts while its daemon has beaten within this time. */
export const WITNESS_FRESH_SECONDS = 10;
const LATE_BEATS = 2;
const MISSING_BEATS = 3;
/**
 * No executor is missing sooner, however fast it beats: a daemon may not notice an outage that is shorter than the gap
 * between two of its beats (fleet/beat.ts), and such a silence must never look like an executor's.
 */
const MISSING_FLOOR_SECONDS = 15;

/** Thresholds from the beat's period, unless the executor brought its own. */
export function thresholds(beatSeconds: number, own: { late: number | null; missing: number | null }): Thresholds {
  const missingAfterSeconds = Math.max(MISSING_FLOOR_SECONDS, own.missing ?? MISSING_BEATS * beatSeconds);
  return { missingAfterSeconds, lateAfterSeconds: Math.min(missingAfterSeconds, own.late ?? LATE_BEATS * beatSeconds) };
}

/**
 * The order is DESIGN's: what cannot be wrong later comes first, silence last. A sighting is a sign of life: who was hung while a daemon
 * looked on is not missing because that daemon is restarted, but when neither has been heard of for so long.
 */
export function judge(evidence: Evidence, limits: Thresholds): Judgement {
  if (evidence.stopped) return { verdict: 'stopped', reason: 'stopped gracefully' };
  if (evidence.proof === 'process_gone') return { verdict: 'dead', reason: 'its process is gone' };
  if (evidence.proof === 'host_rebooted') return { verdict: 'dead', reason: 'its host has booted since' };
  if (evidence.silentSeconds === null) return { verdict: 'unknown', reason: 'never heard of' };
  const isSeen =
    evidence.witnessed || evidence.sighted || (evidence.unseenSeconds !== null && evidence.unseenSeconds <= limits.missingAfterSeconds);
  if (isSeen && evidence.draining) return { verdict: 'alive', reason: 'its unit is being stopped: draining' };
  if (evidence.silentSeconds > limits.missingAfterSeconds) {
    const silence = `silent past ${limits.missingAfterSeconds} s`;
    if (evidence.witnessed) return { verdict: 'hung', reason: `${silence}, but its process is there` };
    if (evidence.sighted) return { verdict: 'hung', reason: `${silence}, but a process that may be its is there` };
    if (isSeen) return { verdict: 'hung', reason: `${silence}, but its process was there when its daemon was last heard of` };
    return { verdict: 'missing', reason: silence };
  }
  if (evidence.silentSeconds > limits.lateAfterSeconds) return { verdict: 'late', reason: `silent past ${limits.lateAfterSeconds} s` };
  return { verdict: 'alive', reason: 'beats' };
}
