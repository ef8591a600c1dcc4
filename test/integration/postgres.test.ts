import pg from 'pg';
import { expect, test } from 'vitest';
import { thresholds } from '../../src/executors/verdict.ts';
import type { Database } from '../../src/postgres/database.ts';
import {
  DatabaseError,
  DatabaseUnreachable,
  LockNotAvailable,
  PermissionDenied,
  StatementTimedOut,
  TransactionConflict,
  UndefinedObject,
  UniqueViolation,
} from '../../src/postgres/errors.ts';
import { createTestDatabase } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';

async function createTable(database: Database): Promise<void> {
  await database.query('CREATE TABLE item (id int PRIMARY KEY, value int NOT NULL DEFAULT 0)');
  await database.query('INSERT INTO item (id) VALUES (1), (2)');
}

const PID = 'SELECT pg_backend_pid() AS pid';

async function terminate(database: Database, pid: number | undefined): Promise<void> {
  const [ended] = await database.query<{ ended: boolean }>('SELECT pg_terminate_backend($1, 5000) AS ended', [pid]);
  expect(ended?.ended).toBe(true);
}

test.each([
  ['a duplicate key', 'INSERT INTO item (id) VALUES (1)', UniqueViolation, '23505'],
  ['an unknown table', 'SELECT FROM nowhere', UndefinedObject, '42P01'],
  ['an unknown column', 'SELECT nothing FROM item', UndefinedObject, '42703'],
  ['an unknown function', 'SELECT nothing()', UndefinedObject, '42883'],
  ['an unknown schema', 'CREATE TABLE nowhere.item ()', UndefinedObject, '3F000'],
  ['an unknown type', 'SELECT 1::nothing', UndefinedObject, '42704'],
  ['any other refusal', 'SELECT 1/0', DatabaseError, '22012'],
])('%s has a class of its own', async (_, statement, Class, code) => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  const error = await database.query(statement).catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(Class);
  expect(error).toMatchObject({ name: Class.name === 'DatabaseError' ? 'DatabaseError' : Class.name, code });
  expect((error as Error).cause).toBeInstanceOf(Error);
});

test('a right that the role lacks is a PermissionDenied', async () => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  const asMonitor = database.transaction(async (tx) => {
    await tx.query('SET LOCAL ROLE pg_monitor');
    await tx.query('DELETE FROM item');
  });
  await expect(asMonitor).rejects.toBeInstanceOf(PermissionDenied);
  expect(await database.query('SELECT FROM item')).toHaveLength(2);
});

test('a statement that takes longer than allowed is a StatementTimedOut, and a lock that is not had in time a LockNotAvailable', async () => {
  const { connect } = await createTestDatabase();
  const database = connect({ schema: 'public', statementTimeoutMs: 200 });
  const impatient = connect({ schema: 'public', lockTimeoutMs: 100 });
  await createTable(database);
  await expect(database.query('SELECT pg_sleep(30)')).rejects.toBeInstanceOf(StatementTimedOut);
  await impatient.transaction(async (holder) => {
    await holder.query('UPDATE item SET value = 1 WHERE id = 1');
    await expect(impatient.query('UPDATE item SET value = 2 WHERE id = 1')).rejects.toBeInstanceOf(LockNotAvailable);
  });
  expect(await database.query('SELECT value FROM item WHERE id = 1')).toEqual([{ value: 1 }]);
});

test('a server that refuses, and a database that is not there, are unreachable', async () => {
  const { url, connect } = await createTestDatabase();
  const refusing = new URL(url);
  refusing.port = '1';
  const absent = new URL(url);
  absent.pathname = '/nowhere';
  for (const target of [refusing, absent]) {
    const database = connect({ url: target.href });
    await expect(database.query('SELECT 1')).rejects.toBeInstanceOf(DatabaseUnreachable);
    await expect(database.transaction((tx) => tx.query('SELECT 1'))).rejects.toBeInstanceOf(DatabaseUnreachable);
  }
});

