import { type AuditEvent, appendAudit } from '../audit/append.ts';
import { listAudit } from '../audit/queries.ts';
import { findCommandWith } from '../commands/queries.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { DatabaseUnreachable, LockNotAvailable } from '../postgres/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import { type RecordedDetail, type RepairExecuted, tellRecorded } from './outcome.ts';
import { type RepairRefused, refuse } from './preview.ts';
import { lockPreview, type PreviewRow } from './queries.ts';
import type { UnitPlan } from './unit-plan.ts';

export type RepairEvent = Omit<AuditEvent, 'outcome' | 'reason'> & { reason: string };

/** The id of the command that a unit's node was left. */
export interface SentToNode {
  sent: string;
  unit: UnitPlan;
}

export interface DoubtDependencies {
  database: Database;
  clock: Clock;
}

/** What one transaction makes of a token. */
export type Executed = RepairExecuted | RepairRefused | SentToNode;

const BUSY = 'somebody else holds the locks of these jobs, so nothing was done: try again, the token is still good';
/** Of an execution that used up its token and changed something, or tried to. */
const RECORDED = ['done', 'partial', 'failed'];
/** Of one actor, action and target: the record of what was done just now is among the last. */
const RECENT = 10;
const PATIENCE_MS = 10_000;
const PAUSE_MS = 250;

/** A transaction that met a fault has done nothing, unless its connection broke: then it may have been committed all the same. */
export async function settleFault(
  dependencies: DoubtDependencies,
  preview: PreviewRow,
  event: RepairEvent,
  error: unknown,
): Promise<Executed> {
  if (error instanceof DatabaseUnreachable) return settleDoubt(dependencies, preview, event, error);
  const busy = error instanceof LockNotAvailable;
  const message = busy ? BUSY : error instanceof Error ? error.message : String(error);
  await dependencies.database.transaction((tx) => appendFault(tx, event, message)).catch(() => undefined);
  if (busy) return refuse('busy', BUSY);
  throw error;
}

/** As long as the database does not answer; a failover is over by then, or nobody can tell. */
async function settleDoubt(
  { database, clock }: DoubtDependencies,
  preview: PreviewRow,
  event: RepairEvent,
  cause: DatabaseUnreachable,
): Promise<Executed> {
  const deadline = clock.now() + PATIENCE_MS;
  for (;;) {
    try {
      const settled = await database.transaction((tx) => readWhatWasDone(tx, preview, event, cause));
      if (settled === 'nothing') throw cause;
      return settled ?? unknown(preview, event, cause);
    } catch (error) {
      if (error === cause) throw cause;
      if (!(error instanceof DatabaseUnreachable) || clock.now() > deadline) return unknown(preview, event, cause);
      await clock.sleep(PAUSE_MS);
    }
  }
}

/** The preview tells: a transaction that uses it up holds its row to the end. Where it is still ready, nothing was done: that is recorded. */
async function readWhatWasDone(
  tx: Sql,
  preview: PreviewRow,
  event: RepairEvent,
  { message }: DatabaseUnreachable,
): Promise<Executed | 'nothing' | undefined> {
  const { token, plan } = preview;
  const status = await lockPreview(tx, token);
  if (status === 'ready') {
    await appendFault(tx, event, message);
    return 'nothing';
  }
  if (status === 'drifted' || status === 'expired') return refuse(status, `that preview has ${status}: make a new one`);
  return plan.unit ? findSent(tx, plan.unit, event) : findRecorded(tx, preview, event);
}

const appendFault = (tx: Sql, event: RepairEvent, error: string) =>
  appendAudit(tx, { ...event, outcome: 'failed', detail: { ...event.detail, error } });

async function findSent(tx: Sql, unit: UnitPlan, { detail }: RepairEvent): Promise<SentToNode | undefined> {
  const sent = await findCommandWith(tx, detail);
  return sent === undefined ? undefined : { sent, unit };
}

/** Its record was written in the transaction that used up the token. */
async function findRecorded(
  tx: Sql,
  { plan, number }: PreviewRow,
  { actor, action, target }: RepairEvent,
): Promise<RepairExecuted | undefined> {
  const events = await listAudit(tx, { actor, action, target, limit: RECENT });
  const recorded = events.findLast(({ outcome, detail }) => detail['preview'] === number && RECORDED.includes(outcome));
  return recorded && tellRecorded(plan, recorded.outcome, recorded.detail as RecordedDetail);
}

function unknown({ action }: PreviewRow, { target }: RepairEvent, { message }: DatabaseUnreachable): RepairExecuted {
  const error = `${message}; nobody can tell yet whether it was carried out: \`reclaimd audit list\` will say`;
  return { done: true, action, partial: true, targets: [{ target, outcome: 'unknown', error }] };
}
