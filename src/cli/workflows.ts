import { findStuckFlows } from '../workflows/find-stuck.ts';
import { lookAtSteps, type StepsLook } from '../workflows/late-steps.ts';
import { countUnresolved } from '../workflows/stuck-flows.ts';
import { type Surroundings, withReadyContext } from './command.ts';
import { printJson, table } from './output.ts';

/** Flows that wait in vain, a line for each parent that keeps them, and steps whose engine does not move them on; changes nothing. */
export async function workflows(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  await withReadyContext(surroundings, async ({ database, flows: store }) => {
    const { flows, complete } = await findStuckFlows(database, store);
    const unresolved = await countUnresolved(database, store);
    const stuck = flows.map(({ parent, parents, reason, deadLetter, since, children, chain }) => ({
      parent,
      parents: parents.map(({ queue, jobId }) => `${queue}/${jobId}`),
      reason,
      deadLetter,
      since,
      children: children.map(({ queue, jobId }) => `${queue}/${jobId}`),
      jobs: chain.map(({ queue, jobId, state, waitsForQueue, waitsForId, deletedAt }) => ({
        job: `${queue}/${jobId}`,
        state,
        waitsFor: waitsForQueue === null ? null : `${waitsForQueue}/${waitsForId}`,
        deletedAt,
      })),
    }));
    const steps = await lookAtSteps(database);
    if (options.json) return printJson(surroundings, { stuck, unresolved, complete, steps });
    if (stuck.length === 0) surroundings.out('no flow is stuck');
    else
      surroundings.out(
        table(
          ['PARENT', 'WHY', 'SINCE', 'WAITING', 'FIRST DELETED', 'NEXT'],
          stuck.map(({ parent, parents, reason, since, jobs, children }) => [
            parent ?? (parents.length > 0 ? `${parents[0]} and ${parents.length - 1} more` : 'unknown'),
            reason.replaceAll('_', ' '),
            since,
            String(jobs.length),
            jobs.map(({ deletedAt }) => deletedAt).sort()[0] ?? '',
            children[0] ?? '',
          ]),
        ),
      );
    if (unresolved > 0) surroundings.out(`${unresolved} completed parents are not resolved yet: the daemon does so`);
    if (!complete) surroundings.out('there are more than one look takes in');
    describeSteps(surroundings, steps);
  });
}

function describeSteps({ out }: Surroundings, { running, late, complete }: StepsLook): void {
  if (running > 0) out(`steps of engines: ${running} under way, ${late.length}${complete ? '' : ' and more'} late`);
  if (late.length === 0) return;
  const rows = late.map(({ instanceId, step, job, outcome, replays, replayedAt, againAt }) => [
    `${instanceId}/${step}`,
    job,
    outcome ?? '',
    String(replays),
    replayedAt,
    againAt ?? 'no more',
  ]);
  out(table(['STEP', 'JOB', 'OUTCOME', 'TOLD', 'LAST', 'AGAIN'], rows));
}
