import { appendAudit } from '../audit/append.ts';
import type { Action, Resource } from '../authorization/action.ts';
import type { Context } from '../context.ts';
import type { Sql } from '../postgres/database.ts';

export interface Wish {
  actor: string;
  action: Action;
  resource: Resource;
  /** As the audit spells it. */
  target: string;
  reason?: string | undefined;
}

/** Whether the actor may; a denial is audited. @returns why not, undefined where they may. */
export async function whyDenied({ authorize, database, config }: Context, wish: Wish): Promise<string | undefined> {
  const { actor, action, resource, target, reason = null } = wish;
  const decision = await authorize(actor, action, resource);
  if (decision.allowed) return undefined;
  const detail = { denial: decision.sentence };
  await database.transaction((tx) => appendAudit(tx, { actor, action, target, outcome: 'denied', reason, node: config.node, detail }));
  return decision.sentence;
}

/** What a person did to the settings, in the transaction that does it. */
export function auditWish(
  tx: Sql,
  { config }: Context,
  wish: Wish,
  detail: object = {},
  outcome: 'done' | 'failed' = 'done',
): Promise<void> {
  const { actor, action, target, reason = null } = wish;
  return appendAudit(tx, { actor, action, target, outcome, reason, node: config.node, detail });
}
