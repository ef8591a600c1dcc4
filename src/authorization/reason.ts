export const LEAST_REASON = 8;

const INVISIBLE = /[\p{Cc}\p{Cf}]/gu;

/** A person's reason as the audit keeps it; undefined where it says nothing: less than eight characters that can be seen. */
export function readReason(given: string): string | undefined {
  const isSaid = given.replace(INVISIBLE, '').trim().length >= LEAST_REASON;
  // No text of the database's may hold it.
  return isSaid ? given.replaceAll('\0', '').trim() : undefined;
}
