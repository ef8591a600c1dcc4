import { appendAudit } from '../audit/append.ts';
import type { Action, Resource } from '../authorization/action.ts';
import type { Authorize } from '../authorization/authorize.ts';
import { LEAST_REASON, readReason } from '../authorization/reason.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { isoTime } from '../postgres/iso-time.ts';
import type { IncidentClass } from './class.ts';
import { ATTENTION, type Attention, incidentTarget } from './listing.ts';
import { executorsOf, type Stated, unitOf } from './targets.ts';

export interface AttentionDependencies {
  database: Database;
  authorize: Authorize;
  /** The node on which it is asked. */
  node: string;
}

export interface AttentionRequest {
  incidentId: string;
  /** Who, as the audit names them: `user@host`. */
  actor: string;
  reason: string;
}

/** `before`: who had attended to it already; what is of the same kind is replaced. */
export type AttentionResult = { done: true; until: string | null; before: Attention } | { done: false; refusal: string };

const LONGEST_SNOOZE_SECONDS = 30 * 86_400;

/** Says that a person has taken it on. It stays open until its condition is gone; reopening asks for attention anew. */
export function acknowledge(dependencies: AttentionDependencies, request: AttentionRequest): Promise<AttentionResult> {
  return attend(dependencies, request, 'incident_acknowledge', async (tx) => {
    await tx.query(
      'UPDATE incident SET acknowledged_at = now(), acknowledged_by = $2, acknowledged_reason = $3 WHERE id = $1 AND resolved_at IS NULL',
      [request.incidentId, request.actor, readReason(request.reason)],
    );
    return null;
  });
}

/** Moves it out of the way until a time of the database's, also should it be resolved and come back before. */
export async function snooze(
  dependencies: AttentionDependencies,
  request: AttentionRequest & { seconds: number },
): Promise<AttentionResult> {
  const { seconds } = request;
  if (!(seconds > 0 && seconds <= LONGEST_SNOOZE_SECONDS))
    return { done: false, refusal: 'a snooze is longer than nothing, and 30 days at most' };
  return attend(dependencies, request, 'incident_snooze', async (tx) => {
    const [row] = await tx.query<{ until: string }>(
      `UPDATE incident SET snoozed_until = now() + make_interval(secs => $4), snoozed_by = $2, snoozed_reason = $3
       WHERE id = $1 AND resolved_at IS NULL
       RETURNING ${isoTime('snoozed_until')} AS until`,
      [request.incidentId, request.actor, readReason(request.reason), seconds],
    );
    return row?.until ?? null;
  });
}

async function attend(
  { database, authorize, node }: AttentionDependencies,
  { incidentId, actor, reason: given }: AttentionRequest,
  action: Action & `incident_${string}`,
  write: (tx: Sql) => Promise<string | null>,
): Promise<AttentionResult> {
  const reason = readReason(given);
  if (reason === undefined) return { done: false, refusal: `a reason of ${LEAST_REASON} characters or more is needed` };
  const target = incidentTarget(incidentId);
  const [incident] = await database.query<Subject>('SELECT class, node, evidence, queues, fingerprint FROM incident WHERE id = $1', [
    incidentId,
  ]);
  if (!incident) return { done: false, refusal: `there is no incident ${incidentId}: see \`reclaimd incidents\`` };
  const { fingerprint } = incident;
  for (const resource of resourcesOf(incident)) {
    const decision = await authorize(actor, action, resource);
    if (decision.allowed) continue;
    const detail = { fingerprint, denial: decision.sentence };
    await database.transaction((tx) => appendAudit(tx, { actor, action, target, outcome: 'denied', reason, node, detail }));
    return { done: false, refusal: decision.sentence };
  }
  return database.transaction(async (tx) => {
    const [before] = await tx.query<Attention>(`SELECT ${ATTENTION} FROM incident i WHERE i.id = $1 AND i.resolved_at IS NULL FOR UPDATE`, [
      incidentId,
    ]);
    if (!before) return { done: false, refusal: `incident ${incidentId} is resolved already: nothing is left to attend to` };
    const until = await write(tx);
    const detail = { fingerprint, ...(until === null ? {} : { until }) };
    await appendAudit(tx, { actor, action, target, outcome: 'done', reason, node, detail });
    return { done: true, until, before };
  });
}

interface Subject extends Stated {
  class: IncidentClass;
  fingerprint: string;
  queues: string[];
}

/** On what the right is wanted: on each thing that is in trouble. What is nobody's own is the fleet's. */
function resourcesOf(subject: Subject): Resource[] {
  const { node, evidence, queues } = subject;
  const [executor, ...others] = executorsOf(subject);
  if (executor && others.length === 0 && !evidence['jobId']) return [{ kind: 'executor', id: executor, queues }];
  const unit = evidence['unit'];
  if (unitOf(subject) && typeof unit === 'string') return [{ kind: 'unit', node: node ?? '', name: unit }];
  return queues.length > 0 ? queues.map((name): Resource => ({ kind: 'queue', name })) : [{ kind: 'fleet' }];
}
