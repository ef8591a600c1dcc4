import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { verifyArchive } from '../../src/audit/archived.ts';
import { sealAudit, verifyAudit } from '../../src/audit/chain.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { runArchivePrune } from '../../src/retention/prune.ts';
import { createUnitReader } from '../../src/retention/read-unit.ts';
import { tidyArchive } from '../../src/retention/tidy.ts';
import { addDueRecoveries, addEvents, createArchiveDirectory, filesIn } from '../support/archive.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const LOCK = 4711;

/** A prune in a process of its own that stands still in its first COMMIT of a file: the file is written, its rows are not gone yet. */
async function pruneUntilCommit(className: string) {
  const directory = await createArchiveDirectory();
  const fleet = await createFleetDatabase({ queues: [{ name: 'q' }] });
  const { database, url } = fleet;
  await addDueRecoveries(database, 20);
  await addEvents(database, 20, 400);
  await database.query(`
    CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN PERFORM pg_advisory_xact_lock(${LOCK}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER stand_still AFTER INSERT ON archive_file DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW WHEN (NEW.class = '${className}') EXECUTE FUNCTION stand_still()`);
  const gate = new pg.Client({ connectionString: url });
  await gate.connect();
  onTestFinished(() => gate.end());
  await gate.query('SELECT pg_advisory_lock($1)', [LOCK]);
  const { PATH = '' } = process.env;
  const child = spawn(process.execPath, [MAIN, 'retention', 'prune', '--actor', 'ann@desk', '--reason', 'the disk is full'], {
    env: { PATH, DATABASE_URL: url, RECLAIMD_NODE: 'test', RECLAIMD_ARCHIVE_DIR: directory },
    stdio: 'ignore',
  });
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  onTestFinished(() => void child.kill('SIGKILL'));
  const waiting = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`;
  const { pid } = await waitFor('the commit', async () => (await database.query<{ pid: number }>(waiting))[0]);
  const context = await openTestContext(url, { RECLAIMD_ARCHIVE_DIR: directory });
  return {
    ...fleet,
    directory,
    kill: async () => {
      child.kill('SIGKILL');
      await exited;
    },
    /** Its transaction is undone, or goes through, now that its process is gone. */
    undo: async () => {
      await database.query('SELECT pg_terminate_backend($1)', [pid]);
      await gate.query('SELECT pg_advisory_unlock($1)', [LOCK]);
      await waitFor('the end of the transaction', async () => (await database.query(waiting)).length === 0);
    },
    goThrough: async () => {
      await gate.query('SELECT pg_advisory_unlock($1)', [LOCK]);
      await waitFor(
        'the end of the transaction',
        async () => (await database.query('SELECT FROM archive_file WHERE class = $1', [className])).length > 0,
      );
    },
    pruneAgain: async () => {
      await database.query(`UPDATE retention_run SET lease_until = now() WHERE ended_at IS NULL`);
      const run = await runArchivePrune(context.pruneDependencies(), { actor: 'ann@desk', reason: 'once more' });
      await sealAudit(database);
      return 'classes' in run ? run.classes : undefined;
    },
    tidy: () => tidyArchive(context.pruneDependencies()),
    told: () =>
      database.query(
        `SELECT outcome, coalesce((detail->'classes'->$1->>'archived')::int, 0) AS archived FROM audit WHERE action = 'retention_prune' ORDER BY seq`,
        [className],
      ),
    archive: () => verifyArchive(database, createUnitReader(database, { directory, keptSeconds: Number.POSITIVE_INFINITY })),
    archivedRows: async () =>
      (
        await database.query<{ sum: number }>(`SELECT coalesce(sum(rows), 0)::int AS sum FROM archive_file WHERE class = $1`, [className])
      )[0]?.sum,
  };
}

test('killed between the file and the removal of its rows: the rows are there, the file goes, and the next run archives them once', async () => {
  const run = await pruneUntilCommit('recoveries');
  expect(await filesIn(run.directory)).toHaveLength(2);
  // Nobody tidies up behind a run that is at work.
  expect((await run.tidy()).abandoned).toEqual([]);
  await run.kill();
  await run.undo();
  expect(await run.database.query('SELECT FROM recovery')).toHaveLength(20);
  expect((await run.tidy()).abandoned).toHaveLength(2);
  expect(await run.pruneAgain()).toMatchObject({ recoveries: { pruned: 20, archived: 20 } });
  expect(await run.archivedRows()).toBe(20);
  expect(await run.told()).toEqual([
    { outcome: 'unknown', archived: 0 },
    { outcome: 'done', archived: 20 },
  ]);
  expect((await filesIn(run.directory)).filter((file) => file.startsWith('recoveries') && file.endsWith('.gz'))).toHaveLength(1);
});

test('killed when the removal goes through all the same: the file stays, and nothing is archived twice', async () => {
  const run = await pruneUntilCommit('recoveries');
  await run.kill();
  await run.goThrough();
  expect(await run.database.query('SELECT FROM recovery')).toHaveLength(0);
  expect((await run.tidy()).abandoned).toEqual([]);
  expect(await run.pruneAgain()).toMatchObject({ recoveries: { pruned: 0, archived: 0 } });
  expect(await run.archivedRows()).toBe(20);
  expect(await run.told()).toEqual([
    { outcome: 'unknown', archived: 20 },
    { outcome: 'done', archived: 0 },
  ]);
});

test('killed with a unit of the audit: the chain and its archive verify, whichever way the transaction went', async () => {
  for (const end of ['undo', 'goThrough'] as const) {
    const run = await pruneUntilCommit('audit');
    await run.kill();
    await run[end]();
    expect(await verifyAudit(run.database)).toMatchObject({ intact: true });
    expect(await run.archive()).toMatchObject({ intact: true, checked: end === 'undo' ? 0 : 20 });
    await run.tidy();
    await run.pruneAgain();
    expect(await verifyAudit(run.database)).toMatchObject({ intact: true, begins: 21 });
    expect(await run.archive()).toMatchObject({ intact: true, checked: 20 });
    expect(await run.archivedRows()).toBe(20);
  }
});

test('a batch that hangs in the middle holds up no sweep', async () => {
  const { url, boss, database } = await pruneUntilCommit('recoveries');
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(url, database, 'worker');
  await boss.send('q', {});
  await executor.fetch('q');
  await executor.boss.stop({ graceful: false });
  await executor.die();
  expect(await sweepOnce(url)).toMatchObject({ failed: 1 });
});