test('a deadlock is broken and both transactions are done, the victim in a second try', async () => {
  const { connect } = await createTestDatabase();
  const database = connect({ schema: 'public' });
  await createTable(database);
  let tries = 0;
  const bothHoldOne = Promise.withResolvers<void>();
  const lockBoth = (first: number, second: number) =>
    database.transaction(async (tx) => {
      await tx.query('UPDATE item SET value = value + 1 WHERE id = $1', [first]);
      if (++tries === 2) bothHoldOne.resolve();
      await bothHoldOne.promise;
      await tx.query('UPDATE item SET value = value + 1 WHERE id = $1', [second]);
    });
  await Promise.all([lockBoth(1, 2), lockBoth(2, 1)]);
  expect(tries).toBe(3);
  expect(await database.query('SELECT value FROM item ORDER BY id')).toEqual([{ value: 2 }, { value: 2 }]);
});

/** A serializable transaction whose snapshot is taken, and spoilt by another's write `spoils` times. */
async function incrementSerializably(database: Database, spoils: number): Promise<number> {
  let tries = 0;
  await database.transaction(async (tx) => {
    tries += 1;
    await tx.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    await tx.query('SELECT value FROM item WHERE id = 1');
    if (tries <= spoils) await database.query('UPDATE item SET value = value + 10 WHERE id = 1');
    await tx.query('UPDATE item SET value = value + 1 WHERE id = 1');
  });
  return tries;
}

test('a serialization failure is run again from the start', async () => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  expect(await incrementSerializably(database, 2)).toBe(3);
  expect(await database.query('SELECT value FROM item WHERE id = 1')).toEqual([{ value: 21 }]);
});

test('a conflict that never ends is given up on its budget', async () => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  await expect(incrementSerializably(database, Number.POSITIVE_INFINITY)).rejects.toBeInstanceOf(TransactionConflict);
  expect(await database.query('SELECT value FROM item WHERE id = 1')).toEqual([{ value: 60 }]);
});

test('an error of the work itself rolls back, once, and comes out unchanged', async () => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  const fault = new Error('no');
  let tries = 0;
  const failing = database.transaction(async (tx) => {
    tries += 1;
    await tx.query('UPDATE item SET value = 9');
    throw fault;
  });
  await expect(failing).rejects.toBe(fault);
  expect(tries).toBe(1);
  expect(await database.query('SELECT FROM item WHERE value = 9')).toEqual([]);
});

test('a transaction that swallowed a failed statement says that nothing was committed', async () => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  const swallowing = database.transaction(async (tx) => {
    await tx.query('UPDATE item SET value = 9');
    await tx.query('SELECT 1/0').catch(() => undefined);
  });
  await expect(swallowing).rejects.toBeInstanceOf(DatabaseError);
  expect(await database.query('SELECT FROM item WHERE value = 9')).toEqual([]);
});

test('a connection killed in a transaction leaves nothing of it, and the pool goes on', async () => {
  const { connect } = await createTestDatabase();
  const database = connect({ schema: 'public' });
  const killer = connect();
  await createTable(database);
  const killedBetweenStatements = database.transaction(async (tx) => {
    await tx.query('UPDATE item SET value = 9');
    await terminate(killer, (await tx.query<{ pid: number }>(PID))[0]?.pid);
    await tx.query('UPDATE item SET value = 10');
  });
  await expect(killedBetweenStatements).rejects.toBeInstanceOf(DatabaseUnreachable);
  const killedBeforeCommit = database.transaction(async (tx) => {
    await tx.query('UPDATE item SET value = 9');
    await terminate(killer, (await tx.query<{ pid: number }>(PID))[0]?.pid);
  });
  await expect(killedBeforeCommit).rejects.toBeInstanceOf(DatabaseUnreachable);
  const killedInStatement = database.transaction(async (tx) => {
    await tx.query('UPDATE item SET value = 9');
    const [own] = await tx.query<{ pid: number }>(PID);
    await Promise.all([tx.query('SELECT pg_sleep(30)'), terminate(killer, own?.pid)]);
  });
  await expect(killedInStatement).rejects.toBeInstanceOf(DatabaseUnreachable);
  expect(await database.query('SELECT FROM item WHERE value >= 9')).toEqual([]);
  expect(await database.transaction((tx) => tx.query('SELECT value FROM item'))).toHaveLength(2);
});

test('idle connections that were killed are replaced', async () => {
  const { connect } = await createTestDatabase();
  const database = connect();
  const killer = connect();
  const pids = await Promise.all([1, 2, 3].map(async () => (await database.query<{ pid: number }>(PID))[0]?.pid));
  for (const pid of new Set(pids)) await terminate(killer, pid);
  const after = await waitFor('a new connection', () => database.query<{ pid: number }>(PID).catch(() => undefined));
  expect(pids).not.toContain(after[0]?.pid);
});

