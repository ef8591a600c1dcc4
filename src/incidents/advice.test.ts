import { expect, test } from 'vitest';
import { adviseOn } from './advice.ts';
import { INCIDENT_CLASSES, type IncidentClass } from './class.ts';

const JOB = '00000000-0000-4000-8000-000000000001';

const commandsFor = (incidentClass: IncidentClass, evidence: Record<string, unknown>, node: string | null = null) =>
  adviseOn({ class: incidentClass, evidence, node }).repairs.map(({ command }) => command);

test.each<[IncidentClass, Record<string, unknown>, string | null, string[]]>([
  [
    'dead_executor',
    { executor: 'e1', verdict: 'dead' },
    null,
    ['reclaimd preview executor_rescue e1 --policy fail', 'reclaimd preview executor_rescue e1 --policy restart'],
  ],
  [
    'dead_executor',
    { executor: 'e1', nameShared: true, attempts: [{ queue: 'pay', jobId: JOB, retryCount: 0 }] },
    null,
    [`reclaimd preview job_cancel pay/${JOB}`],
  ],
  [
    'hung_executor',
    { executor: 'e1', pid: 7, unit: 'mail@1.service', unitAllowed: true },
    'web-1',
    ['reclaimd preview executor_stop_and_rescue e1'],
  ],
  ['hung_executor', { executor: 'e1', pid: 7, unit: 'mail@1.service', unitAllowed: false }, 'web-1', ['systemctl restart mail@1.service']],
  ['hung_executor', { executor: 'e1', pid: 7, unit: null, unitAllowed: false }, 'web-1', ['kill -KILL 7']],
  ['hung_executor', { executor: 'e1', pid: 7, unit: null, unitAllowed: false, proven: false }, 'web-1', ['ps -o pid,lstart,args -p 7']],
  [
    'held_orphan',
    { queue: 'pay', jobId: JOB, executorId: 'e1' },
    null,
    [
      `reclaimd preview job_rescue pay/${JOB} --policy fail`,
      `reclaimd preview job_rescue pay/${JOB} --policy restart`,
      `reclaimd preview job_discard pay/${JOB}`,
    ],
  ],
  ['held_orphan', { queue: 'pay', jobId: JOB, executorId: null }, null, [`reclaimd preview job_cancel pay/${JOB}`]],
  ['poison_job', { queue: 'pay', jobId: JOB, executorId: null, outcome: 'held' }, null, [`reclaimd preview job_cancel pay/${JOB}`]],
  ['poison_job', { queue: 'pay', jobId: JOB, outcome: 'discarded' }, null, [`reclaimd preview job_retry pay/${JOB}`]],
  [
    'poison_job',
    { queue: 'pay', jobId: JOB, outcome: 'held' },
    null,
    [`reclaimd preview job_discard pay/${JOB}`, `reclaimd preview job_rescue pay/${JOB} --policy restart`],
  ],
  [
    'workflow_stuck',
    { parent: `flow/${JOB}`, children: [`step/${JOB}`] },
    null,
    [
      `reclaimd preview workflow_retry_parent flow/${JOB}`,
      `reclaimd preview workflow_cancel_descendants flow/${JOB}`,
      `reclaimd preview workflow_unblock step/${JOB}`,
    ],
  ],
  [
    'workflow_stuck',
    { parent: `flow/${JOB}`, reason: 'parent_gone', children: [`step/${JOB}`] },
    null,
    [`reclaimd preview workflow_cancel_descendants flow/${JOB}`, `reclaimd preview workflow_unblock step/${JOB}`],
  ],
  [
    'workflow_stuck',
    { parent: null, reason: 'parent_gone', children: [`step/${JOB}`] },
    null,
    [`reclaimd preview workflow_cancel_descendants step/${JOB}`, `reclaimd preview workflow_unblock step/${JOB}`],
  ],
  [
    'workflow_stuck',
    { parent: `flow/${JOB}`, counted: 20_000, children: [`step/${JOB}`] },
    null,
    [
      `reclaimd preview workflow_retry_parent flow/${JOB}`,
      `reclaimd preview workflow_cancel_descendants step/${JOB}`,
      `reclaimd preview workflow_unblock step/${JOB}`,
    ],
  ],
  ['workflow_stuck', { parent: `flow/${JOB}`, children: [`step/${JOB}`], nothingWaits: true }, null, []],
  [
    'workflow_stuck',
    { instance: 'sale-1', step: 'pay', job: `step/${JOB}` },
    null,
    ['reclaimd workflows', 'reclaimd reconcile --again sale-1/pay --reason ...'],
  ],
  ['supervision_stalled', { trouble: 'nobody' }, null, ['reclaimd executors']],
  ['supervision_stalled', { node: 'web-1' }, 'web-1', ['systemctl restart reclaimd']],
  [
    'unit_failed',
    { unit: 'mail@1.service' },
    'web-1',
    ['reclaimd preview unit_heal web-1:mail@1.service', 'reclaimd preview unit_restart web-1:mail@1.service'],
  ],
  ['unit_flapping', { unit: 'mail.service', node: 'web-2' }, 'web-1', ['reclaimd preview unit_restart web-2:mail.service']],
  [
    'mass_staleness',
    { executors: ['e1', 'e2', 'e3'], holding: ['e1', 'e3'] },
    null,
    ['reclaimd preview executor_rescue e1', 'reclaimd preview executor_rescue e3'],
  ],
  ['mass_staleness', { executors: ['e1', 'e2'], holding: [] }, null, ['reclaimd executors']],
])('%s %j', (incidentClass, evidence, node, commands) => {
  expect(commandsFor(incidentClass, evidence, node)).toEqual(commands);
});

