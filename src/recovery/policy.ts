import { nameAttempt } from '../actions/job-store.ts';
import { operatorsPolicy, POLICIES, type PoisonPolicy, type Policy, type ResolvedPolicy } from '../actions/limits.ts';
import type { Clock } from '../runtime/clock.ts';
import { matchesPattern } from '../runtime/pattern.ts';

/** One entry of a list of policies; `queue` may hold `*` for any run of characters. */
export interface PolicyRule {
  queue: string;
  policy: Policy;
  maxRecoveries?: number | undefined;
  poison?: PoisonPolicy | undefined;
  staleAfterMs?: number | undefined;
}

export interface PolicyDefaults {
  policy: Policy;
  maxRecoveries: number;
  poison: PoisonPolicy;
}

/** What a policy function is asked about. */
export interface AttemptQuestion {
  queue: string;
  jobId: string;
  retryCount: number;
  verdict: string;
  executorId: string | null;
}

/** Returns a policy, or undefined to let the lists decide. */
export type ResolvePolicy = (attempt: AttemptQuestion) => Policy | undefined | Promise<Policy | undefined>;

/** First match wins: the configured list, then the table, then the defaults. */
export function resolveFromLists(
  queue: string,
  configured: readonly PolicyRule[],
  table: readonly PolicyRule[],
  defaults: PolicyDefaults,
): ResolvedPolicy {
  const rule = configured.find((candidate) => matchesPattern(candidate.queue, queue));
  const row = rule ?? table.find((candidate) => matchesPattern(candidate.queue, queue));
  if (!row) return { ...defaults, source: 'default' };
  return {
    policy: row.policy,
    source: rule ? 'configured' : 'table',
    maxRecoveries: row.maxRecoveries ?? defaults.maxRecoveries,
    poison: row.poison ?? defaults.poison,
  };
}

export interface PolicyResolver {
  resolve(attempt: AttemptQuestion): Promise<ResolvedPolicy>;
  /** The queues' rules that set a time without activity. */
  staleRules: readonly PolicyRule[];
}

/** The function, asked once for each attempt as it is: `answers` keeps what it said, or that it threw. */
export function remembering(resolvePolicy: ResolvePolicy, answers: Map<string, Promise<Policy | undefined>> = new Map()) {
  return (attempt: AttemptQuestion): Promise<Policy | undefined> => {
    const asked = JSON.stringify(attempt);
    const answer = answers.get(asked) ?? (async () => resolvePolicy(attempt))();
    answers.set(asked, answer);
    return answer;
  };
}

export interface PolicySources {
  /** By attempt: what a person who was shown it named when they had its executor stopped. */
  named?: ReadonlyMap<string, { executor: string; policy: Policy }>;
  resolvePolicy: ResolvePolicy | undefined;
  configured: readonly PolicyRule[];
  table: readonly PolicyRule[];
  defaults: PolicyDefaults;
  /** A function that throws or answers nonsense rescues nothing by itself: the lists decide, and it is counted. */
  onError(error: unknown): void;
  clock: Clock;
}

/** What has not been answered by then is as good as a fault: nobody else's attempts wait for it. */
const ANSWER_MS = 5_000;

export function createPolicyResolver(sources: PolicySources): PolicyResolver {
  const { named, resolvePolicy, configured, table, defaults, onError, clock } = sources;
  return {
    staleRules: [...configured, ...table].filter((rule) => rule.staleAfterMs !== undefined),
    resolve: async (attempt) => {
      const shown = named?.get(nameAttempt(attempt));
      if (shown?.executor === attempt.executorId) return operatorsPolicy(shown.policy);
      const listed = resolveFromLists(attempt.queue, configured, table, defaults);
      if (!resolvePolicy) return listed;
      try {
        const answer = await inTime(resolvePolicy({ ...attempt }));
        if (answer === undefined) return listed;
        if (POLICIES.includes(answer)) return { ...listed, policy: answer, source: 'function' };
        throw new TypeError(`resolvePolicy answered ${JSON.stringify(answer)}; allowed are ${POLICIES.join(', ')} and undefined`);
      } catch (error) {
        onError(error);
        return listed;
      }
    },
  };

  async function inTime<T>(answer: T | Promise<T>): Promise<T> {
    const over = new AbortController();
    const tooLate = clock.sleep(ANSWER_MS, over.signal).then(() => {
      throw new Error(`resolvePolicy has not answered within ${ANSWER_MS / 1000} s`);
    });
    tooLate.catch(() => undefined);
    return Promise.race([answer, tooLate]).finally(() => over.abort());
  }
}
