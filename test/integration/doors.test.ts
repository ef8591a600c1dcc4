import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { createRepairDoor } from '../../src/actions/job-repair.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';

const SOURCE = new URL('../../src/', import.meta.url);
const sources = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => ({ file, text: readFileSync(new URL(file, SOURCE), 'utf8') }));

/**
 * Every door through which jobs or units are changed, and the test that shows that what goes through it is audited once, and that
 * what cannot be audited is not done. A new door fails here until it has one.
 */
const DOORS: Record<string, string> = {
  createRescueGateway: 'audit.test.ts',
  createRepairDoor: 'doors.test.ts',
  createUnitDoor: 'healing.test.ts',
  createWorkflowDoor: 'flow-repairs.test.ts',
};
/** Changes nothing. */
const LOCKED = ['createDryRunGateway'];

test('every door is known, and its test speaks of the audit', () => {
  const doors = sources
    .filter(({ file }) => file.startsWith('actions/'))
    .flatMap(({ text }) => [...text.matchAll(/export (?:async )?function (create\w*(?:Door|Gateway))\b/g)].map(([, name]) => name));
  expect(doors.toSorted()).toEqual([...Object.keys(DOORS), ...LOCKED].toSorted());
  for (const file of Object.values(DOORS)) expect(readFileSync(new URL(file, import.meta.url), 'utf8')).toMatch(/audit/);
});

test.each([
  ['jobs', /\bjobs\.(fail|discard|requeue|retry|resume|cancel)\(/, ['actions/rescue.ts', 'actions/workflow-door.ts']],
  ['jobs, by name', /\bjobs\[kind\]\(/, ['actions/job-repair.ts']],
  ['flows', /\bflows\.release\(/, ['actions/workflow-door.ts']],
  // Within the act that the door runs under its lease.
  ['units', /\bunits\.(start|restart|stop|resetFailed)\(/, ['healing/heal.ts', 'healing/restart.ts']],
  ['attempts without their audit', /\brescueAttempts\(/, ['actions/job-repair.ts', 'actions/rescue.ts']],
])('nothing changes %s but through a door', (_, pattern, allowed) => {
  const found = sources.filter(({ text }) => pattern.test(text)).map(({ file }) => file);
  expect(found.toSorted()).toEqual(allowed);
});

const AFTER = { retry: 'retry', resume: 'created', cancel: 'cancelled' };

test.each(['rescue', 'retry', 'resume', 'cancel'] as const)("a person's %s: one event, or nothing at all", async (kind) => {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail', retryLimit: 0 }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(fleet.url, fleet.database, 'worker');
  const jobId = (await fleet.boss.send('mail', {})) ?? '';
  if (kind === 'resume') await fleet.boss.cancel('mail', jobId);
  else await executor.fetch('mail');
  if (kind === 'retry') await fleet.boss.fail('mail', jobId);
  const context = await openTestContext(fleet.url);
  const door = createRepairDoor(context.jobs, 'here');
  const [row] = await context.jobs.readJobs(fleet.database, [{ queue: 'mail', jobId }], { lock: false });
  const attempt = { queue: 'mail', jobId, retryCount: 0 };
  const change =
    kind === 'rescue'
      ? ({
          kind,
          after: 'failed',
          nomination: {
            ...attempt,
            startedOn: row?.startedOn ?? '',
            executorId: 'worker',
            verdict: 'dead',
            proof: 'process_gone',
            reason: 'it is gone',
            lastAliveAt: null,
            resolved: { policy: 'fail', source: 'operator', maxRecoveries: 3, poison: 'hold' },
          },
        } as const)
      : ({ kind, after: AFTER[kind], job: { ...attempt, active: row?.state === 'active' } } as const);
  const order = { actor: 'ann@desk', action: `job_${kind}`, target: `mail/${jobId}`, reason: 'because', partial: false, detail: {} };
  const repair = () => fleet.database.transaction((tx) => door.repair(tx, order, [change]));

  await fleet.database.query('ALTER TABLE audit ADD CONSTRAINT closed CHECK (false)');
  await expect(repair()).rejects.toThrow('closed');
  expect((await fleet.boss.findJobs('mail', { id: jobId }))[0]?.state).toBe(row?.state);
  expect(await fleet.database.query('SELECT FROM recovery')).toEqual([]);
  await fleet.database.query('ALTER TABLE audit DROP CONSTRAINT closed');
  await repair();
  expect((await fleet.boss.findJobs('mail', { id: jobId }))[0]?.state).not.toBe(row?.state);
  expect(await fleet.database.query('SELECT actor, action, target FROM audit')).toEqual([
    { actor: 'ann@desk', action: `job_${kind}`, target: `mail/${jobId}` },
  ]);
});