test.each(INCIDENT_CLASSES)('%s says what is under way and what would help, and lives with evidence that says nothing', (incidentClass) => {
  expect(adviseOn({ class: incidentClass, evidence: {}, node: null }).underWay).not.toBe('');
  expect(commandsFor(incidentClass, {}).join()).not.toContain('undefined');
});

test.each<[IncidentClass, Record<string, unknown>, string]>([
  ['unit_failed', { withheld: 'a person stopped it', breaker: 'closed' }, 'nothing: a person stopped it'],
  ['unit_failed', { withheld: null, breaker: 'open' }, 'healing has stopped'],
  ['unit_failed', { withheld: null, breaker: 'closed' }, 'heals it'],
  ['unit_flapping', { breaker: 'closed' }, 'systemd restarts it'],
  ['unit_flapping', { breaker: 'open' }, 'healing has stopped'],
  ['dead_executor', { verdict: 'missing' }, 'whose brakes allow it'],
  ['dead_executor', { verdict: 'dead' }, 'by the next sweep, by the policy'],
])('%s %j: what is under way follows the evidence', (incidentClass, evidence, said) => {
  expect(adviseOn({ class: incidentClass, evidence, node: null }).underWay).toContain(said);
});

test('a name from the fleet stays one word of one line in the command', () => {
  expect(commandsFor('hung_executor', { executor: "a'; rm -rf ~\n#", unitAllowed: true })).toEqual([
    `reclaimd preview executor_stop_and_rescue 'a'\\''; rm -rf ~?#'`,
  ]);
  expect(commandsFor('held_orphan', { queue: '$(reboot)', jobId: JOB })[0]).toBe(
    `reclaimd preview job_rescue '$(reboot)/${JOB}' --policy fail`,
  );
});

test('a name that begins like an option is told to be none', () => {
  expect(commandsFor('held_orphan', { queue: '-mail', jobId: JOB, executorId: 'e1' })).toEqual([
    `reclaimd preview job_rescue --policy fail -- '-mail/${JOB}'`,
    `reclaimd preview job_rescue --policy restart -- '-mail/${JOB}'`,
    `reclaimd preview job_discard -- '-mail/${JOB}'`,
  ]);
});

test('a mass failure of hundreds does not bury the rest', () => {
  expect(commandsFor('mass_staleness', { holding: Array.from({ length: 300 }, (_, index) => `e${index}`) })).toHaveLength(10);
});
