import { expect, test } from 'vitest';
import type { UnitJournal } from '../actions/unit-journal.ts';
import { systemClock } from '../runtime/clock.ts';
import { enrich, shorten } from './enrich.ts';

const unit = (name: string) => ({ unit: name, invocationId: name });
const journalOf = (readLastLines: UnitJournal['readLastLines']): UnitJournal => ({
  readLastLines,
  explainEnds: async () => [],
});

test('one budget for all: what hangs is killed, and those it keeps waiting stay empty', async () => {
  const killed: string[] = [];
  const journal = journalOf(async (name, _, signal) => {
    if (name === 'a') return ['a said this'];
    await new Promise((done) =>
      signal.addEventListener('abort', () => {
        killed.push(name);
        done(undefined);
      }),
    );
    return ['too late'];
  });
  const texts = await enrich([unit('a'), unit('b'), unit('c')], { journal, clock: systemClock, budgetMs: 50 });
  expect([...texts]).toEqual([['a', 'a said this']]);
  expect(killed).toEqual(['b']);
});

test('a read that does not heed its signal does not hold the call', async () => {
  const texts = await enrich([unit('a')], { journal: journalOf(() => new Promise(() => undefined)), clock: systemClock, budgetMs: 20 });
  expect(texts.size).toBe(0);
});

test('a read that fails leaves its unit empty and goes on to the next', async () => {
  const journal = journalOf(async (name) => {
    if (name === 'a') throw new Error('no such journal');
    return ['one', 'two'];
  });
  expect([...(await enrich([unit('a'), unit('b')], { journal, clock: systemClock }))]).toEqual([['b', 'one | two']]);
});

test.each([
  ['short', 10, 'short'],
  ['exactly10!', 10, 'exactly10!'],
  ['more than ten', 10, 'more than…'],
  ['👩‍👩‍👧‍👦👩‍👩‍👧‍👦👩‍👩‍👧‍👦', 2, '👩‍👩‍👧‍👦…'],
  ['e\u0301e\u0301e\u0301', 2, 'e\u0301…'],
  ['a\x1b[31mb\nc', 20, 'a [31mb c'],
  ['Error: connect postgres://svc:hunter2@db/app failed', 90, 'Error: connect postgres://***@db/app failed'],
  ['at https://svc:a/b@c@db:5432/app, then postgres://db/app', 90, 'at https://***@db:5432/app, then postgres://db/app'],
  ['cut before: postgres://svc:hunter2@db/app', 30, 'cut before: postgres://***@db…'],
  ['host=db password=hunter2 user=svc', 90, 'host=db password=*** user=svc'],
])('%j in %i characters is %j', (text, most, cut) => {
  expect(shorten(text, most)).toBe(cut);
});
