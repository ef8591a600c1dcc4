import { createHash, randomUUID } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import * as command from '../../src/cli/retention.ts';
import { readLookTime } from '../../src/incidents/incident.ts';
import { ArchiveNotWritten, writeArchiveFile } from '../../src/retention/archive-file.ts';
import { projectBehind } from '../../src/retention/behind.ts';
import { type PruneResult, runArchivePrune } from '../../src/retention/prune.ts';
import { restoreFile } from '../../src/retention/restore.ts';
import { retentionStatus } from '../../src/retention/status.ts';
import { forgetOutOfReach, tidyArchive } from '../../src/retention/tidy.ts';
import { addDueRecoveries, createArchiveDirectory, createSmallDisk, filesIn } from '../support/archive.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext } from '../support/executor.ts';

const ORDER = { actor: 'ann@desk', reason: 'the disk is full' };

async function setUp(directory: string, node = 'test') {
  const fleet = await createFleetDatabase({ queues: [{ name: 'q' }] });
  const context = await openTestContext(fleet.url, { RECLAIMD_ARCHIVE_DIR: directory, RECLAIMD_NODE: node });
  const prune = async (): Promise<PruneResult> => {
    const run = await runArchivePrune(context.pruneDependencies(), ORDER);
    if (!('classes' in run)) throw new Error('another run is under way');
    return run.classes;
  };
  const rows = async (table: string) => (await fleet.database.query(`SELECT FROM ${table}`)).length;
  /** Of a node that keeps its archive for a day. */
  const dependenciesOf = (who: { node?: string; archiveDirectory?: string | undefined }) => {
    const dependencies = context.pruneDependencies();
    return { ...dependencies, ...who, periods: { ...dependencies.periods, archive: 86_400 } };
  };
  const tidy = (who: Parameters<typeof dependenciesOf>[0] = {}) => tidyArchive(dependenciesOf(who));
  const forget = (who: Parameters<typeof dependenciesOf>[0]) => forgetOutOfReach(dependenciesOf(who));
  return { ...fleet, context, prune, rows, tidy, forget };
}

test('what goes is in compressed JSON lines, with a manifest that says what is in them', async () => {
  const directory = await createArchiveDirectory();
  const { database, prune, rows, context } = await setUp(directory);
  await addDueRecoveries(database, 50);
  const [row] = await database.query<{ record: object }>('SELECT to_jsonb(r) AS record FROM recovery r ORDER BY id LIMIT 1');
  expect((await prune()).recoveries).toEqual({ pruned: 50, archived: 50, left: false });
  const [data = '', manifest = '', ...more] = await filesIn(directory);
  const [{ id = '' } = {}] = await database.query<{ id: string }>('SELECT id::text FROM fleet');
  expect(data).toMatch(new RegExp(`^recoveries-${id}-\\d{8}T\\d{6}Z-\\d+-0001\\.jsonl\\.gz$`));
  expect(more).toEqual([]);
  const content = await readFile(join(directory, data));
  const lines = gunzipSync(content).toString().trimEnd().split('\n');
  expect(lines).toHaveLength(50);
  expect(lines.map((line) => JSON.parse(line))).toContainEqual(row?.record);
  const [version] = await database.query<{ version: number }>('SELECT max(version) AS version FROM migration');
  expect(JSON.parse(await readFile(join(directory, manifest), 'utf8'))).toMatchObject({
    file: data,
    class: 'recoveries',
    rows: 50,
    bytes: content.length,
    sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
    node: 'test',
    schemaVersion: version?.version,
  });
  expect([await rows('recovery'), await rows('archive'), await rows('archive_file')]).toEqual([0, 0, 1]);
  expect((await retentionStatus(context.pruneDependencies())).files).toEqual({ count: 1, rows: 50, bytes: content.length });
});

