import { WriteStream } from 'node:tty';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { formatSeconds, paint, printJson, spellControls, table } from './output.ts';

const before = { isTTY: process.stdout.isTTY, getColorDepth: process.stdout.getColorDepth };

beforeEach(() => {
  for (const name of ['NO_COLOR', 'FORCE_COLOR', 'NODE_DISABLE_COLORS', 'CI']) vi.stubEnv(name, undefined);
  vi.stubEnv('TERM', 'xterm-256color');
});
afterEach(() => {
  vi.unstubAllEnvs();
  Object.assign(process.stdout, before);
});

/** What a terminal's stream has and a pipe's has not. */
const pretendTerminal = () => Object.assign(process.stdout, { isTTY: true, getColorDepth: WriteStream.prototype.getColorDepth });

test('on a terminal there is colour', () => {
  pretendTerminal();
  expect(paint('dead', 'red')).toBe('\x1b[31mdead\x1b[39m');
});

test('against NO_COLOR there is none', () => {
  pretendTerminal();
  vi.stubEnv('NO_COLOR', '1');
  expect(paint('dead', 'red')).toBe('dead');
});

test('in a pipe there is none', () => {
  Object.assign(process.stdout, { isTTY: undefined });
  expect(paint('dead', 'red')).toBe('dead');
});

test('columns are aligned by what is seen, and lines do not end in blanks', () => {
  pretendTerminal();
  const written = table(
    ['NODE', 'STATE', 'SINCE'],
    [
      ['a', { text: 'dead', colour: 'red' }, '1s'],
      ['long-name', 'alive', ''],
    ],
  );
  expect(written).toBe(['NODE       STATE  SINCE', 'a          \x1b[31mdead\x1b[39m   1s', 'long-name  alive'].join('\n'));
});

test('a table may be very long', () => {
  const rows = Array.from({ length: 200_000 }, (_, index) => [String(index), 'x']);
  expect(table(['ID', 'X'], rows).split('\n')).toHaveLength(200_001);
});

test("a name from the fleet cannot steer the reader's terminal or break the table", () => {
  const written = table(['NAME'], [['evil\x1b]0;title\x07\n\x1b[2J\u009b1A']]);
  expect(written).toBe('NAME\nevil?]0;title???[2J?1A');
});

test('no text from outside colours or hides what follows, on a terminal either', () => {
  pretendTerminal();
  const reason = 'legit\x1b[8m \x1b[31m';
  expect(table(['REASON', 'OUTCOME'], [[reason, { text: `${reason}!`, colour: 'green' }]]).split('\n')[1]).toBe(
    'legit?[8m ?[31m  \x1b[32mlegit?[8m ?[31m!\x1b[39m',
  );
  expect(paint(reason, 'yellow')).toBe('\x1b[33mlegit?[8m ?[31m\x1b[39m');
});

test('whatever else is written shows what would steer a terminal, and JSON stays JSON', () => {
  const colours = `\x1b[31m${'red'}\x1b[39m and \x1b[2mdim\x1b[22m,\n\tand more`;
  expect(spellControls(colours)).toBe(colours);
  expect(spellControls('a\x1b[8mb\x1b[0m\x1b[2J\x1b[38m\r\x07')).toBe('a\\u001b[8mb\\u001b[0m\\u001b[2J\\u001b[38m\\u000d\\u0007');
  const value = { reason: 'x\u009b8m\x7f\x1b' };
  const spelled = spellControls(JSON.stringify(value));
  expect(spelled).not.toMatch(/\p{Cc}/u);
  expect(JSON.parse(spelled)).toEqual(value);
});

test.each([
  [-0.2, '0.0s'],
  [0.44, '0.4s'],
  [9.96, '10s'],
  [119.4, '119s'],
  [119.6, '2m'],
  [3600, '60m'],
  [7200, '2h'],
  [172_800, '2d'],
])('%s seconds are %s', (seconds, said) => {
  expect(formatSeconds(seconds)).toBe(said);
});

test('JSON is one value that a program can read', () => {
  const lines: string[] = [];
  printJson({ out: (text) => lines.push(text) }, { a: [1, null] });
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([{ a: [1, null] }]);
});
