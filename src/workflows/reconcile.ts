import type { FlowStore } from '../actions/flow-store.ts';
import { appendAudit } from '../audit/append.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project, readLookTime } from '../incidents/incident.ts';
import { lockClass } from '../incidents/queries.ts';
import type { Database, Sql } from '../postgres/database.ts';
import {
  type EndedStepRow,
  type ExhaustedStepRow,
  listExhausted,
  lockUnmoved,
  markExhausted,
  markMissing,
  markReplayed,
  notify,
  type Place,
  readRunningSteps,
  type Scope,
} from './queries.ts';
import { listOthersOpen } from './stuck-queries.ts';
import { REPLAY_EVENT, type ReplayedEvent, replayChannel } from './tracking.ts';

export interface ReconcileDependencies {
  database: Database;
  flows: Pick<FlowStore, 'publish' | 'listSubscribers'>;
  /** Ours: listeners hear its channel. */
  schema: string;
  node: string;
  /** Who asked for it: a person, or `reclaimd@NODE`. */
  actor: string;
  /** What an engine has to move a step on before its event is told again. */
  replayAfterSeconds: number;
  replayMax: number;
}

export interface ReconcileOptions {
  dryRun?: boolean;
  /** Where an earlier pass broke off. */
  from?: Place | undefined;
  /** A pass breaks off after so many pages of steps; default: it goes through all of them. */
  pages?: number;
}

export interface ReconcileResult {
  replayed: number;
  /** Steps whose job is under way, is not there yet, or was told of lately or often enough; or somebody else has them. */
  skipped: number;
}

export interface ReconcileReport extends ReconcileResult {
  events: ReplayedEvent[];
  /** Replays that a subscriber's queue did not take, by its policy or because it refused; they were notified all the same. */
  unpublished: number;
  /** Replays that are too long for NOTIFY; subscribers got them all the same. */
  unnotified: number;
  /** Of batches that could not be told; the others were. */
  failures: unknown[];
  /** Where the next pass should begin; undefined when this one came to the end. */
  next: Place | undefined;
}

/** Read at once: to plan a look at many job tables takes longer than the look. */
const PAGE = 2_000;
/** Told in one transaction. */
const BATCH = 500;
const BEGINNING: Place = { instanceId: '', step: '' };
/** A job that is gone for longer is lost: whoever sends after having tracked has sent by then. */
const LOST_AFTER_SECONDS = 60;
const LONGEST_PAUSE_SECONDS = 600;
const SHORTEST_PAUSE_SECONDS = 1;
/** The rest is among them in a later turn. */
const MOST_EXHAUSTED = 1_000;

const PREFIX = 'workflow_stuck:step:';

/**
 * One pass over the running steps of a scope: those whose job has ended have missed its event, and get it again, through
 * NOTIFY and pg-boss's publish. What is told, that it was told, and the audit of it are one transaction a batch, so that of
 * any number of nodes one tells, and a crash tells once more at most. Only what is told is locked.
 * @param scope env strictly equal; stack the scope's, or none.
 */
export async function reconcileWorkflows(
  dependencies: ReconcileDependencies,
  scope: Scope,
  { dryRun = false, from = BEGINNING, pages = Number.POSITIVE_INFINITY }: ReconcileOptions = {},
): Promise<ReconcileReport> {
  const { database, replayAfterSeconds } = dependencies;
  const report: ReconcileReport = { replayed: 0, skipped: 0, events: [], unpublished: 0, unnotified: 0, failures: [], next: from };
  for (let page = 0; page < pages && report.next; page++) {
    const { running, ended, next } = await readRunningSteps(database, scope, report.next, replayAfterSeconds, PAGE);
    report.skipped += running;
    for (let first = 0; first < ended.length; first += BATCH) {
      const told = await settle(dependencies, ended.slice(first, first + BATCH), dryRun).catch((error: unknown) => {
        report.failures.push(error);
        return NOTHING;
      });
      report.replayed += told.events.length;
      report.skipped -= told.events.length;
      report.events.push(...told.events);
      report.unpublished += told.unpublished;
      report.unnotified += told.unnotified;
    }
    report.next = next ?? undefined;
  }
  return report;
}

/** Pure: how a step's job ended, as far as it can be told by now. Of one that is gone, what was known of it while it was there. */
export function outcomeOf(
  step: Pick<EndedStepRow, 'outcome' | 'told' | 'missing' | 'missingSeconds'>,
): ReplayedEvent['outcome'] | undefined {
  if (step.outcome !== null) return step.outcome;
  return step.missing && (step.missingSeconds ?? 0) >= LOST_AFTER_SECONDS ? (step.told ?? 'lost') : undefined;
}

type Told = Pick<ReconcileReport, 'events' | 'unpublished' | 'unnotified'>;
const NOTHING: Told = { events: [], unpublished: 0, unnotified: 0 };

