import { POLICIES, type PoisonPolicy, type Policy } from '../actions/limits.ts';
import { RULE_MAX, RULE_STALE, text, type ValueType } from '../config-values.ts';
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
  if (text.parse(queue) === undefined) throw new UsageError(`QUEUE: given ${JSON.stringify(queue)}; allowed: ${text.allowed}`);
  if (!POLICIES.includes(policy as Policy)) throw new UsageError(`POLICY: given ${policy}; allowed: ${POLICIES.join(', ')}`);
  const { poison, maxRecoveries, staleAfter } = options;
  if (poison !== undefined && poison !== 'discard' && poison !== 'hold')
    throw new UsageError(`--poison: given ${poison}; allowed: discard, hold`);
  const most = readOption('--max-recoveries', maxRecoveries, RULE_MAX);
  const staleAfterMs = readOption('--stale-after', staleAfter, RULE_STALE);
  return withReadyContext(surroundings, async (context) => {
    const rule = {
      queue,
      policy: policy as Policy,
      poison: poison as PoisonPolicy | undefined,
      maxRecoveries: most,
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

/** As RECLAIMD_POLICIES takes it. */
function readOption<Value>(name: string, given: string | undefined, { parse, allowed }: ValueType<Value>): Value | undefined {
  if (given === undefined) return undefined;
  const value = parse(given);
  if (value === undefined) throw new UsageError(`${name}: given ${given}; allowed: ${allowed}`);
  return value;
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
