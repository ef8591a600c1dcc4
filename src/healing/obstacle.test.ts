import { expect, test } from 'vitest';
import type { UnitStatus } from '../actions/unit-manager.ts';
import { findObstacle } from './obstacle.ts';

const STATES: Record<string, string> = {
  'up.service': 'active',
  'rising.service': 'activating',
  'down.service': 'inactive',
  'broken.service': 'failed',
  'data.mount': 'active',
  'gone.mount': 'inactive',
};
const PLAIN = { condition: 'failed', startLimitAction: 'none', transient: false, conflicts: [], requisite: [], requires: [] } as const;
const read = async (unit: string) => (unit in STATES ? ({ unit, activeState: STATES[unit] } as UnitStatus) : undefined);

test.each<[string[], string | undefined]>([
  [['up.service', 'down.service', 'data.mount'], undefined],
  [['up.service', 'broken.service'], 'it requires broken.service, which is down'],
  [['gone.mount'], 'it requires gone.mount, which is down'],
  [['unknown.device'], 'it requires unknown.device, which is down'],
])('requires %j: %s', async (requires, expected) => {
  expect(await findObstacle({ ...PLAIN, requires }, read)).toBe(expected);
});

test.each<[string[], string[], string | undefined]>([
  [[], [], undefined],
  [['down.service', 'broken.service', 'unknown.service'], [], undefined],
  [['down.service', 'up.service'], [], 'it conflicts with up.service, which runs'],
  [['rising.service'], [], 'it conflicts with rising.service, which runs'],
  [[], ['up.service'], undefined],
  [[], ['up.service', 'down.service'], 'it may run only beside down.service, which is down'],
  [[], ['unknown.service'], 'it may run only beside unknown.service, which is down'],
])('conflicts %j, requisite %j: %s', async (conflicts, requisite, expected) => {
  expect(await findObstacle({ ...PLAIN, conflicts, requisite }, read)).toBe(expected);
});

test.each<[Partial<Parameters<typeof findObstacle>[0]>, boolean]>([
  [{ transient: true }, false],
  [{ condition: 'start_limit_hit' }, false],
  [{ transient: true, condition: 'start_limit_hit' }, true],
  [{ transient: true, startLimitAction: 'reboot' }, true],
])('%j would be lost by a reset: %s', async (status, isLost) => {
  expect((await findObstacle({ ...PLAIN, ...status }, read)) !== undefined).toBe(isLost);
});
