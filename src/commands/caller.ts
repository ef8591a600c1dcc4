import type { Database } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { endOverdue } from './end.ts';
import { type CommandRow, listEvents, readCommand } from './queries.ts';

const POLL_MS = 100;

export interface CallerDependencies {
  database: Database;
  clock: Clock;
  /** Where it is waited. */
  node: string;
}

/**
 * Waits for a command to end, and tells what happens meanwhile. Always ends: with the daemon's outcome, `expired` when no daemon
 * of the node began it in time (nothing was done), `unknown` when the one that did has not come back to tell, or without an outcome
 * when `signal` aborts the waiting: it goes on there.
 */
export async function awaitCommand<Event>(
  { database, clock, node }: CallerDependencies,
  id: string,
  { onEvent, signal }: { onEvent?: ((event: Event) => void) | undefined; signal?: AbortSignal | undefined } = {},
): Promise<CommandRow> {
  let told = 0;
  for (;;) {
    const row = await readCommand(database, id);
    if (!row) throw new Error(`command ${id} is gone`);
    if (row.overdue) await endOverdue(database, node, id);
    for (const { number, event } of await listEvents<Event>(database, id, told)) {
      told = number;
      onEvent?.(event);
    }
    if (row.outcome !== null || signal?.aborted) return row;
    await clock.sleep(POLL_MS, signal);
  }
}
