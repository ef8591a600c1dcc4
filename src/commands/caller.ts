import type { Database } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { type CommandRow, endOverdue, listEvents, readCommand } from './queries.ts';

const POLL_MS = 100;

/**
 * Waits for a command to end, and tells what happens meanwhile. Always ends: with the daemon's outcome, `expired` when no daemon
 * of the node took it in time (nothing was done), or `unknown` when the one that took it did not come back to tell.
 */
export async function awaitCommand<Event>(
  { database, clock }: { database: Database; clock: Clock },
  id: string,
  onEvent: (event: Event) => void = () => undefined,
): Promise<CommandRow> {
  let told = 0;
  for (;;) {
    const ended = await endOverdue(database, id);
    const row = await readCommand(database, id);
    for (const { number, event } of await listEvents<Event>(database, id, told)) {
      told = number;
      onEvent(event);
    }
    if (!row) throw new Error(`command ${id} is gone`);
    if (row.outcome !== null) return { ...row, error: row.error ?? (ended && WHY[ended]) ?? null };
    await clock.sleep(POLL_MS);
  }
}

const WHY = {
  expired: 'no daemon of that node took it in time: nothing was done',
  unknown: 'the daemon of that node did not come back to tell: look at the unit',
};
