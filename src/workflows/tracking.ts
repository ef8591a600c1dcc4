import { type Database, quoteIdentifier } from '../postgres/database.ts';

/** Whatever runs statements: a client or pool of the application's, best in the transaction that sends the step's job. */
export interface StatementRunner {
  query(text: string, values: unknown[]): Promise<unknown>;
}

export interface StepStart {
  instanceId: string;
  step: string;
  /** The job that does it; a step without one is never replayed. */
  queue?: string | undefined;
  jobId?: string | undefined;
  workflow?: string | undefined;
  stack?: string | undefined;
  env?: string | undefined;
}

/** How a step's job ended, told again. `lost`: the job is gone, and nobody knows how. */
export interface ReplayedEvent {
  instanceId: string;
  workflow: string;
  step: string;
  queue: string;
  jobId: string;
  outcome: 'completed' | 'failed' | 'cancelled' | 'lost';
  /** 1 for the first replay of this outcome. */
  replay: number;
}

/** pg-boss's event under which replays are published: `boss.subscribe(REPLAY_EVENT, queue)` gets them as jobs. */
export const REPLAY_EVENT = 'reclaimd.workflow_step';

const DEFAULT_SCHEMA = 'reclaimd';

/**
 * Says that a step is under way, and by which job; the same step again begins afresh. The database refuses names of more
 * than 500 bytes, and steps of an instance that has ended: `instanceMoved` to `running` comes first.
 */
export async function trackStep(sql: StatementRunner, start: StepStart, schema = DEFAULT_SCHEMA): Promise<void> {
  const { instanceId, step, queue, jobId, workflow, stack, env } = start;
  const values = [instanceId, step, queue, jobId, workflow, stack, env].map((value) => value ?? null);
  await sql.query(`SELECT ${quoteIdentifier(schema)}.track_step($1, $2, $3, $4, $5, $6, $7)`, values);
}

export interface StepEnd {
  instanceId: string;
  step: string;
  /** What the engine makes of it; default `completed`. */
  state?: 'completed' | 'failed' | 'cancelled';
  /** The job that the event is about: without it an event of an earlier job would move a step that has another by now. */
  jobId?: string | undefined;
}

/**
 * Says that the engine has taken note of a step's end; in the transaction that acts upon it. Takes an event as it comes.
 * @returns false when nothing is to be done: the event came before, or is about an earlier job of the step.
 * @throws for a step that was never tracked.
 */
export async function stepMoved(
  sql: StatementRunner,
  { instanceId, step, state = 'completed', jobId }: StepEnd,
  schema = DEFAULT_SCHEMA,
): Promise<boolean> {
  const values = [instanceId, step, state, jobId ?? null];
  const answer = await sql.query(`SELECT ${quoteIdentifier(schema)}.step_moved($1, $2, $3, $4) AS moved`, values);
  const rows = Array.isArray(answer) ? (answer as unknown[]) : (answer as { rows: unknown[] }).rows;
  return (rows[0] as { moved: boolean }).moved;
}

/** Says what has become of an instance as a whole; steps of one that has ended are not looked after any more. @throws for an unknown one. */
export async function instanceMoved(
  sql: StatementRunner,
  { instanceId, state }: { instanceId: string; state: 'running' | 'blocked' | 'completed' | 'failed' | 'cancelled' },
  schema = DEFAULT_SCHEMA,
): Promise<void> {
  await sql.query(`SELECT ${quoteIdentifier(schema)}.instance_moved($1, $2)`, [instanceId, state]);
}

/** Hears replays while the process runs; what is missed is told again, with growing pauses. */
export function onReplay(
  database: Pick<Database, 'listen'>,
  handler: (event: ReplayedEvent) => void,
  schema = DEFAULT_SCHEMA,
): { stop(): Promise<void> } {
  return database.listen(replayChannel(schema), { onMessage: (payload) => handler(JSON.parse(payload) as ReplayedEvent) });
}

/** The longest of the names that are made of the schema's: the configuration leaves room for it. */
export const replayChannel = (schema: string) => `${schema}_workflow_replay`;
