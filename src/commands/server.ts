import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { errorFields, type Logger } from '../runtime/logger.ts';
import { type CommandResult, endCommand, endOverdue } from './end.ts';
import { type CommandRow, holdCommand, renewCommand, saveEvent, takeCommand } from './queries.ts';

export interface ServerDependencies {
  database: Database;
  clock: Clock;
  log: Logger;
  node: string;
  daemonId: string;
  /**
   * Does it, within the limits of this node; what it throws is a failure of the command. Asks `hold` in the transaction of its intent:
   * false means that the command is over, and nothing may be done.
   */
  run(command: CommandRow, emit: (event: object) => void, hold: (tx: Sql) => Promise<boolean>): Promise<CommandResult>;
}

/** Renewed while we are at it: the time after which a caller gives us up. */
const LEASE_SECONDS = 15;
const RENEW_MS = 4_000;
const AT_ONCE = 8;

/** Takes this node's commands, one row each, and tells how they went; ends those that nobody told of, of whatever node. */
export function createCommandServer({ database, clock, log, node, daemonId, run }: ServerDependencies) {
  const underWay = new Set<Promise<void>>();

  async function serve(): Promise<void> {
    await takeAll();
    await endOverdue(database, node);
  }

  async function takeAll(): Promise<void> {
    while (underWay.size < AT_ONCE) {
      const command = await takeCommand(database, node, daemonId, LEASE_SECONDS);
      if (!command) return;
      const work = carryOut(command).finally(() => underWay.delete(work));
      underWay.add(work);
    }
  }

  async function carryOut(command: CommandRow): Promise<void> {
    const over = new AbortController();
    const renewal = keepLease(command.id, over.signal);
    let events = 0;
    let saving: Promise<void> = Promise.resolve();
    const emit = (event: object) => {
      events += 1;
      const number = events;
      saving = saving.then(() => saveEvent(database, command.id, number, event)).catch(() => undefined);
    };
    let result: CommandResult;
    try {
      result = await run(command, emit, (tx) => holdCommand(tx, command.id, daemonId, LEASE_SECONDS));
    } catch (error) {
      result = { outcome: 'failed', error: error instanceof Error ? error.message : String(error) };
    } finally {
      over.abort();
    }
    await saving;
    await renewal;
    if (command.action !== 'look')
      log.info({ unit: command.unit, action: command.action, actor: command.actor, outcome: result.outcome }, 'command');
    const told = await endCommand(database, node, command.id, daemonId, result).catch((error: unknown) =>
      log.error({ command: command.id, ...errorFields(error) }, 'the outcome of a command could not be told'),
    );
    if (told === false) log.warn({ command: command.id, outcome: result.outcome }, 'a command was over before its outcome could be told');
  }

  async function keepLease(id: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      await clock.sleep(RENEW_MS, signal);
      if (signal.aborted) return;
      await renewCommand(database, id, daemonId, LEASE_SECONDS).catch(() => undefined);
    }
  }

  return { serve, stop: async () => void (await Promise.all(underWay)) };
}
