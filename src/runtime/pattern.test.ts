import { expect, test } from 'vitest';
import { matchesPattern } from './pattern.ts';

test.each([
  ['work', 'work', true],
  ['work', 'works', false],
  ['*', 'anything', true],
  ['charge-*', 'charge-card', true],
  ['charge-*', 'recharge-card', false],
  ['*-mail', 'send-mail', true],
  ['a*b*c', 'a-b-c', true],
  ['a*b*c', 'acb', false],
  ['a.b', 'axb', false],
  ['(x)*', '(x)y', true],
  ['a*', 'a\nb', true],
])('pattern %j and text %j', (pattern, text, matches) => {
  expect(matchesPattern(pattern, text)).toBe(matches);
});
