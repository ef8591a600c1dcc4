import { expect, test } from 'vitest';
import { instanceMoved, stepMoved, trackStep } from '../../src/workflows/tracking.ts';
import { createSteps } from '../support/steps.ts';

test('an event of an earlier job does not move a step that has another by now', async () => {
  const { boss, database, reconcile, missed } = await createSteps();
  await missed('i1');
  const [event] = (await reconcile()).events;
  if (!event) throw new Error('no event');
  expect(await stepMoved(database, event)).toBe(true);
  const jobId = (await boss.send('step', {})) ?? '';
  await trackStep(database, { instanceId: 'i1', step: 'one', queue: 'step', jobId });
  // Each event goes out twice, by NOTIFY and by publish: this is the other copy.
  expect(await stepMoved(database, event)).toBe(false);
  expect(await database.query('SELECT state, job_id FROM workflow_step')).toEqual([{ state: 'running', job_id: jobId }]);
  expect(await stepMoved(database, { ...event, jobId })).toBe(true);
  expect(await stepMoved(database, { ...event, jobId })).toBe(false);
});

test('an engine that knows no jobs moves its steps by their names, in SQL with three arguments', async () => {
  const { database } = await createSteps();
  await trackStep(database, { instanceId: 'i1', step: 'thinks' });
  expect(await database.query(`SELECT step_moved('i1', 'thinks', 'failed') AS moved`)).toEqual([{ moved: true }]);
  expect(await database.query('SELECT state FROM workflow_step')).toEqual([{ state: 'failed' }]);
});

test.each([
  [`step_moved('i1', 'one', 'running')`, 'step_moved: state: given running; allowed: completed, failed, cancelled'],
  [`step_moved('i1', 'one', NULL)`, 'step_moved: state: given nothing; allowed: completed, failed, cancelled'],
  [`step_moved('i1', 'two')`, 'step_moved: step two of instance i1: it is not tracked'],
  [`step_moved('i2', 'one')`, 'step_moved: step one of instance i2: it is not tracked'],
  [`instance_moved('i1', 'done')`, 'instance_moved: state: given done; allowed: running, blocked, completed, failed, cancelled'],
  [`instance_moved('i2', 'failed')`, 'instance_moved: instance i2: it is not tracked'],
  [`track_step('', 'one')`, 'track_step: instance_id: given 0 bytes; allowed: 1 to 500'],
  [`track_step(repeat('ü', 251), 'one')`, 'track_step: instance_id: given 502 bytes; allowed: 1 to 500'],
  [`track_step('i1', repeat('s', 501))`, 'track_step: step: given 501 bytes; allowed: 1 to 500'],
  [`track_step('i1', 'one', repeat('q', 501))`, 'track_step: queue: given 501 bytes; allowed: up to 500'],
  [
    `track_step('i1', 'two', env => 'staging')`,
    'given stack none and env staging; allowed: those of its first step, stack none and env none',
  ],
  [`track_step('i1', 'two', stack => 'blue')`, 'given stack blue and env none; allowed: those of its first step, stack none and env none'],
  [`track_step('i1', 'one', 'step')`, 'track_step: job_id: given nothing, beside a queue; allowed: both'],
  [`track_step('i1', 'one', NULL, gen_random_uuid())`, 'track_step: queue: given nothing, beside a job_id; allowed: both'],
  [`track_step('i1', 'one', workflow => repeat('w', 8000))`, 'track_step: workflow: given 8000 bytes; allowed: up to 500'],
])('%s is refused, and says what is allowed', async (call, message) => {
  const { database, missed } = await createSteps();
  await missed('i1', 'created');
  await expect(database.query(`SELECT ${call}`)).rejects.toThrow(message);
  expect(await database.query('SELECT instance_id, step, state FROM workflow_step')).toEqual([
    { instance_id: 'i1', step: 'one', state: 'running' },
  ]);
});

test.each(['completed', 'failed', 'cancelled'] as const)('an instance that is %s takes no new step until it runs again', async (state) => {
  const { database, reconcile, missed } = await createSteps();
  await missed('i1', 'created');
  await instanceMoved(database, { instanceId: 'i1', state });
  await expect(missed('i1')).rejects.toThrow(`track_step: instance i1: it is ${state}; allowed: a running one`);
  await instanceMoved(database, { instanceId: 'i1', state: 'running' });
  await missed('i1', 'created');
  expect(await reconcile()).toMatchObject({ skipped: 1 });
});

test('a step of another deployment is not overwritten by one of the same name; who names none is taken for its own', async () => {
  const { database, reconcile, missed } = await createSteps();
  const jobId = await missed('order-1', 'completed', { env: 'prod' });
  await expect(missed('order-1', 'created', { env: 'staging' })).rejects.toThrow('given stack none and env staging');
  expect(await database.query('SELECT job_id FROM workflow_step')).toEqual([{ job_id: jobId }]);
  await trackStep(database, { instanceId: 'order-1', step: 'two' });
  await trackStep(database, { instanceId: 'order-1', step: 'three', env: 'prod' });
  expect(await reconcile({ stack: null, env: 'prod' })).toMatchObject({ replayed: 1, skipped: 2 });
});

test('a blocked instance runs again with its next step', async () => {
  const { database, missed } = await createSteps();
  await missed('i1', 'created');
  await instanceMoved(database, { instanceId: 'i1', state: 'blocked' });
  await missed('i1', 'created');
  expect(await database.query('SELECT state FROM workflow_instance')).toEqual([{ state: 'running' }]);
});
