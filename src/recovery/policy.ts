import { nameAttempt } from '../actions/job-store.ts';
import { POLICIES, type PoisonPolicy, type Policy, type PolicyAnswers, type ResolvedPolicy } from '../actions/limits.ts';
import type { Clock } from '../runtime/clock.ts';
import { createLimit } from '../runtime/limit.ts';
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
  /** What a person named for a job of the queue, within whose limit it is poison or not. */
  resolveNamed(queue: string, policy: Policy): ResolvedPolicy;
  /** The queues' rules that set a time without activity. */
  staleRules: readonly PolicyRule[];
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
  answers?: PolicyAnswers | undefined;
  clock: Clock;
}

/** Questions to the function under way at once: each may well be a connection of the host's. */
const ASKED_AT_ONCE = 16;
/** What has not been answered by then is as good as a fault: nobody else's attempts wait for it. */
const ANSWER_MS = 5_000;
/** After so many in a row without an answer it is left in peace for as long as an answer may take: a thousand would wait for it sixteen by sixteen. */
const MOST_UNANSWERED = ASKED_AT_ONCE;

class PolicyUnanswered extends Error {
  override readonly name = 'PolicyUnanswered';
}

export function createPolicyResolver(sources: PolicySources): PolicyResolver {
  const { named, resolvePolicy, configured, table, defaults, onError, answers, clock } = sources;
  const limited = createLimit(ASKED_AT_ONCE);
  let unanswered = 0;
  let askAgainAt = 0;
  return {
    staleRules: [...configured, ...table].filter((rule) => rule.staleAfterMs !== undefined),
    resolveNamed,
    resolve: async (attempt) => {
      const shown = named?.get(nameAttempt(attempt));
      if (shown?.executor === attempt.executorId) return resolveNamed(attempt.queue, shown.policy);
      const listed = resolveFromLists(attempt.queue, configured, table, defaults);
      const answer = resolvePolicy && (await askOnce(resolvePolicy, attempt));
      return answer === undefined ? listed : { ...listed, policy: answer, source: 'function' };
    },
  };

  function resolveNamed(queue: string, policy: Policy): ResolvedPolicy {
    return { ...resolveFromLists(queue, configured, table, defaults), policy, source: 'operator' };
  }

  function askOnce(resolve: ResolvePolicy, attempt: AttemptQuestion): Promise<Policy | undefined> {
    // Another verdict by the time of the lock is a drift, or as good as the one before: no other question.
    const asked = JSON.stringify({ ...attempt, verdict: undefined });
    const said = answers?.said.get(asked);
    if (said || answers?.isClosed) return said ?? Promise.resolve(undefined);
    const answer = limited(() => ask(resolve, attempt));
    answers?.said.set(asked, answer);
    return answer;
  }

  async function ask(resolve: ResolvePolicy, attempt: AttemptQuestion): Promise<Policy | undefined> {
    if (unanswered >= MOST_UNANSWERED && clock.now() < askAgainAt) {
      onError(new PolicyUnanswered(`resolvePolicy was not asked: it did not answer the last ${unanswered} times`));
      return undefined;
    }
    try {
      const answer = await inTime(resolve({ ...attempt }));
      unanswered = 0;
      if (answer === undefined || POLICIES.includes(answer)) return answer;
      throw new TypeError(`resolvePolicy answered ${JSON.stringify(answer)}; allowed are ${POLICIES.join(', ')} and undefined`);
    } catch (error) {
      unanswered = error instanceof PolicyUnanswered ? unanswered + 1 : 0;
      askAgainAt = clock.now() + ANSWER_MS;
      onError(error);
      return undefined;
    }
  }

  async function inTime<T>(answer: T | Promise<T>): Promise<T> {
    const over = new AbortController();
    const tooLate = clock.sleep(ANSWER_MS, over.signal).then(() => {
      throw new PolicyUnanswered(`resolvePolicy has not answered within ${ANSWER_MS / 1000} s`);
    });
    tooLate.catch(() => undefined);
    return Promise.race([answer, tooLate]).finally(() => over.abort());
  }
}
