/** `mail` is `mail.service`, `mail@` and `mail@.service` are all instances of that template. */
export function completeUnitName(written: string): string {
  const named = /\.service$/.test(written) ? written : `${written}.service`;
  return named.replace(/@\.service$/, '@*.service');
}
