import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { startEmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { DatabaseUnreachable } from '../../src/postgres/errors.ts';
import { openDatabase } from '../support/database.ts';
import { binariesOfMajor } from '../support/postgres-majors.ts';
import { waitFor } from '../support/wait.ts';

const binaries = await binariesOfMajor(process.env['TEST_POSTGRES_MAJOR'] ?? '18');

test.each(['kill', 'stop'] as const)(
  "after a server's %s the same pool and the same listener go on as soon as it is back",
  async (ending) => {
    const directory = await mkdtemp(join(tmpdir(), 'reclaimd-database-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const first = await startEmbeddedPostgres(directory, { binaries });
    onTestFinished(() => first.stop());
    const database = openDatabase(first.url, { searchPath: ['public'] });
    const heard: string[] = [];
    let begun = 0;
    const listener = database.listen('channel', {
      onMessage: (payload) => heard.push(payload),
      onListening: () => {
        begun += 1;
      },
    });
    onTestFinished(() => listener.stop());
    const hears = (payload: string) =>
      waitFor(`hearing "${payload}"`, async () => {
        await database.query(`SELECT pg_notify('channel', $1)`, [payload]);
        return heard.includes(payload);
      });
    await database.query('CREATE TABLE item (id int)');
    await hears('before');
    expect(begun).toBe(1);
    const interrupted = database.transaction(async (tx) => {
      await tx.query('INSERT INTO item VALUES (1)');
      await first[ending]();
      await waitFor('the server to be gone', () =>
        database.query('SELECT 1').then(
          () => false,
          (error) => error instanceof DatabaseUnreachable,
        ),
      );
      await tx.query('INSERT INTO item VALUES (2)');
    });
    await expect(interrupted).rejects.toBeInstanceOf(DatabaseUnreachable);
    const second = await startEmbeddedPostgres(directory, { binaries, port: Number(new URL(first.url).port) });
    onTestFinished(() => second.stop());
    expect(await database.query('SELECT FROM item')).toEqual([]);
    await hears('after');
    expect(begun, 'it is said that what came meanwhile was not heard').toBe(2);
  },
);
