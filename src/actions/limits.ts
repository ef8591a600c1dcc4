export const POLICIES = ['restart', 'fail', 'discard', 'hold'] as const;
export type Policy = (typeof POLICIES)[number];
export type PoisonPolicy = 'discard' | 'hold';

export interface ResolvedPolicy {
  policy: Policy;
  source: 'function' | 'configured' | 'table' | 'default' | 'operator';
  maxRecoveries: number;
  poison: PoisonPolicy;
}

/**
 * Past the limit a job that keeps killing its workers is poison: it goes no further, by its poison policy. A person who names a policy
 * was told so: theirs stands.
 */
export function applyPoisonLimit(resolved: ResolvedPolicy, recoveriesSoFar: number): { policy: Policy; poison: boolean } {
  const isPastLimit = recoveriesSoFar >= resolved.maxRecoveries;
  if (resolved.source === 'operator') return { policy: resolved.policy, poison: isPastLimit };
  const givesBack = resolved.policy === 'restart' || resolved.policy === 'fail';
  if (givesBack && isPastLimit) return { policy: resolved.poison, poison: true };
  return { policy: resolved.policy, poison: false };
}

/** What a host's policy function has said already: it is not asked the same again. */
export interface PolicyAnswers {
  /** By what it was asked; undefined where it left it to the lists, or failed, which was told. */
  said: Map<string, Promise<Policy | undefined>>;
  /** Jobs are locked by now: what it has not been asked by then it is not asked any more, and the lists decide. */
  isClosed: boolean;
}
