export const POLICIES = ['restart', 'fail', 'discard', 'hold'] as const;
export type Policy = (typeof POLICIES)[number];
export type PoisonPolicy = 'discard' | 'hold';

export interface ResolvedPolicy {
  policy: Policy;
  source: 'function' | 'configured' | 'table' | 'default' | 'operator';
  maxRecoveries: number;
  poison: PoisonPolicy;
}

/** Past the limit a job that keeps killing its workers is poison: it goes no further, by its poison policy. */
export function applyPoisonLimit(resolved: ResolvedPolicy, recoveriesSoFar: number): { policy: Policy; poison: boolean } {
  const givesBack = resolved.policy === 'restart' || resolved.policy === 'fail';
  if (givesBack && recoveriesSoFar >= resolved.maxRecoveries) return { policy: resolved.poison, poison: true };
  return { policy: resolved.policy, poison: false };
}
