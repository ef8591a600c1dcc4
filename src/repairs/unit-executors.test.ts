import { expect, test } from 'vitest';
import { findUnshownIn, namesOf, type UnitExecutor } from './unit-executors.ts';

const living = (id: string): UnitExecutor => ({ id, lives: true });
const silent = (id: string): UnitExecutor => ({ id, lives: false });

test.each<[string, UnitExecutor[], UnitExecutor[], string | undefined]>([
  ['who was shown', [living('a'), silent('b')], [living('a'), silent('b')], undefined],
  ['who has ended since', [living('a'), living('b')], [living('b')], undefined],
  ['who lived and is silent', [living('a')], [silent('a')], undefined],
  ['who came since', [living('a')], [living('a'), living('b')], 'b runs in app.service by now, and was not shown'],
  ['who came since and is silent', [], [silent('b')], 'b runs in app.service by now, and was not shown'],
  ['who came since, several', [], [living('a'), living('b')], 'a, b run in app.service by now, and were not shown'],
  ['who was silent and lives', [silent('a')], [living('a')], 'a of app.service, silent when shown, lives'],
])('%s', (_, shown, now, drift) => {
  expect(findUnshownIn('app.service', shown, now)).toBe(drift);
});

test('of very many the first are named, and the others counted', () => {
  expect(namesOf(Array.from({ length: 12 }, (_, index) => living(`w${index}`)))).toBe('w0, w1, w2, w3, w4, w5, w6, w7, w8, w9 and 2 more');
});
