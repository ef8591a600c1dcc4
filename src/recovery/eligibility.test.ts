import { expect, test } from 'vitest';
import type { ExecutorHealth } from '../executors/health.ts';
import type { FleetState } from '../fleet/queries.ts';
import { findGone, findHung, isInScope, maySilenceCount, type Scope } from './eligibility.ts';

const FLEET: FleetState = {
  comebackSeconds: 10_000,
  comebackReason: null,
  braked: false,
  releasedSeconds: null,
  ownBeatFresh: true,
  daemonAgeSeconds: 10_000,
};
const BRAKES = { percent: 55, minimum: 3, startupDelaySeconds: 120, outageGraceSeconds: 120 };
const SCOPE = { stack: null, env: null };

const executor = (verdict: ExecutorHealth['verdict'], more: Partial<ExecutorHealth> = {}) =>
  ({
    id: 'e',
    verdict,
    stack: null,
    env: null,
    beatSeconds: 30,
    silentSeconds: 100,
    witnessed: verdict === 'hung',
    unseenSeconds: verdict === 'hung' ? 3 : null,
    ageSeconds: 1000,
    missingAfter: 90,
    ...more,
  }) as ExecutorHealth;

test.each<[ExecutorHealth['verdict'], boolean]>([
  ['alive', false],
  ['late', false],
  ['missing', true],
  ['dead', true],
  ['hung', false],
  ['stopped', true],
  ['unknown', false],
])('with every brake off, %s is gone: %j', (verdict, gone) => {
  expect(findGone([executor(verdict)], FLEET, SCOPE, BRAKES).gone).toHaveLength(gone ? 1 : 0);
});

test.each<[string, Partial<FleetState>]>([
  ['startup_delay', { daemonAgeSeconds: 119 }],
  ['outage_grace', { comebackSeconds: 119 }],
  ['cut_off', { ownBeatFresh: false }],
])('silence is held back by %s; proof is not', (reason, fleet) => {
  const silent = findGone([executor('missing')], { ...FLEET, ...fleet }, SCOPE, BRAKES);
  expect(silent).toEqual({ gone: [], restraints: [{ reason, executors: ['e'] }] });
  expect(findGone([executor('dead')], { ...FLEET, ...fleet }, SCOPE, BRAKES).gone).toHaveLength(1);
});

test('an executor that beats slowly gets time for two beats after a comeback', () => {
  expect(findGone([executor('missing', { beatSeconds: 600 })], { ...FLEET, comebackSeconds: 1100 }, SCOPE, BRAKES).gone).toHaveLength(0);
  expect(findGone([executor('missing', { beatSeconds: 600 })], { ...FLEET, comebackSeconds: 1300 }, SCOPE, BRAKES).gone).toHaveLength(1);
});

test('who was in sight of a daemon gets the start-up delay, or the longer grace, from the last that was heard of that daemon', () => {
  const lost = (unseenSeconds: number) => executor('missing', { unseenSeconds });
  expect(findGone([lost(119)], FLEET, SCOPE, BRAKES)).toEqual({ gone: [], restraints: [{ reason: 'witness_lost', executors: ['e'] }] });
  expect(findGone([lost(120)], FLEET, SCOPE, BRAKES)).toEqual({ gone: [lost(120)], restraints: [] });
  expect(findGone([lost(299)], FLEET, SCOPE, { ...BRAKES, outageGraceSeconds: 300 }).gone).toEqual([]);
  expect(findGone([executor('dead', { unseenSeconds: 1 })], FLEET, SCOPE, BRAKES).gone).toHaveLength(1);
});

