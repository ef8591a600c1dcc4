import { POLICIES, type PoisonPolicy, type Policy } from '../actions/limits.ts';
import { parseDuration } from '../config.ts';
import { listPolicies, removePolicy, savePolicy } from '../recovery/policy-table.ts';
import { EXIT, refused, type Surroundings, withReadyContext } from './command.ts';
import { formatSeconds, printJson, table } from './output.ts';
import { auditWish, type Wish, whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

export async function listAll(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  await withReadyContext(surroundings, async ({ database, config }) => {
    const rules = [
      ...config.policies.map((rule) => ({ ...rule, source: 'RECLAIMD_POLICIES' })),
      ...(await listPolicies(database)).map((rule) => ({ ...rule, source: `table, by ${rule.updatedBy} at ${rule.updatedAt}` })),
      {
        queue: '*',
        policy: config.policy,
        maxRecoveries: config.maxRecoveries,
        poison: config.poison,
        staleAfterMs: undefined,
        source: 'default',
      },
    ];
    if (options.json) return printJson(surroundings, rules);
    surroundings.out(
      table(
        ['QUEUE', 'POLICY', 'MAX RECOVERIES', 'POISON', 'STALE AFTER', 'SOURCE'],
        rules.map((rule) => [
          rule.queue,
          rule.policy,
          String(rule.maxRecoveries ?? config.maxRecoveries),
          rule.poison ?? config.poison,
          rule.staleAfterMs === undefined ? 'never' : formatSeconds(rule.staleAfterMs / 1000),
          rule.source,
        ]),
      ),
    );
  });
}

interface SetOptions {
  maxRecoveries?: string;
  poison?: string;
  staleAfter?: string;
  actor: string;
}

export async function set(surroundings: Surroundings, queue: string, policy: string, options: SetOptions): Promise<number> {
  if (!POLICIES.includes(policy as Policy)) throw new UsageError(`POLICY: given ${policy}; allowed: ${POLICIES.join(', ')}`);
  const { poison, maxRecoveries, staleAfter } = options;
  if (poison !== undefined && poison !== 'discard' && poison !== 'hold')
    throw new UsageError(`--poison: given ${poison}; allowed: discard, hold`);
  if (maxRecoveries !== undefined && !/^\d{1,6}$/.test(maxRecoveries))
    throw new UsageError(`--max-recoveries: given ${maxRecoveries}; allowed: a whole number from 0`);
  const staleAfterMs = staleAfter === undefined ? undefined : parseDuration(staleAfter);
  if (staleAfter !== undefined && !staleAfterMs)
    throw new UsageError(`--stale-after: given ${staleAfter}; allowed: a duration such as 30s, 10m or 1h`);
  return withReadyContext(surroundings, async (context) => {
    const rule = {
      queue,
      policy: policy as Policy,
      poison: poison as PoisonPolicy | undefined,
      maxRecoveries: maxRecoveries === undefined ? undefined : Number(maxRecoveries),
      staleAfterMs,
    };
    const wish = wishFor('policy_set', queue, options.actor);
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial);
    await context.database.transaction(async (tx) => {
      await savePolicy(tx, rule, options.actor);
      await auditWish(tx, context, wish, rule);
    });
    surroundings.out(`policy of ${queue}: ${policy}`);
    return EXIT.done;
  });
}

export async function remove(surroundings: Surroundings, queue: string, { actor }: { actor: string }): Promise<number> {
  return withReadyContext(surroundings, async (context) => {
    const wish = wishFor('policy_remove', queue, actor);
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial);
    const removed = await context.database.transaction(async (tx) => {
      if (!(await removePolicy(tx, queue))) return false;
      await auditWish(tx, context, wish);
      return true;
    });
    surroundings.out(removed ? `policy of ${queue} removed` : `no policy is set for ${queue}: see \`reclaimd policies list\``);
    return removed ? EXIT.done : EXIT.failed;
  });
}

const wishFor = (action: 'policy_set' | 'policy_remove', queue: string, actor: string): Wish => ({
  actor,
  action,
  resource: { kind: 'queue', name: queue },
  target: queue,
});
