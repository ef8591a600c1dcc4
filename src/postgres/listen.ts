import pg from 'pg';
import type { Clock } from '../runtime/clock.ts';
import { errorFields, type Logger } from '../runtime/logger.ts';
import type { Connections } from './connection.ts';

const RETRY_MS = 1_000;

export interface Hearer {
  onMessage(payload: string): void;
  /** From now on everything is heard; what was said before, while the connection was being made or renewed, was not. */
  onListening?(): void;
}

/** @param channel quoted. */
export function keepListening(
  { config, hangUpSoon }: Connections,
  channel: string,
  { onMessage, onListening }: Hearer,
  { clock, log }: { clock: Clock; log: Logger },
): { stop(): Promise<void> } {
  const stopping = new AbortController();

  // A throw would end the process: it comes from the socket, with nobody above it.
  function tell(payload: string): void {
    try {
      onMessage(payload);
    } catch (error) {
      log.error(errorFields(error), 'a database message was not understood');
    }
  }

  async function listenOnce(): Promise<void> {
    const connection = new pg.Client(config);
    const ended = Promise.withResolvers<void>();
    const end = () => ended.resolve();
    connection.on('error', end);
    connection.on('end', end);
    stopping.signal.addEventListener('abort', end);
    try {
      await connection.connect();
      connection.on('notification', (message) => tell(message.payload ?? ''));
      await connection.query(`LISTEN ${channel}`);
      onListening?.();
      await ended.promise;
    } finally {
      stopping.signal.removeEventListener('abort', end);
      if (stopping.signal.aborted) hangUpSoon();
      await connection.end().catch(() => undefined);
    }
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      await listenOnce().catch((error: unknown) => log.debug(errorFields(error), 'listening failed'));
      await clock.sleep(RETRY_MS, stopping.signal);
    }
  }

  const finished = run();
  return {
    stop: async () => {
      stopping.abort();
      await finished;
    },
  };
}
