import { expect, test } from 'vitest';
import type { UnitHealth } from './detect.ts';
import { findFlapping } from './findings.ts';

test.each([
  [3, 'healing app.service on alpha was tried 3 times and is not tried any more until a person or a quiet period comes'],
  [1, 'healing app.service on alpha was tried once and is not tried any more until a person or a quiet period comes'],
])('a unit that healing has given up after %i tries is not said to have been healed', (heals, summary) => {
  const circumstances = {
    node: 'alpha',
    lastErrors: new Map(),
    budgets: new Map([['app.service', { breaker: 'open' as const, heals, againInSeconds: 60 }]]),
    restarts: new Map(),
    flapRestarts: 5,
    healStopped: false,
    healsNothing: null,
    healing: new Set<string>(),
  };
  expect(findFlapping([{ unit: 'app.service' } as UnitHealth], circumstances)).toMatchObject([{ class: 'unit_flapping', summary }]);
});
