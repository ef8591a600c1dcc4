import { expect, test } from 'vitest';
import { completeUnitName } from './unit-name.ts';

test.each([
  ['mail', 'mail.service'],
  ['mail@', 'mail@*.service'],
  ['mail@.service', 'mail@*.service'],
  ['mail@1', 'mail@1.service'],
  ['mail-*', 'mail-*.service'],
])('%s is completed to %s', (written, name) => {
  expect(completeUnitName(written)).toBe(name);
});
