export const LEAST_REASON = 8;

/** Controls, and what Unicode has fonts show as nothing: zero-width characters, fillers, the blank of braille. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** A person's reason as the audit keeps it; undefined where it says nothing: less than eight characters that can be seen. */
export function readReason(given: string): string | undefined {
  const isSaid = given.replace(INVISIBLE, '').trim().length >= LEAST_REASON;
  return isSaid ? storable(given) : undefined;
}

/** No text of the database's may hold a NUL. */
export const storable = (given: string): string => given.replaceAll('\0', '').trim();
