import type { Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import type { PassResult } from '../runtime/loop.ts';
import { endTurn, renewTurn, takeTurn } from './turn.ts';

/** A third of the lease: two renewals may fail before another node may come in between. */
const RENEW_MS = 3_000;

export interface TurnTakers {
  sql: Sql;
  clock: Clock;
  daemonId: string;
}

/** A pass that one node of the fleet runs at a time: the turn stays with it while the pass goes on, however long that takes. */
export function inTurn({ sql, clock, daemonId }: TurnTakers, name: string, intervalMs: number, pass: () => Promise<void>) {
  return async (): Promise<PassResult> => {
    const taken = await takeTurn(sql, name, intervalMs, daemonId);
    if (!taken.mine) return { againInMs: taken.againInMs, idle: true };
    const over = new AbortController();
    const renewing = keepRenewing(over.signal);
    try {
      await pass();
    } finally {
      over.abort();
      // A renewal under way would take back what is ended here.
      await renewing;
      await endTurn(sql, name, daemonId).catch(() => undefined);
    }
    return undefined;
  };

  async function keepRenewing(signal: AbortSignal): Promise<void> {
    for (;;) {
      await clock.sleep(RENEW_MS, signal);
      if (signal.aborted) return;
      await renewTurn(sql, name, daemonId).catch(() => undefined);
    }
  }
}
