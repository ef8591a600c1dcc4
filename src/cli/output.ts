import { styleText } from 'node:util';

export type Colour = 'green' | 'yellow' | 'red' | 'dim';

/** Text of one line, in a colour or without. */
export type Cell = string | { text: string; colour: Colour };

/** Colour only where a person looks: on a terminal, and not against NO_COLOR (both are styleText's to know). */
export function paint(text: string, colour: Colour): string {
  return styleText(colour, oneLine(text), { stream: process.stdout });
}

/** Columns aligned by what is seen, colours aside; the last one is not padded. Colours come after the names were made harmless. */
export function table(columns: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const all = [columns, ...rows].map((row) => columns.map((_, index) => row[index] ?? ''));
  const widths = columns.map((_, index) => all.reduce((widest, row) => Math.max(widest, textOf(row[index] ?? '').length), 0));
  return all
    .map((row) =>
      row
        .map((cell, index) => painted(cell) + ' '.repeat((widths[index] ?? 0) - textOf(cell).length))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const textOf = (cell: Cell) => (typeof cell === 'string' ? cell : cell.text);

export const painted = (cell: Cell): string => (typeof cell === 'string' ? oneLine(cell) : paint(cell.text, cell.colour));

/** Names come from the fleet: none of them may move the cursor, retitle the terminal, or colour or hide what follows. */
export function oneLine(text: string): string {
  return text.replace(/\p{Cc}|\p{Bidi_Control}|[\u2028\u2029]/gu, '?');
}

/**
 * The last door before a terminal: control characters that no line of ours has are spelled out, as JSON may spell them, too. Line
 * breaks, tabs and the colours of `paint` stand.
 */
export function spellControls(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
  return text.replace(/(\x1b\[(?:2|22|31|32|33|39)m|[\n\t])|\p{Cc}/gu, (control, ours?: string) => ours ?? spell(control));
}

const spell = (control: string) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`;

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
