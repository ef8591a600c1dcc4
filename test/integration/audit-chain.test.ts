import { expect, test } from 'vitest';
import { appendAudit } from '../../src/audit/append.ts';
import { sealAudit, verifyAudit } from '../../src/audit/chain.ts';
import { list, verify } from '../../src/cli/audit.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';

const event = (target: string) =>
  ({
    actor: 'ann@desk',
    action: 'job_retry',
    target,
    outcome: 'done',
    reason: 'because — it "was" so',
    node: 'n',
    detail: { b: 1, a: [target, 1.5] },
  }) as const;

async function createAudit(count: number) {
  const fleet = await createFleetDatabase();
  await append(fleet.database, count);
  return fleet;
}

const append = (database: Database, count: number) =>
  database.transaction(async (tx) => {
    for (let index = 0; index < count; index++) await appendAudit(tx, event(`mail/${index}`));
  });

/** What somebody with the owner's rights can do, who knows of the triggers. */
async function tamper(database: Database, ...statements: string[]): Promise<void> {
  const tables = ['audit', 'audit_seal', 'audit_head'];
  await database.transaction(async (tx: Sql) => {
    for (const table of tables) await tx.query(`ALTER TABLE ${table} DISABLE TRIGGER USER`);
    for (const statement of statements) await tx.query(statement);
    for (const table of tables) await tx.query(`ALTER TABLE ${table} ENABLE TRIGGER USER`);
  });
}

/** A database with something that happens at the beginning of each transaction. */
function beforeWork(database: Database, happens: (tx: Sql) => Promise<unknown>): Database {
  return {
    ...database,
    transaction: (work) =>
      database.transaction(async (tx) => {
        await happens(tx);
        return work(tx);
      }),
  };
}

test('an untouched audit is intact, over several pages, and in any time zone', async () => {
  const { database } = await createAudit(1_100);
  expect(await sealAudit(database)).toBe(1_100);
  expect(await sealAudit(database)).toBe(0);
  await append(database, 3);
  expect(await verifyAudit(database)).toMatchObject({ intact: true, checked: 1_100, unsealed: 3, problems: [] });
  await sealAudit(database);
  const inTokyo = beforeWork(database, (tx) => tx.query(`SET LOCAL TIME ZONE 'Asia/Tokyo'`));
  expect(await verifyAudit(inTokyo)).toMatchObject({ intact: true, checked: 1_103, unsealed: 0 });
});

test.each<[string, string[], object[]]>([
  ['changed', [`UPDATE audit SET reason = 'another' WHERE seq = 3`], [{ seq: '3', what: 'the row was changed' }]],
  ['changed in its detail only', [`UPDATE audit SET detail = '{}' WHERE seq = 3`], [{ seq: '3', what: 'the row was changed' }]],
  ['removed', ['DELETE FROM audit WHERE seq = 4'], [{ seq: '4', what: 'the row was removed' }]],
  [
    'removed with its seal',
    ['DELETE FROM audit WHERE seq = 4', 'DELETE FROM audit_seal WHERE seq = 4'],
    [{ position: 4, what: 'the seals 4 to 4 are gone' }],
  ],
  [
    'removed at the end, with its seal',
    ['DELETE FROM audit WHERE seq = 5', 'DELETE FROM audit_seal WHERE seq = 5'],
    [{ position: 5, what: expect.stringContaining('its end was cut off') }],
  ],
  [
    'exchanged with another',
    [
      'CREATE TEMP TABLE t AS SELECT * FROM audit WHERE seq IN (2, 3)',
      'DELETE FROM audit WHERE seq IN (2, 3)',
      `INSERT INTO audit OVERRIDING SYSTEM VALUE SELECT 5 - seq, at, actor, action, target, outcome, reason, node, detail FROM t`,
    ],
    [
      { seq: '2', what: 'the row was changed' },
      { seq: '3', what: 'the row was changed' },
    ],
  ],
  [
    'changed, and its seal made to fit',
    [`UPDATE audit SET reason = 'another' WHERE seq = 3`, `UPDATE audit_seal SET row_hash = sha256('x') WHERE seq = 3`],
    [
      { seq: '3', what: 'the seal was changed' },
      { seq: '3', what: 'the row was changed' },
    ],
  ],
  [
    'inserted behind the chain',
    [
      `INSERT INTO audit OVERRIDING SYSTEM VALUE SELECT 0, at, 'eve', action, target, outcome, reason, node, detail FROM audit WHERE seq = 1`,
    ],
    [{ seq: '0', what: expect.stringContaining('inserted') }],
  ],
])('a row %s is found', async (_, statements, problems) => {
  const { database } = await createAudit(5);
  await sealAudit(database);
  await tamper(database, ...statements);
  const result = await verifyAudit(database);
  expect(result).toMatchObject({ intact: false, problems });
  expect(result.problems).toHaveLength(problems.length);
});