test('who was silent when the brake was let go gets the grace, or time for two beats, from then', () => {
  const silent = executor('missing', { silentSeconds: 500 });
  const held = { gone: [], restraints: [{ reason: 'mass_failure', executors: ['e'] }] };
  expect(findGone([silent], { ...FLEET, releasedSeconds: 119 }, SCOPE, BRAKES)).toEqual(held);
  expect(findGone([silent], { ...FLEET, releasedSeconds: 120 }, SCOPE, BRAKES).gone).toEqual([silent]);
  const slow = executor('missing', { silentSeconds: 900, beatSeconds: 200 });
  expect(findGone([slow], { ...FLEET, releasedSeconds: 399 }, SCOPE, BRAKES)).toEqual(held);
  const later = executor('missing', { silentSeconds: 95 });
  expect(findGone([later], { ...FLEET, releasedSeconds: 100 }, SCOPE, BRAKES).gone, 'fell silent after it').toEqual([later]);
  expect(findGone([silent], { ...FLEET, braked: true }, SCOPE, BRAKES), 'held at the last look, and not any more').toEqual(held);
});

const hungBy = (fleet: Partial<FleetState>, executors: ExecutorHealth[] = [executor('hung')], own: Scope = SCOPE) =>
  findHung(executors, { ...FLEET, ...fleet }, own, BRAKES, 60);
const hungTogether = (count: number) => Array.from({ length: count }, (_, index) => executor('hung', { id: `e${index}` }));

test('who hangs for long enough is hung, and nobody else', () => {
  expect(hungBy({})).toEqual({ hung: [executor('hung')], restraints: [] });
  expect(hungBy({}, [executor('hung', { silentSeconds: 59 }), executor('missing'), executor('dead')]).hung).toEqual([]);
  expect(hungBy({}, [executor('hung', { witnessed: false, unseenSeconds: 20 })]).hung, 'nobody sees now that it is there').toEqual([]);
  expect(hungBy({}, [executor('hung')], { stack: null, env: 'prod' })).toEqual({ hung: [], restraints: [] });
});

test.each<[string, Partial<FleetState>]>([
  ['startup_delay', { daemonAgeSeconds: 119 }],
  ['outage_grace', { comebackSeconds: 119 }],
  ['cut_off', { ownBeatFresh: false }],
])('a worker that looks hung is held back by %s as silence is', (reason, fleet) => {
  expect(hungBy(fleet)).toEqual({ hung: [], restraints: [{ reason, executors: ['e'] }] });
});

test('workers that hang together are held back by the brake, whether the others hang or are missing', () => {
  const alive = Array.from({ length: 3 }, (_, index) => executor('alive', { id: `a${index}`, silentSeconds: 1 }));
  expect(hungBy({}, hungTogether(3))).toMatchObject({ hung: [], restraints: [{ reason: 'mass_failure' }] });
  expect(hungBy({}, [...hungTogether(2), executor('missing')])).toMatchObject({ hung: [], restraints: [{ reason: 'mass_failure' }] });
  expect(hungBy({}, [...hungTogether(3), ...alive]).hung).toHaveLength(3);
  expect(hungBy({}, hungTogether(2)).hung).toHaveLength(2);
});

test.each([
  [null, null, null, null, true],
  ['a', null, null, null, false],
  [null, null, 'a', null, true],
  ['a', null, 'a', null, true],
  ['a', null, 'b', null, false],
  [null, 'prod', null, 'prod', true],
  [null, 'prod', null, null, false],
  [null, null, null, 'prod', false],
])('executor of stack %j env %j, node of stack %j env %j: in scope %j', (stack, env, ownStack, ownEnv, inScope) => {
  expect(isInScope({ stack, env }, { stack: ownStack, env: ownEnv })).toBe(inScope);
});

test.each<[string, Partial<FleetState>, boolean]>([
  ['nothing', {}, true],
  ['no outage ever', { comebackSeconds: null }, true],
  ['a daemon that was cut off', { ownBeatFresh: false }, false],
  ['a daemon that has only begun', { daemonAgeSeconds: 119 }, false],
  ['a comeback within the grace', { comebackSeconds: 119 }, false],
  ['a comeback since which it had no time for a beat', { comebackSeconds: 299 }, false],
  ['a comeback before its last beat was due', { comebackSeconds: 300 }, true],
])('the silence of a job that beats every 300 s, with %s in the way, is evidence: %j', (_, fleet, counts) => {
  expect(maySilenceCount({ ...FLEET, ...fleet }, BRAKES, 300)).toBe(counts);
});