async function settle(dependencies: ReconcileDependencies, ended: readonly EndedStepRow[], dryRun: boolean): Promise<Told> {
  const mayBeTold = ({ replay }: ReplayedEvent) => replay <= dependencies.replayMax;
  if (dryRun) return { ...NOTHING, events: eventsOf(ended).filter(mayBeTold) };
  return dependencies.database.transaction(async (tx) => {
    const locked = new Set((await lockUnmoved(tx, ended)).map(nameOf));
    const steps = ended.filter((step) => locked.has(nameOf(step)));
    const newlyMissing = steps.filter((step) => step.missing && step.missingSeconds === null);
    const found = steps.filter((step) => !step.missing && step.missingSeconds !== null);
    const { events = [], exhausted = [] } = Object.groupBy(eventsOf(steps), (event) => (mayBeTold(event) ? 'events' : 'exhausted'));
    if (newlyMissing.length > 0) await markMissing(tx, newlyMissing, true);
    if (found.length > 0) await markMissing(tx, found, false);
    if (exhausted.length > 0) await markExhausted(tx, exhausted);
    return events.length > 0 ? tell(dependencies, tx, events) : NOTHING;
  });
}

async function tell(
  { flows, schema, node, actor, replayAfterSeconds }: ReconcileDependencies,
  tx: Sql,
  events: ReplayedEvent[],
): Promise<Told> {
  await markReplayed(tx, events, Math.max(SHORTEST_PAUSE_SECONDS, replayAfterSeconds), LONGEST_PAUSE_SECONDS);
  const notified = await notify(
    tx,
    replayChannel(schema),
    events.map((event) => JSON.stringify(event)),
  );
  let unpublished = 0;
  for (const queue of await flows.listSubscribers(tx, REPLAY_EVENT))
    unpublished += events.length - (await tryPublish(tx, flows, queue, events));
  const steps = events.map(({ instanceId, step, queue, jobId, outcome, replay }) => ({
    step: `${instanceId}/${step}`,
    job: `${queue}/${jobId}`,
    outcome,
    replay,
  }));
  await appendAudit(tx, { actor, action: 'workflow_replay', target: 'steps', outcome: 'done', reason: null, node, detail: { steps } });
  return { events, unpublished, unnotified: events.length - notified };
}

const nameOf = ({ instanceId, step }: Place) => JSON.stringify([instanceId, step]);

/** What the engines of those steps have to be told now. */
function eventsOf(steps: readonly EndedStepRow[]): ReplayedEvent[] {
  return steps.flatMap((row) => {
    const { instanceId, workflow, step, queue, jobId, due, replays, anew } = row;
    const outcome = outcomeOf(row);
    return due && outcome !== undefined ? [{ instanceId, workflow, step, queue, jobId, outcome, replay: anew ? 1 : replays + 1 }] : [];
  });
}

/** A subscriber whose queue refuses does not keep the others from hearing. @returns how many it took. */
async function tryPublish(
  tx: Sql,
  flows: ReconcileDependencies['flows'],
  queue: string,
  events: readonly ReplayedEvent[],
): Promise<number> {
  await tx.query('SAVEPOINT publish');
  try {
    const taken = await flows.publish(tx, queue, events);
    await tx.query('RELEASE SAVEPOINT publish');
    return taken;
  } catch {
    await tx.query('ROLLBACK TO SAVEPOINT publish');
    return 0;
  }
}

/**
 * Steps that the engine did not move on, however often their event was told. Of every scope: any node may say so, and
 * resolves only what was open before it looked.
 */
export async function projectExhaustedSteps(database: Database, node: string): Promise<IncidentChanges> {
  const lookedAt = await readLookTime(database);
  const open = (await listOpenEvidence(database, 'workflow_stuck')).filter(({ fingerprint }) => fingerprint.startsWith(PREFIX));
  const steps = await listExhausted(database, MOST_EXHAUSTED);
  const findings = steps.map(describe);
  const judged = findings.length < MOST_EXHAUSTED ? open.map(({ fingerprint }) => fingerprint) : [];
  if (findings.length + judged.length === 0) return { opened: [], resolved: [] };
  return database.transaction(async (tx) => {
    // Nobody opens another before this is over.
    await lockClass(tx, 'workflow_stuck');
    const unknown = await listOthersOpen(tx, PREFIX, judged);
    return project(tx, node, { class: 'workflow_stuck', prefix: PREFIX, unknown, lookedAt }, findings);
  });
}

function describe({ instanceId, workflow, step, job, replays, since, stack, env }: ExhaustedStepRow): Finding {
  const name = `${instanceId}/${step}`;
  return {
    class: 'workflow_stuck',
    fingerprint: `${PREFIX}${name}`,
    summary: `step ${name} was told of its job's end ${replays} times, and its engine did not move it on`,
    evidence: { instance: instanceId, workflow, step, job, replays, since },
    stack,
    env,
  };
}
