import pg from 'pg';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { type ConnectionOptions, describeConnections } from './connection.ts';
import { DatabaseError, DatabaseUnreachable, TransactionConflict, toDatabaseError } from './errors.ts';
import { type Hearer, keepListening } from './listen.ts';

/** Something that runs statements: the pool, or one transaction. Rows come back as the driver parses them. */
export interface Sql {
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]>;
  /**
   * For one statement whose rows nobody wants: how many it changed.
   * @param name one that no other text has: the server then parses and plans the statement once a connection.
   */
  execute(text: string, values?: readonly unknown[], name?: string): Promise<number>;
}

export interface Database extends Sql {
  /** Runs `work` in one transaction; conflicts (40001, 40P01) are run again, on a budget. */
  transaction<T>(work: (tx: Sql) => Promise<T>): Promise<T>;
  /** A connection of its own that hears `channel`; kept alive and renewed until `stop`. */
  listen(channel: string, hearer: Hearer): { stop(): Promise<void> };
  close(): Promise<void>;
}

export interface DatabaseOptions extends ConnectionOptions {
  /** Looked up in this order for unqualified names: ours, then pg-boss's. */
  searchPath: readonly string[];
  maxConnections: number;
}

const CONFLICT_RETRIES = 5;

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Runs `work`, which only reads, on the database as it is at its beginning, whatever is committed meanwhile. */
export function inSnapshot<T>(database: Database, work: (tx: Sql) => Promise<T>): Promise<T> {
  return database.transaction(async (tx) => {
    await tx.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    return work(tx);
  });
}

export function createDatabase(options: DatabaseOptions, dependencies: { clock: Clock; log: Logger }): Database {
  const { clock, log } = dependencies;
  const searchPath = options.searchPath.map(quoteIdentifier);
  const connections = describeConnections(options, searchPath);
  const pool = new pg.Pool({ ...connections.config, max: options.maxConnections, idleTimeoutMillis: 30_000 });
  let closed: Promise<void> | undefined;
  // An idle connection that breaks is replaced by the pool; whoever needs it next hears of it.
  pool.on('error', (error) => log.debug({ error: error.message }, 'idle database connection lost'));
  // One that breaks in the instant in which the pool hands it over has nobody else who hears of it yet, and an error that
  // nobody hears ends the process.
  pool.on('connect', (connection) => connection.on('error', () => undefined));

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
      await commit(connection);
      return result;
    } catch (cause) {
      // On a connection in doubt a ROLLBACK could wait as long as the statement before it; closing it rolls back too.
      if (cause instanceof DatabaseUnreachable) broken ??= cause;
      else await connection.query('ROLLBACK').catch(noteBreak);
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
    listen: (channel, hearer) => keepListening(describeConnections(options, searchPath), quoteIdentifier(channel), hearer, dependencies),
    close: () => {
      closed ??= pool.end();
      connections.hangUpSoon();
      return closed;
    },
  };
}

/** Postgres answers the COMMIT of a transaction in which a statement failed, and nobody said so, with a quiet ROLLBACK. */
async function commit(connection: pg.PoolClient): Promise<void> {
  const { command } = await connection.query('COMMIT').catch((cause: unknown) => Promise.reject(toDatabaseError(cause)));
  if (command !== 'COMMIT') throw new DatabaseError('nothing was committed: a statement of the transaction had failed', '25P02', undefined);
}

function sqlOn(runner: pg.Pool | pg.PoolClient): Sql {
  return {
    query: async <Row extends object>(text: string, values: readonly unknown[] = []) => {
      try {
        // Several statements in one text have an answer each.
        const answer = (await runner.query<Row>(text, [...values])) as pg.QueryResult<Row> | pg.QueryResult<Row>[];
        return Array.isArray(answer) ? answer.flatMap(({ rows }) => rows) : answer.rows;
      } catch (cause) {
        throw toDatabaseError(cause);
      }
    },
    execute: async (text, values = [], name) => {
      try {
        return (await runner.query({ text, values: [...values], ...(name ? { name } : {}) })).rowCount ?? 0;
      } catch (cause) {
        throw toDatabaseError(cause);
      }
    },
  };
}
