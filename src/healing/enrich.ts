import type { UnitJournal } from '../actions/unit-journal.ts';
import type { UnitStatus } from '../actions/unit-manager.ts';
import type { Clock } from '../runtime/clock.ts';

const BUDGET_MS = 500;
const LONGEST_TEXT = 220;
const LINES = 3;

/**
 * The last words of each unit's last life, by unit. One budget for the whole call: reads go on in the given order until it is
 * over, what is under way is killed, and the units it does not reach stay empty.
 */
export async function enrich(
  units: readonly Pick<UnitStatus, 'unit' | 'invocationId'>[],
  { journal, clock, budgetMs = BUDGET_MS }: { journal: UnitJournal; clock: Clock; budgetMs?: number },
): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  const over = new AbortController();
  const finished = new AbortController();
  // Ends in time even where a read does not heed its signal.
  const timeout = clock.sleep(budgetMs, finished.signal).then((): string[] => {
    over.abort();
    return [];
  });
  for (const { unit, invocationId } of units) {
    if (over.signal.aborted) break;
    if (invocationId === '') continue;
    const read = journal.readLastLines(invocationId, LINES, over.signal).catch(() => []);
    const text = shorten((await Promise.race([read, timeout])).join(' | '));
    if (text !== '') texts.set(unit, text);
  }
  finished.abort();
  return texts;
}

/** At most so many characters as a person counts them, never half of one; none of a credential that can be told. */
export function shorten(text: string, most: number = LONGEST_TEXT): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the journal holds whatever a program wrote
  const plain = withoutCredentials(text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ').trim());
  if (plain.length <= most) return plain;
  const characters: string[] = [];
  for (const { segment } of new Intl.Segmenter().segment(plain.slice(0, 40 * most))) {
    if (characters.length === most) return `${characters.slice(0, -1).join('')}…`;
    characters.push(segment);
  }
  return characters.join('');
}

/** Programs complain with the whole URL that they could not reach, and drivers with the whole connection string. */
function withoutCredentials(text: string): string {
  return text
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/)\S*@/gi, '$1***@')
    .replace(/\b((?:password|passwd|pwd|secret|token)=)[^\s&;,]+/gi, '$1***');
}
