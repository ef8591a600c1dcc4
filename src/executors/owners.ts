import type { ExecutorHealth } from './health.ts';

/** Dead, stopped, or silent past its limit: what it ran nobody runs any more, as far as it goes. */
export function isGone({ verdict }: Pick<ExecutorHealth, 'verdict'>): boolean {
  return verdict === 'dead' || verdict === 'stopped' || verdict === 'missing';
}

/** pg-boss names the sessions of a pool of its making after the instance: nobody else carries that name. */
export function hasOwnName({ id, applicationName }: Pick<ExecutorHealth, 'id' | 'applicationName'>): boolean {
  return applicationName === `pgboss:${id.slice(0, 8)}`;
}

/**
 * The executors that carried the name when an attempt began that was recorded under it. Both times are the database's
 * text in one session's time zone, so they compare as text.
 */
export function carriersOf(executors: readonly ExecutorHealth[], applicationName: string, startedOn: string): ExecutorHealth[] {
  const named = executors.filter((executor) => executor.applicationName === applicationName);
  return named.filter((executor) => hadBegun(executor, startedOn) && !hadEnded(executor, startedOn));
}

/** Nobody else had its own name before; the database's clock may have been set back since it began. */
const hadBegun = (executor: ExecutorHealth, startedOn: string) =>
  executor.kind === 'own' || hasOwnName(executor) || executor.startedAt <= startedOn;

/** A process that is proven gone, with its sessions, began nothing after its end: the database's clock has been set back. */
const hadEnded = (executor: ExecutorHealth, startedOn: string) =>
  executor.endedAt !== null && executor.endedAt < startedOn && !(hasOwnName(executor) && executor.proof !== null && !executor.nameInUse);

/**
 * Who may run an attempt that was recorded under that name. A name that an application gave may be carried by processes
 * that never registered: once its carriers are gone it says whose the attempt was only where there was one of them, and
 * where no session carries the name any more. Else nobody is known to be the owner.
 */
export function ownersOf(executors: readonly ExecutorHealth[], applicationName: string, startedOn: string): ExecutorHealth[] {
  const carriers = carriersOf(executors, applicationName, startedOn);
  if (!carriers.every(isGone) || carriers.every(hasOwnName)) return carriers;
  return carriers.length > 1 || carriers.some(({ nameInUse }) => nameInUse) ? [] : carriers;
}

/** Somebody is known by the name, but for others who carry it too nobody can tell whose that attempt is. */
export const isNameShared = (...recorded: Parameters<typeof ownersOf>): boolean =>
  carriersOf(...recorded).length > 0 && ownersOf(...recorded).length === 0;