test('a chain that was written anew as a whole differs from the end that was noted', async () => {
  const { database } = await createAudit(5);
  await sealAudit(database);
  const { head } = await verifyAudit(database);
  await append(database, 1);
  await sealAudit(database);
  expect(await verifyAudit(database, head)).toMatchObject({ intact: true });
  await tamper(
    database,
    `UPDATE audit SET reason = 'another' WHERE seq = 2`,
    'DELETE FROM audit_seal',
    `UPDATE audit_head SET position = 0, chain_hash = decode(repeat('00', 32), 'hex'), settled_seq = 0, seen_seq = 0`,
  );
  await sealAudit(database);
  expect(await verifyAudit(database)).toMatchObject({ intact: true });
  expect(await verifyAudit(database, head)).toMatchObject({
    intact: false,
    problems: [{ position: 5, what: expect.stringContaining('written anew') }],
  });
});

test('a transaction that commits late is chained late, never lost and never an alarm', async () => {
  const { database } = await createAudit(1);
  const { promise: mayCommit, resolve: commit } = Promise.withResolvers<void>();
  const { promise: appended, resolve: tell } = Promise.withResolvers<void>();
  const late = database.transaction(async (tx) => {
    await appendAudit(tx, event('late'));
    tell();
    await mayCommit;
  });
  await appended;
  await append(database, 2);
  expect(await sealAudit(database)).toBe(3);
  await append(database, 1);
  expect(await sealAudit(database)).toBe(1);
  expect(await verifyAudit(database)).toMatchObject({ intact: true, unsealed: 0 });
  commit();
  await late;
  expect(await verifyAudit(database)).toMatchObject({ intact: true, unsealed: 1 });
  expect(await sealAudit(database)).toBe(1);
  expect(await verifyAudit(database)).toMatchObject({ intact: true, checked: 5, unsealed: 0 });
});

test('a transaction that began before the last one that has ended, and commits after the look, is not taken for forged', async () => {
  const { url, connect } = await createFleetDatabase();
  const database = connect({ url });
  const early = Promise.withResolvers<void>();
  const earlyMay = Promise.withResolvers<void>();
  const late = Promise.withResolvers<void>();
  const lateMay = Promise.withResolvers<void>();
  // Its transaction has the smaller id and the greater number; the other is under way beyond everything that has ended.
  const first = database.transaction(async (tx) => {
    await tx.query('SELECT pg_current_xact_id()');
    early.resolve();
    await earlyMay.promise;
    await appendAudit(tx, event('greater number'));
  });
  await early.promise;
  const second = database.transaction(async (tx) => {
    await appendAudit(tx, event('smaller number'));
    late.resolve();
    await lateMay.promise;
  });
  await late.promise;
  earlyMay.resolve();
  await first;
  for (let look = 0; look < 3; look++) await sealAudit(database);
  lateMay.resolve();
  await second;
  await sealAudit(database);
  expect(await verifyAudit(database)).toMatchObject({ intact: true, checked: 2, unsealed: 0 });
});

