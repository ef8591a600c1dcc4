import type { CompleteOptions, PgBoss } from 'pg-boss';

/** Completes one attempt, as a worker does when its handler returns; whether it still was that attempt's to complete. */
export async function completeAttempt(
  boss: PgBoss,
  queue: string,
  { id, retryCount }: { id: string; retryCount: number },
  output: object | null = null,
  options: CompleteOptions = {},
): Promise<boolean> {
  // pg-boss's types do not name what its answer holds.
  const { affected } = (await boss.complete(queue, { id, retryCount }, output, options)) as { affected: number };
  return affected === 1;
}
