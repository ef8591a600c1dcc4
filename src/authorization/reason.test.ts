import { expect, test } from 'vitest';
import { readReason } from './reason.ts';

test.each([
  ['it is down', 'it is down'],
  ['  12345678\n', '12345678'],
  ['it\0 is\0 down\0', 'it is down'],
  ['line one\nline two', 'line one\nline two'],
  ['größe wäre da', 'größe wäre da'],
  ['das Gerät \u200Dist aus', 'das Gerät \u200Dist aus'],
])('the reason %j is kept as %j', (given, kept) => {
  expect(readReason(given)).toBe(kept);
});

test.each([
  ['nothing', ''],
  ['seven characters', '1234567'],
  ['blanks', ' '.repeat(20)],
  ['no-break spaces', '\u00A0'.repeat(20)],
  ['NUL', '\0'.repeat(20)],
  ['control characters', '\u0007'.repeat(20)],
  ['zero-width spaces', '\u200B'.repeat(20)],
  ['soft hyphens', '\u00AD'.repeat(20)],
  ['fillers', '\u3164'.repeat(20)],
  ['braille blanks', '\u2800'.repeat(20)],
  ['seven characters among invisible ones', `1234567${'\u200B'.repeat(20)}`],
])('%s is no reason', (_, given) => {
  expect(readReason(given)).toBeUndefined();
});
