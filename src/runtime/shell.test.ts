import { expect, test } from 'vitest';
import { quoteForShell } from './shell.ts';

test.each([
  ['web-1:mail@1.service', 'web-1:mail@1.service'],
  ['', "''"],
  ['-rf', "'-rf'"],
  ['$(reboot)', "'$(reboot)'"],
  ["a'; rm -rf ~\n#", "'a'\\''; rm -rf ~?#'"],
])('%j is pasted as %s', (word, quoted) => {
  expect(quoteForShell(word)).toBe(quoted);
});
