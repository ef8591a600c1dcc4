import { expect, test } from 'vitest';
import type { FleetState } from '../fleet/queries.ts';
import { freeSeconds, superviseOnce, type TakeOverDependencies, whyHeld } from './take-over.ts';

const CALM: FleetState = {
  comebackSeconds: 1_000,
  comebackReason: 'the database server started',
  braked: false,
  releasedSeconds: null,
  ownBeatFresh: true,
  daemonAgeSeconds: 1_000,
};
const LIMITS = { outageGraceSeconds: 120, startupDelaySeconds: 60 };

test.each<[Partial<FleetState>, string | undefined]>([
  [{}, undefined],
  [{ comebackSeconds: null }, undefined],
  [{ comebackSeconds: 119 }, 'the database server started'],
  [{ ownBeatFresh: false }, 'this daemon was cut off'],
  [{ daemonAgeSeconds: 59 }, 'start-up delay'],
  [{ braked: true }, 'too many executors fell silent together'],
  [{ releasedSeconds: 119 }, 'the mass-failure brake held until now'],
  [{ releasedSeconds: 120 }, undefined],
])('%j: %s', (state, held) => {
  expect(whyHeld({ ...CALM, ...state }, LIMITS)).toBe(held);
});

test.each<[Partial<FleetState>, number | undefined]>([
  [{}, 880],
  [{ comebackSeconds: null }, 940],
  [{ comebackSeconds: null, daemonAgeSeconds: 60 }, 0],
  [{ releasedSeconds: 130 }, 10],
  [{ comebackSeconds: null, daemonAgeSeconds: Number.POSITIVE_INFINITY }, Number.POSITIVE_INFINITY],
  [{ braked: true }, undefined],
])('%j: free to make a pass for %s s', (state, seconds) => {
  expect(freeSeconds({ ...CALM, ...state }, LIMITS)).toBe(seconds);
});

/** A pass of so many statements, of which the fleet's state is asked. */
function createPass(states: Partial<FleetState>[], overrides: Partial<TakeOverDependencies['supervision']> = {}) {
  const done: string[] = [];
  const dependencies: TakeOverDependencies = {
    ...LIMITS,
    node: 'test',
    database: {
      query: async () => [],
      execute: async (_, values = []) => {
        done.push(`audit ${String(values[6])}`);
        return 1;
      },
    },
    supervision: {
      listExpiring: async () => [{ queue: 'q', jobId: 'j', retryCount: 0 }],
      listExpired: async () => (done.includes('statement') ? ['q/j:0'] : []),
      supervise: async (mayGoOn) => {
        for (const name of ['statement', 'further']) {
          await mayGoOn();
          done.push(name);
        }
      },
      ...overrides,
    },
    flows: { resolve: async () => void done.push('flows') },
    readFleet: async () => ({ ...CALM, ...states.shift() }),
  };
  return { done, pass: () => superviseOnce(dependencies) };
}

const AUDITED = 'audit {"attempts":["q/j:0"]}';

test('a pass that nothing holds is made and audited, and flows are resolved', async () => {
  const { done, pass } = createPass([]);
  expect(await pass()).toBeUndefined();
  expect(done).toEqual(['statement', 'further', AUDITED, 'flows']);
});

test('a pass that is held makes no statement; flows are resolved all the same', async () => {
  const { done, pass } = createPass([{ braked: true }]);
  expect(await pass()).toBe('too many executors fell silent together');
  expect(done).toEqual(['flows']);
});

test('a pass is broken off where it would have been held, and what it did is audited', async () => {
  const { done, pass } = createPass([{}, {}, { ownBeatFresh: false }]);
  expect(await pass()).toBe('this daemon was cut off');
  expect(done).toEqual(['statement', AUDITED, 'flows']);
});

test('a pass that fails says so, and flows are resolved all the same', async () => {
  const { done, pass } = createPass([], { supervise: () => Promise.reject(new Error('no')) });
  await expect(pass()).rejects.toThrow('no');
  expect(done).toEqual(['flows']);
});
