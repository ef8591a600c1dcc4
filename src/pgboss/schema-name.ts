/**
 * pg-boss writes its schema's name into SQL as it is given: bare names fold to lower case, `"Quoted-Name"` stands.
 * @returns the name as the catalog has it.
 */
export function catalogName(spelling: string): string {
  return /^".*"$/.test(spelling) ? spelling.slice(1, -1) : spelling.toLowerCase();
}
