import { expect, test } from 'vitest';
import { planUnit } from './unit-plan.ts';

const planIn = (activeState: string, action: 'unit_heal' | 'unit_restart' = 'unit_restart') => {
  const seen = { unit: 'app.service', activeState, subState: 'any', result: 'success', invocation: 'i' };
  return planUnit(action, 'far', seen, [{ id: 'w1', lives: true }]);
};

test.each(['active', 'activating', 'reloading', 'refreshing', 'deactivating', 'maintenance'])(
  'a unit that is %s may run: a restart says who ends with it, and there is nothing to heal',
  (activeState) => {
    expect(planIn(activeState)).toMatchObject({ plan: { warnings: ['1 living executor runs in it, and will end with it: w1'] } });
    expect(planIn(activeState, 'unit_heal')).toMatchObject({ refusal: expect.stringContaining(`it is ${activeState}`) });
  },
);

test.each(['failed', 'inactive'])('a unit that is %s runs nothing that could end', (activeState) => {
  for (const action of ['unit_heal', 'unit_restart'] as const)
    expect(planIn(activeState, action)).toMatchObject({ plan: { executors: [{ id: 'w1', lives: true }], warnings: [] } });
});
