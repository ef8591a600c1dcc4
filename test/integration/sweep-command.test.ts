import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor } from '../support/executor.ts';

test('the sweep of one executor takes that one, and says so where there is none of that name', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  for (const id of ['first', 'second']) {
    const executor = await createExecutor(url, database, id);
    await boss.send('work', {});
    await executor.fetch('work');
    await executor.die();
  }
  const sweep = async (executor: string, ...options: string[]) => {
    const printed: string[] = [];
    const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => printed.push(text), signal: new AbortController().signal };
    await createProgram(surroundings, '0', () => undefined).parseAsync(
      ['sweep', '--json', '--actor', 'ann@desk', '--executor', executor, ...options],
      { from: 'user' },
    );
    return JSON.parse(printed[0] ?? 'null') as unknown;
  };
  await expect(sweep('nope')).rejects.toThrow('no such executor: nope');
  expect(await database.query('SELECT FROM recovery')).toEqual([]);
  expect(await sweep('second', '--dry-run')).toMatchObject({ dryRun: true, failed: 1, orphans: [{ executorId: 'second', queue: 'work' }] });
  expect(await sweep('first')).toMatchObject({ failed: 1 });
  expect(await database.query('SELECT executor_id AS id FROM recovery')).toEqual([{ id: 'first' }]);
});
