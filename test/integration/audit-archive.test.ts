import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { verifyArchive } from '../../src/audit/archived.ts';
import { sealAudit, verifyAudit } from '../../src/audit/chain.ts';
import { verify } from '../../src/cli/audit.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { runArchivePrune } from '../../src/retention/prune.ts';
import { createUnitReader } from '../../src/retention/read-unit.ts';
import { addEvents, createArchiveDirectory, filesIn } from '../support/archive.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext } from '../support/executor.ts';

const ORDER = { actor: 'ann@desk', reason: 'the disk is full' };
const FOR_EVER = Number.POSITIVE_INFINITY;

async function setUp(env: Record<string, string> = {}) {
  const fleet = await createFleetDatabase();
  const { database } = fleet;
  const context = await openTestContext(fleet.url, { RECLAIMD_RETAIN_AUDIT: '90d', ...env });
  const prune = async () => {
    const run = await runArchivePrune(context.pruneDependencies(), ORDER);
    await sealAudit(database);
    return 'classes' in run ? run.classes.audit : undefined;
  };
  const archive = (keptSeconds = FOR_EVER) =>
    verifyArchive(database, createUnitReader(database, { directory: env['RECLAIMD_ARCHIVE_DIR'], keptSeconds }));
  return { ...fleet, prune, archive };
}

/** In the table, and in files. */
const PLACES = [
  ['the table', async () => ({})],
  ['files', async () => ({ RECLAIMD_ARCHIVE_DIR: await createArchiveDirectory() })],
] as const;

test.each(PLACES)('the chain verifies before, after and across the archive in %s', async (_, place) => {
  const { database, prune, archive, url } = await setUp(await place());
  await addEvents(database, 2_300, 200);
  await addEvents(database, 7, 10);
  const { head } = await verifyAudit(database);
  expect(await verifyAudit(database, head)).toMatchObject({ intact: true, begins: 1, checked: 2_307 });
  expect(await prune()).toEqual({ pruned: 2_300, archived: 2_300, left: false });
  // The run itself is an event, too.
  expect(await verifyAudit(database, head)).toMatchObject({ intact: true, begins: 2_301, checked: 8, problems: [] });
  expect(await archive()).toEqual({ intact: true, checked: 2_300, begins: 1, problems: [] });
  const later = await openTestContext(url, { RECLAIMD_RETAIN_AUDIT: '30d' });
  await addEvents(database, 3, 40);
  await runArchivePrune(later.pruneDependencies(), ORDER);
  // Three of forty days ago were chained last: what is before them is younger, and the beginning only goes as a whole.
  expect(await verifyAudit(database)).toMatchObject({ intact: true, begins: 2_301 });
});

test('events that say much make small units', async () => {
  const { database, prune, archive } = await setUp({ RECLAIMD_ARCHIVE_DIR: await createArchiveDirectory() });
  await database.query(
    `INSERT INTO audit (at, actor, action, target, outcome, node, detail)
     SELECT now() - interval '200 days', 'a', 'job_retry', 'q', 'done', 'n', jsonb_build_object('big', repeat('x', 3000000)) FROM generate_series(1, 5)`,
  );
  await sealAudit(database);
  expect(await prune()).toEqual({ pruned: 5, archived: 5, left: false });
  expect(await database.query('SELECT rows FROM archive_file ORDER BY id')).toEqual([{ rows: 2 }, { rows: 2 }, { rows: 1 }]);
  expect(await archive()).toMatchObject({ intact: true, checked: 5 });
});

test('a chain whose every event is archived goes on from its checkpoint', async () => {
  const { database, prune, archive } = await setUp();
  await addEvents(database, 5, 200);
  const { head } = await verifyAudit(database);
  await prune();
  expect(await verifyAudit(database, head)).toMatchObject({ intact: true, begins: 6, checked: 1 });
  await addEvents(database, 4, 0);
  expect(await verifyAudit(database, head)).toMatchObject({ intact: true, begins: 6, checked: 5 });
  expect(await archive()).toMatchObject({ intact: true, checked: 5 });
});