test('rows that somebody holds are left for the next run: what goes without them is in files, and where nothing goes there is none', async () => {
  const directory = await createArchiveDirectory();
  const { database, prune } = await setUp(directory);
  await addDueRecoveries(database, 3_000);
  const registered = () => database.query<{ name: string; rows: number }>('SELECT name, rows FROM archive_file ORDER BY name');
  const written = async () => (await filesIn(directory)).filter((name) => name.endsWith('.gz'));
  const enough = Promise.withResolvers<void>();
  onTestFinished(() => enough.resolve());
  const held = Promise.withResolvers<void>();
  const holding = database.transaction(async (tx) => {
    await tx.query(`SELECT FROM recovery WHERE id = (SELECT max(id) FROM recovery) FOR UPDATE`);
    held.resolve();
    await enough.promise;
  });
  await held.promise;
  expect((await prune()).recoveries).toEqual({ pruned: 2_999, archived: 2_999, left: false });
  const files = await registered();
  expect(files.reduce((sum, { rows }) => sum + rows, 0)).toBe(2_999);
  expect(await written()).toEqual(files.map(({ name }) => name));
  expect((await prune()).recoveries).toMatchObject({ pruned: 0 });
  expect(await written()).toEqual(files.map(({ name }) => name));
  enough.resolve();
  await holding;
  expect((await prune()).recoveries).toEqual({ pruned: 1, archived: 1, left: false });
  const [last, ...others] = (await registered()).filter(({ name }) => !files.some((file) => file.name === name));
  expect([last?.rows, others]).toEqual([1, []]);
  expect(await filesIn(directory)).toHaveLength(2 * (files.length + 1));
});

test('restore reads a file back into a table, once however often; the command is audited', async () => {
  const directory = await createArchiveDirectory();
  const { url, database, prune } = await setUp(directory);
  await addDueRecoveries(database, 6_000);
  const before = await database.query('SELECT to_jsonb(r) AS record FROM recovery r ORDER BY id');
  await prune();
  const names = (await filesIn(directory)).filter((name) => name.endsWith('.gz'));
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  for (const name of [...names, ...names])
    expect(await command.restore(surroundings, join(directory, name), { actor: 'ann@desk' })).toBe(0);
  expect(lines[0]).toMatch(/^\d+ recoveries are in "reclaimd"\.restored, where file = 'recoveries-.*\.jsonl\.gz', for 7d$/);
  expect(await database.query(`SELECT record FROM restored WHERE class = 'recoveries' ORDER BY (record->>'id')::int`)).toEqual(before);
  expect(await database.query(`SELECT actor, detail->>'class' AS class FROM audit WHERE action = 'retention_restore' LIMIT 1`)).toEqual([
    { actor: 'ann@desk', class: 'recoveries' },
  ]);
});

test('a file that was changed, cut or has lost its manifest is not restored, and nothing of it is', async () => {
  const directory = await createArchiveDirectory();
  const { url, database, prune, rows } = await setUp(directory);
  await addDueRecoveries(database, 20);
  await prune();
  const [name = '', manifest = ''] = await filesIn(directory);
  const path = join(directory, name);
  const content = await readFile(path);
  const restore = (file: string) =>
    command.restore({ env: { DATABASE_URL: url }, out: () => undefined, signal: new AbortController().signal }, file, {
      actor: 'ann@desk',
    });
  await writeFile(path, content.subarray(0, content.length - 8));
  await expect(restore(path)).rejects.toThrow("not the manifest's");
  await writeFile(path, content);
  const said = await readFile(join(directory, manifest), 'utf8');
  await writeFile(join(directory, manifest), said.replace('"rows": 20', '"rows": 21'));
  await expect(restore(path)).rejects.toThrow('it has 20 rows, its manifest says 21');
  await writeFile(join(directory, manifest), '{');
  await expect(restore(path)).rejects.toThrow('no manifest');
  await rm(join(directory, manifest));
  await expect(restore(path)).rejects.toThrow('ENOENT');
  await expect(restore(join(directory, 'x.json'))).rejects.toThrow('ends in .jsonl.gz');
  // Another file, with a manifest of its own.
  const other = gzipSync('{}\n');
  await writeFile(path, other);
  const sha256 = createHash('sha256').update(other).digest('hex');
  await writeFile(join(directory, manifest), JSON.stringify({ ...JSON.parse(said), rows: 1, bytes: other.length, sha256 }));
  await expect(restore(path)).rejects.toThrow('is registered');
  expect(await rows('restored')).toBe(0);
  const events = await database.query(
    `SELECT outcome, count(*)::int, bool_and(detail ? 'error') AS why FROM audit WHERE action = 'retention_restore' GROUP BY outcome`,
  );
  expect(events).toEqual([{ outcome: 'failed', count: 6, why: true }]);
});

