import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase } from '../support/database.ts';
import { fallSilent } from '../support/silence.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const MINUTES = 60_000;

/** For `node --import`: the whole process believes that it is `ms` later. */
function clockOff(ms: number): string[] {
  const module = `
    const RealDate = Date;
    globalThis.Date = class Date extends RealDate {
      constructor(...given) { if (given.length === 0) super(RealDate.now() + ${ms}); else super(...given); }
      static now() { return RealDate.now() + ${ms}; }
    };`;
  return ['--import', `data:text/javascript,${encodeURIComponent(module)}`];
}

test.each([
  ['10 minutes ahead', 10 * MINUTES],
  ['10 minutes behind', -10 * MINUTES],
  ['right', 0],
])("a node's clock that is %s changes nothing: the dead are taken, the living are not", async (_, off) => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await boss.insert('work', [{}, {}, {}, {}]);
  const options = { url, queues: ['work'], mode: 'forever' as const };
  const dead = await spawnWorker(options);
  const living = await spawnWorker(options);
  const deadElsewhere = await spawnWorker({ ...options, hostname: 'elsewhere' });
  const livingElsewhere = await spawnWorker({ ...options, hostname: 'elsewhere' });
  await Promise.all([dead, living, deadElsewhere, livingElsewhere].map((worker) => worker.started(1)));
  const daemon = await spawnDaemon(url, { RECLAIMD_NODE: 'off' }, { nodeArguments: clockOff(off) });
  const skew = Date.parse(daemon.log[0]?.time ?? '') - Date.now();
  expect(Math.abs(skew - off), 'the daemon really lives by that clock').toBeLessThan(MINUTES);

  await waitFor('the adoptions', async () => (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL')).length === 2);
  await waitFor('all to be judged alive', async () => (await database.query(`SELECT FROM executor WHERE verdict = 'alive'`)).length === 4);
  dead.kill('SIGKILL');
  deadElsewhere.kill('SIGKILL');
  await Promise.all([dead.exited, deadElsewhere.exited]);
  await waitFor('the dead one to be taken', async () => (await database.query('SELECT FROM recovery')).length > 0);
  await fallSilent(database, 30, [deadElsewhere]);
  await waitFor('the silent one to be taken', async () => (await database.query('SELECT FROM recovery')).length > 1);
  const recoveries = await database.query<{ executor: string; verdict: string; age: number; seconds: number }>(
    `SELECT executor_id AS executor, verdict, extract(epoch FROM clock_timestamp() - recovered_at)::float8 AS age,
       extract(epoch FROM recovered_at - last_alive_at)::float8 AS seconds FROM recovery ORDER BY recovered_at`,
  );
  expect(recoveries.map(({ executor, verdict }) => [executor, verdict])).toEqual([
    [dead.instance, 'dead'],
    [deadElsewhere.instance, 'missing'],
  ]);
  for (const { age, seconds } of recoveries) {
    expect(age).toBeGreaterThanOrEqual(0);
    expect(age).toBeLessThan(60);
    expect(seconds).toBeGreaterThanOrEqual(0);
    expect(seconds).toBeLessThan(60);
  }
  const verdicts = await database.query<{ verdict: string }>('SELECT verdict FROM executor WHERE id = ANY($1)', [
    [living.instance, livingElsewhere.instance],
  ]);
  expect(verdicts).toEqual([{ verdict: 'alive' }, { verdict: 'alive' }]);
  expect(await database.query('SELECT FROM fleet WHERE comeback_at IS NOT NULL')).toEqual([]);
});

const SOURCES = fileURLToPath(new URL('../../src', import.meta.url));
const sources = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => ({ file, code: readFileSync(`${SOURCES}/${file}`, 'utf8') }));

test("no source reads the wall clock: every age is the database's", () => {
  expect(sources.length).toBeGreaterThan(30);
  const readers = sources.filter(({ code }) => /\bDate\.(now|UTC)\b|\bnew Date\b|\bDate\(\)/.test(code));
  expect(readers.map(({ file }) => file)).toEqual([]);
});

test('the monotonic clock is read in one place, but for waiting on a private server and for the demo', () => {
  const readers = sources.filter(({ code }) => /\bperformance\.now\b|\bhrtime\b/.test(code)).map(({ file }) => file);
  expect(readers.filter((file) => !/^(runtime\/clock|postgres\/embedded|cli\/demo|demo\/\w+)\.ts$/.test(file))).toEqual([]);
});