test('what happened since the oldest open incident stays', async () => {
  const { database, prune } = await setUp();
  await addEvents(database, 5, 200);
  await addEvents(database, 5, 150);
  await database.query(
    `INSERT INTO incident (class, fingerprint, summary, evidence, opened_at) VALUES ('held_orphan', 'f', 's', '{}', now() - interval '160 days')`,
  );
  expect(await prune()).toMatchObject({ pruned: 5 });
  expect(await prune()).toMatchObject({ pruned: 0 });
  await database.query('UPDATE incident SET resolved_at = now()');
  expect(await prune()).toMatchObject({ pruned: 5 });
});

test.each([
  ['changed', `UPDATE audit SET reason = 'another' WHERE seq = 3`, 'event 3 of the audit: the archived event was changed'],
  ['removed', 'DELETE FROM audit WHERE seq = 4', 'event 4 of the audit is gone'],
])('what was tampered with is evidence: an event that was %s keeps everything where it is', async (_, statement, said) => {
  const { database, prune } = await setUp();
  await addEvents(database, 5, 200);
  await database.query('ALTER TABLE audit DISABLE TRIGGER USER');
  await database.query(statement);
  await database.query('ALTER TABLE audit ENABLE TRIGGER USER');
  expect(await prune()).toMatchObject({ pruned: 0, left: true, error: expect.stringContaining(said) });
  expect(await verifyAudit(database)).toMatchObject({ intact: false });
  expect(await database.query('SELECT FROM audit_checkpoint')).toEqual([]);
});

test('a row that is removed from what is left is found across the checkpoint', async () => {
  const { database, prune } = await setUp();
  await addEvents(database, 5, 200);
  await addEvents(database, 5, 10);
  await prune();
  for (const table of ['audit', 'audit_seal']) {
    await database.query(`ALTER TABLE ${table} DISABLE TRIGGER USER`);
    await database.query(`DELETE FROM ${table} WHERE seq = 6`);
    await database.query(`ALTER TABLE ${table} ENABLE TRIGGER USER`);
  }
  expect(await verifyAudit(database)).toMatchObject({ intact: false, problems: [{ position: 6, what: 'the seals 6 to 6 are gone' }] });
});

test('nobody removes an event but through the archive: not with a forged unit, not a young one', async () => {
  const { database } = await setUp();
  await addEvents(database, 5, 200);
  await addEvents(database, 5, 10);
  const [seal] = await database.query<{ hash: Buffer }>('SELECT chain_hash AS hash FROM audit_seal WHERE position = 5');
  const [last] = await database.query<{ hash: Buffer }>('SELECT chain_hash AS hash FROM audit_seal WHERE position = 10');
  await expect(database.query('DELETE FROM audit WHERE seq = 1')).rejects.toThrow('append-only: delete refused');
  await expect(database.query('DELETE FROM audit_seal WHERE seq = 1')).rejects.toThrow('append-only: delete refused');
  const ask = (through: number, hash: Buffer | undefined, file: string | null) =>
    database.query('SELECT prune_audit($1, $2, $3)', [through, hash, file]);
  await expect(ask(5, seal?.hash, 'none.jsonl.gz')).rejects.toThrow('are not in the archive');
  await expect(ask(5, last?.hash, null)).rejects.toThrow('has no seal 5 with that hash');
  await expect(ask(10, last?.hash, null)).rejects.toThrow('younger than 30 days');
  const register = (name: string, rows: number) =>
    database.query(
      `INSERT INTO archive_file (run_id, class, node, directory, name, rows, bytes, sha256) VALUES (1, 'audit', 'n', '/d', $1, $2, 1, '')`,
      [name, rows],
    );
  await register('short.jsonl.gz', 4);
  await expect(ask(5, seal?.hash, 'short.jsonl.gz')).rejects.toThrow('are not in the archive');
  // What the function itself has put there stays, and is what it was.
  await ask(5, seal?.hash, null);
  await expect(database.query('DELETE FROM archive')).rejects.toThrow('a unit of the audit stays in the archive');
  await expect(database.query(`UPDATE archive SET record = '{}'`)).rejects.toThrow('a unit of the audit stays in the archive');
  await expect(database.query('DELETE FROM archive_file')).rejects.toThrow('a unit of the audit stays in the archive');
  await database.query('ALTER TABLE archive DISABLE TRIGGER USER');
  await database.query('DELETE FROM archive');
  expect(await verifyAudit(database)).toMatchObject({ intact: false, problems: [{ what: 'the events 1 to 5 are gone from the archive' }] });
  await expect(database.query('UPDATE audit_checkpoint SET position = 1')).rejects.toThrow('append-only');
});