test.each([
  ['moved back', `UPDATE audit_head SET position = 0, chain_hash = decode(repeat('00', 32), 'hex')`],
  ['removed', 'DELETE FROM audit_head'],
  ['emptied', 'TRUNCATE audit_head'],
  ['given another hash', `UPDATE audit_head SET chain_hash = sha256('x')`],
  ['settled less', 'UPDATE audit_head SET settled_seq = settled_seq - 1'],
  ['settled beyond what was seen', 'UPDATE audit_head SET settled_seq = settled_seq + 1000'],
  ['said to have seen what is not there', 'UPDATE audit_head SET seen_seq = seen_seq + 1000, settled_seq = settled_seq'],
])('the end of the chain cannot be %s; who takes the trigger away is found', async (name, statement) => {
  const { url, database } = await createAudit(5);
  await sealAudit(database);
  await sealAudit(database);
  await expect(database.query(statement)).rejects.toThrow('moves forward along its seals only');
  if (/seen|settled/.test(name)) return;
  await tamper(database, statement);
  expect(await verifyAudit(database)).toMatchObject({
    intact: false,
    problems: [{ what: expect.stringContaining('the end of the chain was') }],
  });
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  await append(database, 1);
  expect(await verify(surroundings, {})).toBe(1);
  expect(lines.join('\n')).toMatch(
    statement.startsWith('UPDATE audit_head SET chain_hash') ? /the end of the chain|the seal was changed/ : /cannot be chained/,
  );
});

test('five who seal at once, while others append: one chain', async () => {
  const { database } = await createAudit(10);
  await Promise.all([...Array.from({ length: 5 }, () => sealAudit(database)), ...Array.from({ length: 5 }, () => append(database, 20))]);
  await sealAudit(database);
  expect(await verifyAudit(database)).toMatchObject({ intact: true, checked: 110, unsealed: 0 });
});

test('the daemon chains by itself', async () => {
  const { url, database } = await createAudit(3);
  await startTestDaemon(url);
  await waitFor('the chain', async () => (await verifyAudit(database)).checked >= 3);
});

test('the commands list what fits, and verify with an exit code', async () => {
  const { url, database } = await createAudit(3);
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  await list(surroundings, { limit: '2', json: true });
  expect(JSON.parse(lines.join('\n'))).toMatchObject([{ target: 'mail/1' }, { target: 'mail/2', detail: { b: 1 } }]);
  lines.length = 0;
  await list(surroundings, { limit: '10', target: 'mail/0' });
  expect(lines.join('\n')).toMatch(/^AT.*\n.*ann@desk\s+job_retry\s+mail\/0\s+done\s+because/);
  await expect(list(surroundings, { limit: '10', outcome: 'fine' })).rejects.toThrow('--outcome: given fine; allowed: done');
  lines.length = 0;
  expect(await verify(surroundings, {})).toBe(0);
  expect(lines.join('\n')).toMatch(/^intact: 3 events\nend of the chain, to be noted elsewhere: 3:[0-9a-f]{64}$/);
  const noted = /3:[0-9a-f]{64}/.exec(lines.join('\n'))?.[0] ?? '';
  expect(await verify(surroundings, { expect: noted })).toBe(0);
  await tamper(database, 'DELETE FROM audit WHERE seq = 2');
  lines.length = 0;
  expect(await verify(surroundings, { expect: noted })).toBe(1);
  expect(lines.join('\n')).toContain('event 2 (position 2): the row was removed');
  await expect(verify(surroundings, { expect: '3' })).rejects.toThrow('--expect');
});

test('--follow goes on with what comes', async () => {
  const { url, database } = await createAudit(1);
  const lines: string[] = [];
  const over = new AbortController();
  const following = list(
    { env: { DATABASE_URL: url }, out: (text) => lines.push(text), signal: over.signal },
    { limit: '10', follow: true },
  );
  await waitFor('what is there', () => lines.length === 1);
  await append(database, 2);
  await waitFor('what came', () => lines.length === 3);
  over.abort();
  await following;
  expect(lines.map((line) => JSON.parse(line).target)).toEqual(['mail/0', 'mail/0', 'mail/1']);
});
