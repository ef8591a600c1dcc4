import type { ExecutorHealth } from './health.ts';

/**
 * Who may run an attempt that was recorded under that name: whichever executors of the name lived when it began. Both
 * times are the database's text in one session's time zone, so they compare as text.
 */
export function ownersOf(executors: readonly ExecutorHealth[], applicationName: string, startedOn: string): ExecutorHealth[] {
  return executors.filter(
    (executor) => executor.applicationName === applicationName && (executor.kind === 'own' || executor.startedAt <= startedOn),
  );
}