test('a checkpoint from another hand lets nothing go that is not in the archive, or is young', async () => {
  const { database, prune } = await setUp();
  await addEvents(database, 3, 200);
  await addEvents(database, 2, 10);
  const forge = (position: number, file: string, firstPosition = 1, sql: Sql = database) =>
    sql.query(
      `INSERT INTO audit_checkpoint SELECT position, chain_hash, $2, decode(repeat('00', 32), 'hex'), NULL, $3, now() - interval '400 days'
       FROM audit_seal WHERE position = $1`,
      [position, firstPosition, file],
    );
  await expect(forge(2, 'x')).rejects.toThrow('the events up to 2 are not in the archive');
  await expect(database.query('DELETE FROM audit WHERE seq <= 2')).rejects.toThrow('append-only: delete refused');
  await expect(database.query('DELETE FROM audit_seal WHERE seq <= 2')).rejects.toThrow('append-only: delete refused');
  for (const rows of [1, 3, 4])
    await database.query(
      `INSERT INTO archive_file (run_id, class, node, directory, name, rows, bytes, sha256) VALUES (1, 'audit', 'n', '/d', $1, $2, 1, '')`,
      [`of ${rows}`, rows],
    );
  await expect(forge(4, 'of 4'), 'the fourth is young').rejects.toThrow('are not in the archive');
  await expect(forge(2, 'of 1')).rejects.toThrow('are not in the archive');
  await expect(forge(2, 'of 1', 2)).rejects.toThrow('are not in the archive');
  // Nor is one older than it is: its unit would not be missed.
  const undone = new Error('undone');
  const dating = database.transaction(async (tx) => {
    await forge(3, 'of 3', 1, tx);
    expect(await tx.query(`SELECT FROM audit_checkpoint WHERE archived_at > now() - interval '1 hour'`)).toHaveLength(1);
    throw undone;
  });
  await expect(dating).rejects.toBe(undone);
  expect(await verifyAudit(database)).toMatchObject({ intact: true, begins: 1, checked: 5 });
  expect(await prune()).toMatchObject({ pruned: 3 });
});

test('an archived event that is changed, removed or exchanged is found, and so is a unit that is gone', async () => {
  const { database, prune, archive } = await setUp();
  await addEvents(database, 5, 200);
  await prune();
  await database.query('ALTER TABLE archive DISABLE TRIGGER USER');
  const change = (record: string) => database.query(`UPDATE archive SET record = ${record} WHERE class = 'audit'`);
  const [original] = await database.query<{ record: object }>(`SELECT record FROM archive WHERE class = 'audit'`);
  const back = () => database.query(`UPDATE archive SET record = $1 WHERE class = 'audit'`, [original?.record]);
  await change(`jsonb_set(record, '{events,2,reason}', '"another"')`);
  expect(await archive()).toMatchObject({ intact: false, problems: [{ seq: '3', position: 3, what: 'the archived event was changed' }] });
  await back();
  await change(`record #- '{events,1}'`);
  expect(await archive()).toMatchObject({ intact: false, problems: [{ position: 2, what: 'the archived events 2 to 2 are gone' }] });
  await back();
  await change(`record #- '{events,4}'`);
  expect(await archive()).toMatchObject({ intact: false, problems: [{ position: 5, what: 'the archived events 5 to 5 are gone' }] });
  await back();
  expect(await archive()).toMatchObject({ intact: true });
  await database.query(`DELETE FROM archive WHERE class = 'audit'`);
  expect(await archive()).toMatchObject({ intact: false, problems: [{ position: 1, what: 'the events 1 to 5 are not in the archive' }] });
  // Past the archive's own period it may be gone, but not within the database's 30 days.
  await database.query('ALTER TABLE audit_checkpoint DISABLE TRIGGER USER');
  await database.query(`UPDATE audit_checkpoint SET archived_at = now() - interval '2 days'`);
  expect(await archive(86_400)).toMatchObject({ intact: false });
  await database.query(`UPDATE audit_checkpoint SET archived_at = now() - interval '31 days'`);
  expect(await archive(86_400)).toEqual({ intact: true, checked: 0, begins: null, problems: [] });
});

