import { stripVTControlCharacters, styleText } from 'node:util';

export type Colour = 'green' | 'yellow' | 'red' | 'dim';

/** Colour only where a person looks: on a terminal, and not against NO_COLOR (both are styleText's to know). */
export function paint(text: string, colour: Colour): string {
  return styleText(colour, text, { stream: process.stdout });
}

/** Columns aligned by what is seen, colours aside; the last one is not padded. */
export function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [columns, ...rows].map((row) => columns.map((_, index) => oneLine(row[index] ?? '')));
  const widths = columns.map((_, index) => all.reduce((widest, row) => Math.max(widest, seenLength(row[index] ?? '')), 0));
  return all
    .map((row) =>
      row
        .map((cell, index) => cell + ' '.repeat((widths[index] ?? 0) - seenLength(cell)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const seenLength = (text: string) => stripVTControlCharacters(text).length;

/** Names come from the fleet: none of them may move the cursor or retitle the terminal. Only our colours stand. */
export function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
  return text.replace(/(?!\x1b\[\d+m)\p{Cc}/gu, '?');
}

/** Seconds as a person says them: 0.4s, 12s, 3m, 5h, 2d. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)}s`;
  if (seconds < 119.5) return `${Math.round(seconds)}s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)}h`;
  return `${Math.round(seconds / 86_400)}d`;
}

export function printJson(surroundings: { out(text: string): void }, value: unknown): void {
  surroundings.out(JSON.stringify(value, undefined, 2));
}
