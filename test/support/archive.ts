import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';
import { sealAudit } from '../../src/audit/chain.ts';
import type { Database } from '../../src/postgres/database.ts';

/** A directory for an archive; removed at the end of the test. */
export async function createArchiveDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-archive-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A directory on a disk of so many kilobytes. Needs root. */
export async function createSmallDisk(kilobytes: number): Promise<string> {
  const directory = await createArchiveDirectory();
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', `size=${kilobytes}k`, 'tmpfs', directory]);
  // Hooks run last to first: unmounted before it is removed.
  onTestFinished(async () => void (await promisify(execFile)('umount', [directory])));
  return directory;
}

export const filesIn = async (directory: string) => (await readdir(directory)).sort();

/** Recoveries of a year ago, with something random in each, that no compression makes small. */
export async function addDueRecoveries(database: Database, count: number): Promise<void> {
  await database.query(
    `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, reason, node, recovered_at)
     SELECT 'q', gen_random_uuid(), 0, 'dead', 'fail', 'default', 'failed', gen_random_uuid()::text, 'n', now() - interval '1 year'
     FROM generate_series(1, $1)`,
    [count],
  );
}

/** Chained events of so many days ago. */
export async function addEvents(database: Database, count: number, daysAgo: number): Promise<void> {
  await database.query(
    `INSERT INTO audit (at, actor, action, target, outcome, reason, node, detail)
     SELECT now() - make_interval(days => $2), 'ann@desk', 'job_retry', 'mail/' || n, 'done', 'because — it "was" so', 'n', jsonb_build_object('b', n, 'a', 1.50)
     FROM generate_series(1, $1) AS n`,
    [count, daysAgo],
  );
  await sealAudit(database);
}
