import { stripVTControlCharacters, styleText } from 'node:util';

export type Colour = 'green' | 'yellow' | 'red' | 'dim';

/** Colour only where a person looks: on a terminal, and not against NO_COLOR (both are styleText's to know). */
export function paint(text: string, colour: Colour): string {
  return styleText(colour, text, { stream: process.stdout });
}

/** Columns aligned by what is seen, colours aside; the last one is not padded. */
export function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [columns, ...rows];
  const widths = columns.map((_, index) => Math.max(...all.map((row) => seenLength(row[index] ?? ''))));
  return all
    .map((row) =>
      columns
        .map((_, index) => pad(row[index] ?? '', index === columns.length - 1 ? 0 : (widths[index] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const seenLength = (text: string) => stripVTControlCharacters(text).length;
const pad = (text: string, width: number) => text + ' '.repeat(Math.max(0, width - seenLength(text)));

/** Seconds as a person says them: 0.4s, 12s, 3m, 5h, 2d. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  if (seconds < 120) return `${Math.round(seconds)}s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)}h`;
  return `${Math.round(seconds / 86_400)}d`;
}

export function printJson(surroundings: { out(text: string): void }, value: unknown): void {
  surroundings.out(JSON.stringify(value, undefined, 2));
}