test('files of the audit: changed, gone, or on another node', async () => {
  const directory = await createArchiveDirectory();
  const { database, prune, archive } = await setUp({ RECLAIMD_ARCHIVE_DIR: directory });
  await addEvents(database, 5, 200);
  await prune();
  const name = (await filesIn(directory)).find((file) => file.endsWith('.gz')) ?? '';
  const content = await readFile(join(directory, name));
  await writeFile(join(directory, name), content.subarray(1));
  expect(await archive()).toMatchObject({ intact: false, problems: [{ what: expect.stringContaining("not the manifest's") }] });
  await rm(join(directory, name));
  expect(await archive()).toMatchObject({
    intact: false,
    problems: [{ what: expect.stringContaining(`node test has written it into ${directory}`) }],
  });
});

test('what was noted of the chain is compared in the archive, too, and is never taken on trust', async () => {
  const { url, database, prune } = await setUp();
  await addEvents(database, 5, 200);
  const { head: early } = await verifyAudit(database);
  await addEvents(database, 5, 200);
  const { head: last } = await verifyAudit(database);
  await addEvents(database, 2, 1);
  await prune();
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  const compare = async (expect: string, archive?: true) => {
    lines.length = 0;
    return verify(surroundings, { expect, ...(archive ? { archive } : {}) });
  };
  expect(await compare(`${early.position}:${early.hash}`)).toBe(1);
  expect(lines.join('\n')).toContain('`audit verify --archive` compares it');
  for (const { position, hash } of [early, last]) {
    expect(await compare(`${position}:${hash}`, true)).toBe(0);
    expect(await compare(`${position}:${'ab'.repeat(32)}`, true)).toBe(1);
    expect(lines.join('\n')).toContain('it was written anew');
  }
  await database.query('ALTER TABLE archive DISABLE TRIGGER USER');
  await database.query('DELETE FROM archive');
  expect(await compare(`${early.position}:${early.hash}`, true)).toBe(1);
  expect(lines.join('\n')).toContain('cannot be compared');
});

test('what is archived while the chain is verified is no fault of it', async () => {
  const { database, prune } = await setUp();
  await addEvents(database, 2_300, 200);
  await addEvents(database, 3, 1);
  let pages = 0;
  const pruning: Database = {
    ...database,
    transaction: (work) =>
      database.transaction((tx) =>
        work({
          ...tx,
          query: async (text, values) => {
            // Between two pages of the chain.
            if (text.includes('FROM audit_seal s LEFT JOIN') && ++pages === 3) expect(await prune()).toMatchObject({ pruned: 2_300 });
            return tx.query(text, values);
          },
        }),
      ),
  };
  expect(await verifyAudit(pruning)).toMatchObject({ intact: true, begins: 1, checked: 2_303, problems: [] });
  expect(await verifyAudit(database)).toMatchObject({ intact: true, begins: 2_301 });
});

test('the command verifies both, and says where each begins', async () => {
  const { url, database, prune } = await setUp();
  await addEvents(database, 5, 200);
  await addEvents(database, 2, 1);
  await prune();
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  expect(await verify(surroundings, { archive: true })).toBe(0);
  expect(lines.join('\n')).toMatch(
    /^in the archive: intact: 5 events, from position 1\nintact: 3 events, from position 6: those before are in the archive\nend of the chain/,
  );
  lines.length = 0;
  await database.query('ALTER TABLE archive DISABLE TRIGGER USER');
  await database.query(`DELETE FROM archive`);
  expect(await verify(surroundings, { archive: true, json: true })).toBe(1);
  expect(JSON.parse(lines.join('\n'))).toMatchObject({ intact: false, archive: { intact: false } });
});
