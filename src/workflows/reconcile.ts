import type { FlowStore } from '../actions/flow-store.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import type { Database, Sql } from '../postgres/database.ts';
import {
  listExhausted,
  lockRunningSteps,
  markExhausted,
  markMissing,
  markReplayed,
  notify,
  type RunningStepRow,
  type Scope,
} from './queries.ts';
import { REPLAY_EVENT, type ReplayedEvent, replayChannel } from './tracking.ts';

export interface ReconcileDependencies {
  database: Database;
  flows: Pick<FlowStore, 'publish' | 'listSubscribers'>;
  /** Ours: listeners hear its channel. */
  schema: string;
  node: string;
  /** What an engine has to move a step on before its event is told again. */
  replayAfterSeconds: number;
  replayMax: number;
}

export interface ReconcileResult {
  replayed: number;
  /** Steps whose job is under way, is not there yet, or was told of lately or often enough; or somebody else has them. */
  skipped: number;
}

export interface ReconcileReport extends ReconcileResult {
  events: ReplayedEvent[];
  /** Replays that no subscriber's queue could take; they were notified all the same. */
  unpublished: number;
}

const PAGE = 500;
/** A job that is gone for longer is lost: whoever sends after having tracked has sent by then. */
const LOST_AFTER_SECONDS = 60;
const LONGEST_PAUSE_SECONDS = 600;
const SHORTEST_PAUSE_SECONDS = 1;
/** The rest is among them in a later turn. */
const MOST_EXHAUSTED = 1_000;

const PREFIX = 'workflow_stuck:step:';

/**
 * One pass over the running steps of a scope: those whose job has ended have missed its event, and get it again, through
 * NOTIFY and pg-boss's publish. What is told and that it was told are one transaction a page, so that of any number of
 * nodes one tells, and a crash tells once more at most.
 * @param scope env strictly equal; stack the scope's, or none.
 */
export async function reconcileWorkflows(
  dependencies: ReconcileDependencies,
  scope: Scope,
  { dryRun = false }: { dryRun?: boolean } = {},
): Promise<ReconcileReport> {
  const report: ReconcileReport = { replayed: 0, skipped: 0, events: [], unpublished: 0 };
  let after = { instanceId: '', step: '' };
  for (;;) {
    const page = await dependencies.database.transaction(async (tx) => {
      const steps = await lockRunningSteps(tx, scope, after, dependencies.replayAfterSeconds, PAGE);
      return { steps, ...(await replayPage(dependencies, tx, steps, dryRun)) };
    });
    report.replayed += page.events.length;
    report.skipped += page.steps.length - page.events.length;
    report.events.push(...page.events);
    report.unpublished += page.unpublished;
    const last = page.steps.at(-1);
    if (!last || page.steps.length < PAGE) return report;
    after = last;
  }
}

/** Pure: how a step's job ended, as far as it can be told by now. */
export function outcomeOf(step: Pick<RunningStepRow, 'outcome' | 'missing' | 'missingSeconds'>): ReplayedEvent['outcome'] | undefined {
  if (step.outcome !== null) return step.outcome;
  return step.missing && (step.missingSeconds ?? 0) >= LOST_AFTER_SECONDS ? 'lost' : undefined;
}

async function replayPage(
  dependencies: ReconcileDependencies,
  tx: Sql,
  steps: readonly RunningStepRow[],
  dryRun: boolean,
): Promise<{ events: ReplayedEvent[]; unpublished: number }> {
  const { flows, schema, replayAfterSeconds, replayMax } = dependencies;
  const due = steps.filter((step) => step.due && !step.exhausted && outcomeOf(step) !== undefined);
  const replayed = due.filter(({ replays }) => replays < replayMax);
  const events = replayed.map(eventOf);
  if (dryRun) return { events, unpublished: 0 };
  const newlyMissing = steps.filter((step) => step.missing && step.missingSeconds === null);
  const found = steps.filter((step) => !step.missing && step.missingSeconds !== null);
  const exhausted = due.filter(({ replays }) => replays >= replayMax);
  if (newlyMissing.length > 0) await markMissing(tx, newlyMissing, true);
  if (found.length > 0) await markMissing(tx, found, false);
  if (exhausted.length > 0) await markExhausted(tx, exhausted);
  if (events.length === 0) return { events, unpublished: 0 };
  await markReplayed(tx, replayed, Math.max(SHORTEST_PAUSE_SECONDS, replayAfterSeconds), LONGEST_PAUSE_SECONDS);
  const payloads = events.map((event) => JSON.stringify(event));
  await notify(tx, replayChannel(schema), payloads);
  let unpublished = 0;
  for (const queue of await flows.listSubscribers(tx, REPLAY_EVENT))
    if (!(await tryPublish(tx, flows, queue, events))) unpublished += events.length;
  return { events, unpublished };
}

function eventOf(step: RunningStepRow): ReplayedEvent {
  const { instanceId, workflow, queue, jobId, replays } = step;
  const outcome = outcomeOf(step) as ReplayedEvent['outcome'];
  return { instanceId, workflow, step: step.step, queue: queue ?? '', jobId: jobId ?? '', outcome, replay: replays + 1 };
}

/** A subscriber whose queue refuses does not keep the others from hearing. */
async function tryPublish(
  tx: Sql,
  flows: ReconcileDependencies['flows'],
  queue: string,
  events: readonly ReplayedEvent[],
): Promise<boolean> {
  await tx.query('SAVEPOINT publish');
  try {
    await flows.publish(tx, queue, events);
    await tx.query('RELEASE SAVEPOINT publish');
    return true;
  } catch {
    await tx.query('ROLLBACK TO SAVEPOINT publish');
    return false;
  }
}

/** Steps that the engine did not move on, however often their event was told. Of every scope: any node may say so. */
export async function projectExhaustedSteps(database: Database, node: string): Promise<IncidentChanges> {
  const steps = await listExhausted(database, MOST_EXHAUSTED);
  const findings = steps.map(({ instanceId, workflow, step, job, replays, since, stack, env }): Finding => {
    const name = `${instanceId}/${step}`;
    return {
      class: 'workflow_stuck',
      fingerprint: `${PREFIX}${name}`,
      summary: `step ${name} was told of its job's end ${replays} times, and its engine did not move it on`,
      evidence: { instance: instanceId, workflow, step, job, replays, since },
      stack,
      env,
    };
  });
  const unknown =
    findings.length < MOST_EXHAUSTED ? [] : (await listOpenEvidence(database, 'workflow_stuck')).map((open) => open.fingerprint);
  return project(database, node, { class: 'workflow_stuck', prefix: PREFIX, unknown }, findings);
}
