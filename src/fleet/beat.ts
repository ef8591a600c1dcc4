import type { Sql } from '../postgres/database.ts';
import type { Logger } from '../runtime/logger.ts';
import { type NodeIdentity, saveBeat } from './queries.ts';

export const BEAT_INTERVAL_MS = 3_000;
/** Own beats further apart than this mean that this daemon was cut off: outage, suspend, SIGSTOP. */
export const CUT_OFF_AFTER_SECONDS = (2.5 * BEAT_INTERVAL_MS) / 1000;

export interface BeatDependencies {
  identity: NodeIdentity;
  log: Logger;
  onNodeConflict(): void;
}

/**
 * One beat of this node. It is also how an outage is noticed: the database measures the gap between two beats of one
 * daemon, and a long one voids everybody's silence before anybody is judged by it.
 */
export function createBeat({ identity, log, onNodeConflict }: BeatDependencies) {
  let hasBeaten = false;

  return async function beat(sql: Sql): Promise<void> {
    const { gapSeconds, rival, rivalAgeSeconds, rivalStopped } = await saveBeat(sql, identity, CUT_OFF_AFTER_SECONDS);
    if (gapSeconds !== null && gapSeconds > CUT_OFF_AFTER_SECONDS)
      log.warn({ gapSeconds: Math.round(gapSeconds) }, 'this daemon was cut off; silence counts for nothing during the grace period');
    // The first beat replaces the daemon's own earlier life. A rival after that is a second daemon of the same name.
    if (rival !== null && hasBeaten && rivalStopped === false && (rivalAgeSeconds ?? 0) < CUT_OFF_AFTER_SECONDS) {
      onNodeConflict();
      log.error({ rival }, `another daemon runs as node ${identity.node}: give each its own RECLAIMD_NODE`);
    }
    hasBeaten = true;
  };
}
