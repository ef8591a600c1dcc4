import type { Sql } from '../postgres/database.ts';
import { EXECUTOR_KEPT_SECONDS } from './health.ts';
import { listSharedNames, type SharedName } from './queries.ts';

/** Names of workers that are not covered: what is recorded under such a name is nobody's in particular. */
export function findSharedNames(sql: Sql): Promise<SharedName[]> {
  return listSharedNames(sql, EXECUTOR_KEPT_SECONDS);
}

export function describeSharedName({ name, executors }: SharedName): string {
  const { length } = executors;
  if (name !== '') return `${length} executors share the application_name "${name}": their jobs are not given back when one of them dies`;
  return length === 1
    ? 'an executor has no application_name: its jobs are not given back when it dies'
    : `${length} executors have no application_name: their jobs are not given back when they die`;
}
