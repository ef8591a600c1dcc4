import { appendAudit } from '../audit/append.ts';
import type { Database } from '../postgres/database.ts';
import { forgetReplays, lockExhausted } from './queries.ts';

export type ToldAgain = { done: true } | { done: false; why: string };

/** A step that was told of its job's end as often as the limit allows gets its event anew, from the next pass on. */
export function tellAgain(
  database: Database,
  { step, actor, reason, node }: { step: string; actor: string; reason: string; node: string },
): Promise<ToldAgain> {
  return database.transaction(async (tx): Promise<ToldAgain> => {
    const [found, other] = await lockExhausted(tx, step);
    if (!found) return { done: false, why: `no exhausted step is called ${step}: \`reclaimd workflows\` shows them` };
    if (other) return { done: false, why: `several exhausted steps are called ${step}: their engine must track them anew` };
    await forgetReplays(tx, found);
    await appendAudit(tx, { actor, action: 'reconcile', target: step, outcome: 'done', reason, node, detail: { again: found } });
    return { done: true };
  });
}