test("the server's time-out of an idle transaction ends it as unreachable", async () => {
  const database = (await createTestDatabase()).connect({ schema: 'public' });
  await createTable(database);
  const idle = database.transaction(async (tx) => {
    await tx.query('UPDATE item SET value = 9');
    await tx.query(`SET idle_in_transaction_session_timeout = '50ms'`);
    const [own] = await tx.query<{ pid: number }>(PID);
    await waitFor(
      'the server to hang up',
      async () => (await database.query('SELECT FROM pg_stat_activity WHERE pid = $1', [own?.pid])).length === 0,
    );
    await tx.query('SELECT 1');
  });
  await expect(idle).rejects.toBeInstanceOf(DatabaseUnreachable);
  expect(await database.query('SELECT FROM item WHERE value = 9')).toEqual([]);
});

test('a transaction that stands still ends before those whose beats wait for it are taken for missing', async () => {
  const [beatSeconds, database] = [5, (await createTestDatabase()).connect()];
  const [idle] = await database.query<{ seconds: number }>(
    `SELECT extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)::float8 AS seconds`,
  );
  expect(idle?.seconds).toBeGreaterThan(0);
  expect((idle?.seconds ?? 0) + beatSeconds).toBeLessThan(thresholds(beatSeconds, { late: null, missing: null }).missingAfterSeconds);
});

test("listening survives its connection's death and hears again; stop ends it", async () => {
  const { connect } = await createTestDatabase();
  const database = connect();
  const heard: string[] = [];
  const listener = database.listen('My "channel"', { onMessage: (payload) => heard.push(payload) });
  const listening = (not?: number) =>
    waitFor('the listening connection', async () => {
      const [row] = await database.query<{ pid: number }>(
        `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle' AND pid IS DISTINCT FROM $1`,
        [not ?? null],
      );
      return row?.pid;
    });
  const first = await listening();
  await database.query('SELECT pg_notify($1, $2)', ['My "channel"', 'before']);
  await waitFor('the first message', () => heard.includes('before'));
  await terminate(database, first);
  await listening(first);
  await database.query('SELECT pg_notify($1, $2)', ['My "channel"', 'after']);
  await waitFor('the second message', () => heard.includes('after'));
  await listener.stop();
  const left = await database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`);
  expect(left).toEqual([]);
  expect(heard).toEqual(['before', 'after']);
});

test('a hearer that throws ends neither the listening nor the process', async () => {
  const database = (await createTestDatabase()).connect();
  const heard: string[] = [];
  const listener = database.listen('channel', {
    onMessage: (payload) => {
      heard.push(payload);
      throw new Error('deaf');
    },
  });
  await waitFor('two messages', async () => {
    await database.query(`SELECT pg_notify('channel', '')`);
    return heard.length >= 2;
  });
  await listener.stop();
});

test("the URL's own settings do not unsettle ours", async () => {
  const { url, connect } = await createTestDatabase();
  const spelled = new URL(url);
  spelled.searchParams.set('application_name', 'theirs');
  spelled.searchParams.set('options', '-c search_path=theirs -c work_mem=9MB');
  const database = connect({ url: spelled.href, schema: 'ours' });
  const [settings] = await database.query(
    `SELECT current_setting('application_name') AS name, current_setting('search_path') AS path, current_setting('work_mem') AS memory`,
  );
  expect(settings).toEqual({ name: 'test', path: '"ours","pgboss"', memory: '9MB' });
});

test('a pool opens its sessions in UTC, with its time-outs', async () => {
  const { url, connect } = await createTestDatabase();
  const database = connect({ statementTimeoutMs: 1234, lockTimeoutMs: 567 });
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(`ALTER ROLE CURRENT_USER IN DATABASE "${new URL(url).pathname.slice(1)}" SET TimeZone = 'Asia/Kolkata'`);
  await client.query(`ALTER ROLE CURRENT_USER IN DATABASE "${new URL(url).pathname.slice(1)}" SET DateStyle = 'German, DMY'`);
  await client.end();
  const [settings] = await database.query(
    `SELECT current_setting('TimeZone') AS zone, left(date '2026-11-25'::text, 4) AS year, current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock`,
  );
  expect(settings).toEqual({ zone: 'UTC', year: '2026', statement: '1234ms', lock: '567ms' });
});
