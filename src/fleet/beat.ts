import type { Sql } from '../postgres/database.ts';
import type { Logger } from '../runtime/logger.ts';
import { type NodeIdentity, saveBeat } from './queries.ts';

export const BEAT_INTERVAL_MS = 2_000;
/**
 * Own beats further apart than this mean that this daemon was cut off: outage, suspend, SIGSTOP. Less than the 5 s for
 * which the shortest beat that pg-boss allows (10 s, refreshed at half of it) outlives an outage.
 */
export const CUT_OFF_AFTER_SECONDS = (2.25 * BEAT_INTERVAL_MS) / 1000;

export interface BeatDependencies {
  identity: NodeIdentity;
  log: Logger;
  onNodeConflict(): void;
}

export interface Beat {
  /** One beat of this node. */
  beat(sql: Sql): Promise<void>;
  /** The last beat failed: what the database says of our beats may be younger than what cut us off. */
  hasFailed(): boolean;
}

/**
 * The beats of this node are also how an outage is noticed: the database measures the gap between two of one daemon, and a
 * long one, or one in which a beat failed, voids everybody's silence before anybody is judged by it.
 */
export function createBeat({ identity, log, onNodeConflict }: BeatDependencies): Beat {
  let hasBeaten = false;
  let failed = false;

  async function beat(sql: Sql): Promise<void> {
    const longestGap = failed ? 0 : CUT_OFF_AFTER_SECONDS;
    const { gapSeconds, rival, rivalAgeSeconds, rivalStopped } = await saveBeat(sql, identity, longestGap).catch((error: unknown) => {
      failed = true;
      throw error;
    });
    failed = false;
    if (gapSeconds !== null && gapSeconds > longestGap)
      log.warn({ gapSeconds: Math.round(gapSeconds) }, 'this daemon was cut off; silence counts for nothing during the grace period');
    // The first beat replaces the daemon's own earlier life. A rival after that is a second daemon of the same name.
    if (rival !== null && hasBeaten && rivalStopped === false && (rivalAgeSeconds ?? 0) < CUT_OFF_AFTER_SECONDS) {
      onNodeConflict();
      log.error({ rival }, `another daemon runs as node ${identity.node}: give each its own RECLAIMD_NODE`);
    }
    hasBeaten = true;
  }

  return { beat, hasFailed: () => failed };
}
