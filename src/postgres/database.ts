import pg from 'pg';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { TransactionConflict, toDatabaseError } from './errors.ts';

/** Something that runs statements: the pool, or one transaction. Rows come back as the driver parses them. */
export interface Sql {
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

export interface Database extends Sql {
  /** Runs `work` in one transaction; conflicts (40001, 40P01) are run again, on a budget. */
  transaction<T>(work: (tx: Sql) => Promise<T>): Promise<T>;
  /** A connection of its own that hears `channel`; kept alive and renewed until `stop`. */
  listen(channel: string, onMessage: (payload: string) => void): { stop(): Promise<void> };
  close(): Promise<void>;
}

export interface DatabaseOptions {
  url: string;
  /** Appears in pg_stat_activity. */
  applicationName: string;
  /** Looked up in this order for unqualified names: ours, then pg-boss's. */
  searchPath: readonly string[];
  maxConnections: number;
  statementTimeoutMs: number;
  lockTimeoutMs: number;
}

const CONFLICT_RETRIES = 5;
const CONNECT_TIMEOUT_MS = 5_000;
const LISTEN_RETRY_MS = 1_000;

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function createDatabase(options: DatabaseOptions, { clock, log }: { clock: Clock; log: Logger }): Database {
  const client = clientConfig(options);
  const pool = new pg.Pool({ ...client, max: options.maxConnections, idleTimeoutMillis: 30_000 });
  // An idle connection that breaks is replaced by the pool; whoever needs it next hears of it.
  pool.on('error', (error) => log.debug({ error: error.message }, 'idle database connection lost'));

  async function runTransaction<T>(work: (tx: Sql) => Promise<T>): Promise<T> {
    const connection = await pool.connect().catch((cause: unknown) => Promise.reject(toDatabaseError(cause)));
    let broken: Error | undefined;
    // Without a listener an error between two statements would end the process.
    const noteBreak = (error: Error) => {
      broken = error;
    };
    connection.on('error', noteBreak);
    const tx = sqlOn(connection);
    try {
      await tx.query('BEGIN');
      const result = await work(tx);
      await tx.query('COMMIT');
      return result;
    } catch (cause) {
      await connection.query('ROLLBACK').catch((error: Error) => {
        broken = error;
      });
      throw cause;
    } finally {
      connection.removeListener('error', noteBreak);
      connection.release(broken);
    }
  }

  return {
    ...sqlOn(pool),
    transaction: async (work) => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await runTransaction(work);
        } catch (cause) {
          if (!(cause instanceof TransactionConflict) || attempt > CONFLICT_RETRIES) throw cause;
          await clock.sleep(10 * 2 ** attempt * Math.random());
        }
      }
    },
    listen: (channel, onMessage) => keepListening(client, channel, onMessage, clock, log),
    close: () => pool.end(),
  };
}

function clientConfig(options: DatabaseOptions): pg.ClientConfig {
  const searchPath = options.searchPath.map(quoteIdentifier).join(',').replace(/[\\ ]/g, '\\$&');
  return {
    connectionString: options.url,
    application_name: options.applicationName,
    options: `-c search_path=${searchPath} -c statement_timeout=${options.statementTimeoutMs} -c lock_timeout=${options.lockTimeoutMs} -c idle_in_transaction_session_timeout=30000 -c TimeZone=UTC`,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    // The server's own time-out should speak first; this one bounds a server that says nothing.
    query_timeout: options.statementTimeoutMs + 5_000,
    keepAlive: true,
  };
}

function sqlOn(runner: pg.Pool | pg.PoolClient): Sql {
  return {
    query: async <Row extends object>(text: string, values: readonly unknown[] = []) => {
      try {
        return (await runner.query<Row>(text, [...values])).rows;
      } catch (cause) {
        throw toDatabaseError(cause);
      }
    },
  };
}

function keepListening(config: pg.ClientConfig, channel: string, onMessage: (payload: string) => void, clock: Clock, log: Logger) {
  const stopping = new AbortController();

  async function listenOnce(): Promise<void> {
    const connection = new pg.Client(config);
    const ended = new Promise<void>((resolve) => {
      connection.on('error', () => resolve());
      connection.on('end', () => resolve());
      stopping.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    try {
      await connection.connect();
      connection.on('notification', (message) => onMessage(message.payload ?? ''));
      await connection.query(`LISTEN ${quoteIdentifier(channel)}`);
      await ended;
    } finally {
      await connection.end().catch(() => undefined);
    }
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      await listenOnce().catch((cause: Error) => log.debug({ error: cause.message }, 'listening failed'));
      await clock.sleep(LISTEN_RETRY_MS, stopping.signal);
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