test('a directory that is not there, or is none: nothing is removed, it is said why, and what is not archived goes all the same', async () => {
  const directory = await createArchiveDirectory();
  await writeFile(join(directory, 'file'), '');
  for (const bad of ['missing', 'file']) {
    const { database, prune, rows } = await setUp(join(directory, bad));
    await addDueRecoveries(database, 5);
    await database.query(
      `INSERT INTO workflow_action (queue, job_id, action, acted_at) VALUES ('q', gen_random_uuid(), 'retry', now() - interval '1 year')`,
    );
    const result = await prune();
    expect(result.recoveries).toMatchObject({
      pruned: 0,
      left: true,
      error: expect.stringContaining(`nothing can be archived in ${join(directory, bad)}`),
    });
    expect(result.workflow_actions).toMatchObject({ pruned: 1 });
    expect(await rows('recovery')).toBe(5);
    expect(await database.query(`SELECT outcome, detail->'classes'->'recoveries'->>'pruned' AS pruned FROM audit`)).toEqual([
      { outcome: 'partial', pruned: '0' },
    ]);
  }
});

test('the command says what was pruned before it fails over a directory that is not there', async () => {
  const directory = join(await createArchiveDirectory(), 'missing');
  const { url, database } = await setUp(directory);
  await database.query(
    `INSERT INTO workflow_action (queue, job_id, action, acted_at) VALUES ('q', gen_random_uuid(), 'retry', now() - interval '1 year')`,
  );
  const lines: string[] = [];
  const env = { DATABASE_URL: url, RECLAIMD_ARCHIVE_DIR: directory };
  const surroundings = { env, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  await expect(command.prune(surroundings, ORDER)).rejects.toThrow('ENOENT');
  expect(lines.join('\n')).toMatch(/workflow_actions +1 +0 +done/);
});

test('files of the archive are due, too, and behind where nobody removes them', async () => {
  const directory = await createArchiveDirectory();
  const { database, prune, context } = await setUp(directory);
  await addDueRecoveries(database, 5);
  await prune();
  const archive = async () => (await retentionStatus(context.pruneDependencies())).classes.find(({ name }) => name === 'archive');
  expect(await archive()).toMatchObject({ rows: 1, due: 0 });
  await database.query(`UPDATE archive_file SET archived_at = now() - interval '3 years'`);
  const status = await archive();
  expect(status).toMatchObject({ rows: 1, due: 1, oldestSeconds: expect.closeTo(3 * 365.25 * 86_400, -6) });
  expect((await projectBehind(database, 'test', status ? [status] : [], await readLookTime(database))).opened).toEqual([
    { class: 'retention_behind', count: 1 },
  ]);
});

test.skipIf(process.getuid?.() !== 0)('a disk that fills up: what did not fit stays in its table, and no half file is left', async () => {
  const directory = await createSmallDisk(256);
  const { database, prune, rows } = await setUp(directory);
  await addDueRecoveries(database, 12_000);
  const result = await prune();
  expect(result.recoveries?.error).toMatch(/nothing can be archived in .*ENOSPC/);
  const pruned = result.recoveries?.pruned ?? 0;
  expect(pruned).toBeGreaterThan(0);
  expect(await rows('recovery')).toBe(12_000 - pruned);
  const files = await filesIn(directory);
  const registered = await database.query<{ name: string; rows: number }>('SELECT name, rows FROM archive_file ORDER BY name');
  expect(files.filter((file) => file.endsWith('.gz'))).toEqual(registered.map(({ name }) => name));
  expect(files).toHaveLength(2 * registered.length);
  expect(registered.reduce((sum, file) => sum + file.rows, 0)).toBe(pruned);
});

test('files go after their period, those of this node only; what is not ours is left alone', async () => {
  const directory = await createArchiveDirectory();
  const { database, prune, rows, tidy } = await setUp(directory);
  await addDueRecoveries(database, 5);
  await prune();
  await database.query(`INSERT INTO node (node, daemon_id, host, pid, version) VALUES ('test', gen_random_uuid(), 'h', 1, '0')`);
  await writeFile(join(directory, 'notes.txt'), 'of a person');
  await writeFile(join(directory, 'recoveries-20200101T000000Z-1-0001.jsonl.gz'), 'of a run that this database never had');
  const nothing = { expired: [], abandoned: [] };
  expect(await tidy()).toEqual(nothing);
  await database.query(`UPDATE archive_file SET archived_at = now() - interval '2 days'`);
  expect(await tidy({ node: 'another' })).toEqual(nothing);
  expect((await tidy()).expired).toHaveLength(1);
  expect(await filesIn(directory)).toEqual(['notes.txt', 'recoveries-20200101T000000Z-1-0001.jsonl.gz']);
  expect(await rows('archive_file')).toBe(0);
});

test.each([
  ['of a node that has left the fleet', { node: 'another' }],
  ['of a directory that this node has given up', { archiveDirectory: '/elsewhere' }],
  ['of a node that keeps no files any more', { archiveDirectory: undefined }],
])('the register forgets files past their period %s, and leaves them where they are', async (_, who) => {
  const directory = await createArchiveDirectory();
  const { database, prune, rows, forget } = await setUp(directory);
  await addDueRecoveries(database, 5);
  await prune();
  const files = await filesIn(directory);
  expect(await forget(who)).toEqual([]);
  await database.query(`UPDATE archive_file SET archived_at = now() - interval '2 days'`);
  expect(await forget({})).toEqual([]);
  expect(await forget(who)).toEqual([`test:${directory}/${files.find((file) => file.endsWith('.gz'))}`]);
  expect(await rows('archive_file')).toBe(0);
  expect(await filesIn(directory)).toEqual(files);
});

test('the register is no order to remove what is no file of an archive, lies elsewhere, or is of another fleet', async () => {
  const directory = await createArchiveDirectory();
  const elsewhere = await createArchiveDirectory();
  const { database, tidy } = await setUp(directory);
  const precious = 'recoveries-20200101T000000Z-7-0001.jsonl.gz';
  await writeFile(join(elsewhere, precious), '');
  await writeFile(join(directory, 'precious.conf'), '');
  const register = (where: string, name: string) =>
    database.query(
      `INSERT INTO archive_file (run_id, class, node, directory, name, rows, bytes, sha256, archived_at)
       VALUES (7, 'recoveries', 'test', $1, $2, 1, 1, '', now() - interval '2 years')`,
      [where, name],
    );
  await register(elsewhere, precious);
  await register(directory, 'precious.conf');
  await register(directory, `../${elsewhere.split('/').at(-1)}/${precious}`);
  const marked = `recoveries-${randomUUID()}-20200101T000000Z-7-0001.jsonl.gz`;
  await writeFile(join(directory, marked), 'of another fleet');
  await register(directory, marked);
  expect(await tidy()).toMatchObject({ expired: [], abandoned: [] });
  expect([await filesIn(directory), await filesIn(elsewhere)]).toEqual([['precious.conf', marked], [precious]]);
});

/** Two fleets whose runs begin in the same second with the same number, and write into one directory. */
async function setUpTwins(nodes: readonly [string, string]) {
  const directory = await createArchiveDirectory();
  const twins = [await setUp(directory, nodes[0]), await setUp(directory, nodes[1])] as const;
  const now = new Date().toISOString();
  for (const { database } of twins) await database.query(`ALTER TABLE retention_run ALTER COLUMN started_at SET DEFAULT '${now}'`);
  return { directory, twins };
}

test.each([
  ['on one host', ['h', 'h']],
  ['on two hosts', ['h', 'i']],
] as const)('two fleets may share a directory, %s: each finds what it has archived', async (_, nodes) => {
  const { directory, twins } = await setUpTwins(nodes);
  await addDueRecoveries(twins[0].database, 10);
  await addDueRecoveries(twins[1].database, 20);
  const results = await Promise.all(twins.map(({ prune }) => prune()));
  expect(results.map(({ recoveries }) => recoveries)).toMatchObject([{ archived: 10 }, { archived: 20 }]);
  for (const { tidy } of twins) expect(await tidy()).toEqual({ expired: [], abandoned: [] });
  expect(await filesIn(directory)).toHaveLength(4);
  for (const [twin, rows] of [10, 20].entries()) {
    const database = twins[twin]?.database;
    const [file] = (await database?.query<{ name: string }>('SELECT name FROM archive_file')) ?? [];
    if (database && file) expect(await restoreFile(database, join(directory, file.name), async () => undefined)).toMatchObject({ rows });
  }
});

test("a node takes no file of another fleet's run for one that its own run has left behind, nor any whose fleet cannot be told", async () => {
  const { directory, twins } = await setUpTwins(['h', 'h']);
  const [mine, other] = twins;
  await addDueRecoveries(other.database, 20);
  await mine.prune();
  await other.prune();
  const [data = '', ...more] = await filesIn(directory);
  expect(more).toHaveLength(1);
  const [run] = await mine.database.query<{ stamp: string }>(
    `SELECT to_char(started_at AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"') AS stamp FROM retention_run`,
  );
  const [fleet] = await mine.database.query<{ id: string }>('SELECT id::text FROM fleet');
  const unmarked = `recoveries-${run?.stamp}-1-0001.jsonl.gz`;
  const half = `.recoveries-${fleet?.id}-${run?.stamp}-1-0001.jsonl.gz.part`;
  for (const name of [unmarked, half]) await writeFile(join(directory, name), '');
  expect(await mine.tidy()).toEqual({ expired: [], abandoned: [half] });
  expect(await filesIn(directory)).toEqual([data, ...more, unmarked].sort());
});

test('files that were registered before names had the fleet in them are read, restored and removed as ever', async () => {
  const directory = await createArchiveDirectory();
  const { database, prune, tidy, rows } = await setUp(directory);
  await addDueRecoveries(database, 5);
  await prune();
  const [{ id = '' } = {}] = await database.query<{ id: string }>('SELECT id::text FROM fleet');
  for (const name of await filesIn(directory)) await rename(join(directory, name), join(directory, name.replace(`${id}-`, '')));
  await database.query(`UPDATE archive_file SET name = replace(name, $1 || '-', '')`, [id]);
  const [old = ''] = await filesIn(directory);
  expect(old).toMatch(/^recoveries-\d{8}T\d{6}Z-\d+-0001\.jsonl\.gz$/);
  expect(await tidy()).toEqual({ expired: [], abandoned: [] });
  expect(await restoreFile(database, join(directory, old), async () => undefined)).toMatchObject({ rows: 5 });
  await database.query(`UPDATE archive_file SET archived_at = now() - interval '2 days'`);
  expect(await tidy()).toEqual({ expired: [old], abandoned: [] });
  expect([await filesIn(directory), await rows('archive_file')]).toEqual([[], 0]);
});

test.each(['x.jsonl.gz', 'x.manifest.json', '.x.jsonl.gz.part', '.x.manifest.json.part'])(
  'a file that is there already, %s, is neither written over nor removed, and nothing else is left',
  async (there) => {
    const directory = await createArchiveDirectory();
    await writeFile(join(directory, there), "another's");
    async function* records() {
      yield { rows: 1, lines: '{}' };
    }
    const written = writeArchiveFile(directory, 'x.jsonl.gz', records(), { class: 'heals', node: 'n', run: '1', schemaVersion: 1 });
    await expect(written).rejects.toBeInstanceOf(ArchiveNotWritten);
    expect(await filesIn(directory)).toEqual([there]);
    expect(await readFile(join(directory, there), 'utf8')).toBe("another's");
  },
);
