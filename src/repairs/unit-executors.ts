import { type ExecutorHealth, listExecutorHealth } from '../executors/health.ts';
import type { Sql } from '../postgres/database.ts';

/** One that runs in a unit and has not ended, as far as it is known. */
export interface UnitExecutor {
  id: string;
  /** It gives signs of life, or its process is there. */
  lives: boolean;
}

/** Named in one sentence; more are counted. */
const MOST_NAMED = 10;

/**
 * Who runs in a unit of the host, whichever of its daemons holds them in sight.
 * @param unitOf asked on that host of the processes of those of whom nobody knows yet.
 */
export async function listExecutorsIn(
  sql: Sql,
  host: string,
  unit: string,
  unitOf: (pid: number) => string | undefined = () => undefined,
): Promise<UnitExecutor[]> {
  const here = (await listExecutorHealth(sql)).filter((executor) => executor.host === host && !hasEnded(executor));
  const placeOf = ({ unit: known, pid }: ExecutorHealth) => known ?? (pid === null ? undefined : unitOf(pid));
  return here.filter((executor) => placeOf(executor) === unit).map(seenOf);
}

const hasEnded = ({ verdict }: ExecutorHealth) => verdict === 'dead' || verdict === 'stopped';

function seenOf({ id, verdict }: ExecutorHealth): UnitExecutor {
  return { id, lives: verdict === 'alive' || verdict === 'late' || verdict === 'hung' };
}

/** Pure: who would end with the unit and was not shown so. Who has ended meanwhile is missed by nobody. */
export function findUnshownIn(unit: string, shown: readonly UnitExecutor[], now: readonly UnitExecutor[]): string | undefined {
  const lived = new Map(shown.map(({ id, lives }) => [id, lives]));
  const came = now.filter(({ id }) => !lived.has(id));
  const cameBack = now.filter(({ id, lives }) => lives && lived.get(id) === false);
  if (came.length > 0)
    return `${namesOf(came)} ${came.length === 1 ? 'runs in' : 'run in'} ${unit} by now, and ${came.length === 1 ? 'was' : 'were'} not shown`;
  return cameBack.length === 0
    ? undefined
    : `${namesOf(cameBack)} of ${unit}, silent when shown, ${cameBack.length === 1 ? 'lives' : 'live'}`;
}

export function namesOf(executors: readonly UnitExecutor[]): string {
  const names = executors.slice(0, MOST_NAMED).map(({ id }) => id);
  const more = executors.length - names.length;
  return more > 0 ? `${names.join(', ')} and ${more} more` : names.join(', ');
}
