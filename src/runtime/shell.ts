/** What is pasted into a shell must stay one word, and one line, whatever it came from. */
export function quoteForShell(word: string): string {
  if (/^[\w@%+=:,./][\w@%+=:,./-]*$/.test(word)) return word;
  return `'${word.replaceAll("'", `'\\''`).replace(/\p{Cc}/gu, '?')}'`;
}
