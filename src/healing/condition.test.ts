import { expect, test } from 'vitest';
import type { UnitStatus } from '../actions/unit-manager.ts';
import { judgeUnit, type UnitIntent } from './condition.ts';

const FAILED: UnitStatus = {
  unit: 'mail.service',
  names: ['mail.service'],
  loadState: 'loaded',
  activeState: 'failed',
  subState: 'failed',
  unitFileState: 'enabled',
  result: 'exit-code',
  exitCode: 'exited',
  exitStatus: 1,
  restarts: 0,
  invocationId: 'a1',
  mainPid: 0,
  controlGroup: '',
  activeEnteredAt: 1,
  inactiveEnteredAt: 2,
  triggeredBy: [],
  conflicts: [],
  requisite: [],
  requires: [],
  unmetConditions: [],
  job: null,
  transient: false,
  startLimitAction: 'none',
  stopSeen: false,
};
const STOPPED: Partial<UnitStatus> = { activeState: 'inactive', subState: 'dead', result: 'success', exitStatus: 0 };
const NOBODY: Partial<UnitIntent> = { end: { stopRequested: false, startLimitHit: false } };
const PERSON: Partial<UnitIntent> = { end: { stopRequested: true, startLimitHit: false } };
const LIMIT: Partial<UnitIntent> = { end: { stopRequested: false, startLimitHit: true } };
const DEPENDENCY: Partial<UnitIntent> = { end: { stopRequested: false, startLimitHit: false, startFailed: 'dependency' } };
const UNKNOWN = { stopRequested: undefined, startLimitHit: undefined };

test.each<[string, Partial<UnitStatus>, Partial<UnitIntent>, string | null, boolean]>([
  ['failed', {}, NOBODY, 'failed', true],
  ['failed, the journal tells nothing', {}, {}, 'failed', true],
  ['failed, the journal has not told yet', {}, { end: { ...UNKNOWN, overdue: true } }, 'failed', false],
  ['failed, its unit file is broken by now', { loadState: 'bad-setting' }, NOBODY, 'failed', false],
  ['failed, masked by now', { loadState: 'masked' }, NOBODY, null, false],
  ['killed by a signal', { result: 'signal', exitCode: 'killed', exitStatus: 9 }, NOBODY, 'failed', true],
  ['out of memory', { result: 'oom-kill', exitCode: 'killed', exitStatus: 9 }, NOBODY, 'failed', true],
  ['watchdog', { result: 'watchdog', exitCode: 'dumped', exitStatus: 6 }, NOBODY, 'failed', true],
  ['start limit hit, said by systemd', { result: 'start-limit-hit' }, NOBODY, 'start_limit_hit', true],
  ['start limit hit, said by the journal', { restarts: 5 }, LIMIT, 'start_limit_hit', true],
  ['start limit hit, most likely', { restarts: 5 }, {}, 'start_limit_hit', true],
  [
    'start limit hit by restarts that were asked for',
    { result: 'start-limit-hit', exitCode: 'killed', exitStatus: 15 },
    PERSON,
    'start_limit_hit',
    true,
  ],
  [
    'start limit hit, and nobody can tell who stopped it before',
    { result: 'start-limit-hit', exitStatus: 143 },
    {},
    'start_limit_hit',
    true,
  ],
  ['restarted before, but this end was final', { restarts: 5 }, NOBODY, 'failed', true],
  ['failed because a person stopped it: left alone', {}, PERSON, null, false],
  ['killed past the time-out of a stop that a person asked for', { result: 'timeout' }, PERSON, null, false],
  ['status 143 and nobody can tell who stopped it: reported, not healed', { exitStatus: 143 }, {}, 'failed', false],
  ['stop time-out and nobody can tell who stopped it', { result: 'timeout', exitCode: 'killed', exitStatus: 9 }, {}, 'failed', false],
  ['status 143 and certainly nobody stopped it', { exitStatus: 143 }, NOBODY, 'failed', true],
  ['declared to be stopped', {}, { ...NOBODY, declaredStopped: true }, null, false],
  ['run by a timer', { triggeredBy: ['mail.timer'] }, NOBODY, 'failed', false],
  ['run by a path', { triggeredBy: ['mail.path'] }, NOBODY, 'failed', false],
  ['behind a socket', { triggeredBy: ['mail.socket'] }, NOBODY, 'failed', true],
  ['masked', { loadState: 'masked' }, NOBODY, null, false],
  ['failed, its unit file is gone by now', { loadState: 'not-found' }, NOBODY, 'failed', false],
  ['stopped by a person, its unit file is gone by now', { loadState: 'not-found' }, PERSON, null, false],
  ['up, its unit file is gone by now', { loadState: 'not-found', activeState: 'active' }, NOBODY, null, false],
  ['up', { activeState: 'active', subState: 'running' }, NOBODY, null, false],
  ['between two tries', { activeState: 'activating', subState: 'auto-restart' }, NOBODY, null, false],
  ['draining', { activeState: 'deactivating', subState: 'stop-sigterm' }, NOBODY, null, false],
  ['ended by itself, enabled', STOPPED, NOBODY, 'stopped', true],
  ['ended by itself, neither enabled nor desired', { ...STOPPED, unitFileState: 'disabled' }, NOBODY, null, false],
  ['ended by itself, desired', { ...STOPPED, unitFileState: 'disabled' }, { ...NOBODY, desired: true }, 'stopped', true],
  ['never came up, enabled: reported, not started', { ...STOPPED, invocationId: '' }, DEPENDENCY, 'stopped', false],
  ['never came up, neither enabled nor desired', { ...STOPPED, unitFileState: 'disabled' }, DEPENDENCY, null, false],
  ['stopped by a person', STOPPED, PERSON, null, false],
  ['stopped by a person, though desired', STOPPED, { ...PERSON, desired: true }, null, false],
  ['stopped by nobody knows whom', STOPPED, {}, null, false],
  ['stopped on purpose', STOPPED, { ...NOBODY, declaredStopped: true }, null, false],
  ['reset for a start that did not take', { ...STOPPED, unitFileState: 'static' }, { ...NOBODY, leftDown: true }, 'failed', true],
  ['reset for a start that did not take, the journal tells nothing', STOPPED, { leftDown: true }, 'failed', true],
  ['restarted, and stopped by a person meanwhile', STOPPED, { ...PERSON, leftDown: true }, null, false],
  ['waiting for its timer', { ...STOPPED, triggeredBy: ['mail.timer'] }, NOBODY, null, false],
  ['waiting for its socket', { ...STOPPED, triggeredBy: ['mail.socket'] }, NOBODY, null, false],
  ['enabled, not run since boot', { ...STOPPED, invocationId: '' }, {}, null, false],
  [
    'desired, and nothing can tell why it is down: reported, not started',
    { ...STOPPED, invocationId: '' },
    { desired: true },
    'stopped',
    false,
  ],
  ['desired, unloaded, and it ended by itself', { ...STOPPED, invocationId: '' }, { ...NOBODY, desired: true }, 'stopped', true],
])('%s', (_, status, intent, condition, mayStart) => {
  const judged = judgeUnit({ ...FAILED, ...status }, { desired: false, declaredStopped: false, end: UNKNOWN, leftDown: false, ...intent });
  expect({ condition: judged.condition, mayStart: judged.condition !== null && judged.withheld === null }).toEqual({ condition, mayStart });
});

test('the reason says how it ended', () => {
  const judged = judgeUnit({ ...FAILED, restarts: 3 }, { desired: false, declaredStopped: false, end: UNKNOWN, leftDown: false });
  expect(judged.reason).toBe('exit-code, exited with status 1, 3 restarts');
});
