import { type Finding, project } from '../src/incidents/incident.ts';
import { listIncidents, readIncident } from '../src/incidents/listing.ts';
import { type Bench, median, quantile, timed, withServer } from './support.ts';

const ROUNDS = 20;

/** Incidents by the thousand, as a bad month leaves them: the list, one whole, and projections beside what is open. */
export async function benchIncidents(quick: boolean): Promise<void> {
  const [open, resolved, jobs] = quick ? [1_000, 10_000, 50_000] : [10_000, 100_000, 1_000_000];
  console.log(`incidents: ${open} open, ${resolved} resolved, ${jobs} jobs`);
  await withServer(quick, async (bench) => {
    const { database } = bench;
    await bench.boss.createQueue('work');
    await database.query(`INSERT INTO job (name, data) SELECT 'work', '{}' FROM generate_series(1, $1)`, [jobs]);
    await fill(bench, open, resolved);
    const list = await repeat(() => listIncidents(database));
    report('list of 100 open', list, list);
    report('list of all that is open', await repeat(() => listIncidents(database, { limit: open })), list);
    report('list with the resolved', await repeat(() => listIncidents(database, { state: 'all', limit: open + 100 })), list);
    report('list of a rare queue', await repeat(() => listIncidents(database, { queue: 'queue-7', state: 'all' })), list);
    const [first] = (await listIncidents(database, { limit: 1 })).incidents;
    report('one whole', await repeat(() => readIncident(database, first?.id ?? '')), list);

    const findings = Array.from({ length: 1_000 }, (_, index) => hung(`new-${index}`));
    const opening: number[] = [];
    const idle: number[] = [];
    const resolving: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      opening.push(await timed(() => project(database, 'bench', SCOPE, findings)));
      idle.push(await timed(() => project(database, 'bench', SCOPE, findings)));
      resolving.push(await timed(() => project(database, 'bench', SCOPE, [])));
    }
    report('1,000 new conditions projected', opening, opening);
    report('the same again, nothing new', idle, opening);
    report('1,000 conditions gone', resolving, opening);
  });
}

const SCOPE = { class: 'hung_executor', prefix: 'hung_executor:new-' } as const;

const hung = (name: string): Finding => ({
  class: 'hung_executor',
  fingerprint: `hung_executor:${name}`,
  summary: `${name} on web-1: silent past 90 s, but its process is there`,
  evidence: { executor: name, host: 'web-1', pid: 4711, queues: ['work', 'mail'] },
  node: 'web-1',
});

async function fill({ database }: Bench, open: number, resolved: number): Promise<void> {
  await database.query(
    `WITH made AS (
       INSERT INTO incident (class, fingerprint, summary, evidence, node, queues, opened_at, last_seen_at, resolved_at)
       SELECT (array['hung_executor', 'held_orphan', 'poison_job', 'dead_executor'])[1 + n % 4], 'made:' || n, 'incident ' || n,
         jsonb_build_object('queue', 'queue-' || n % 50, 'jobId', gen_random_uuid(), 'reason', repeat('x', 100)), 'node-' || n % 20,
         array['queue-' || n % 50], t.at, t.at, CASE WHEN n > $1::int THEN t.at + interval '1 minute' END
       FROM generate_series(1, $1::int + $2::int) AS n, LATERAL (SELECT now() - n * interval '20 seconds' AS at) AS t
       RETURNING *
     ), opened AS (
       INSERT INTO incident_opening (incident_id, opening, opened_at, resolved_at) SELECT id, 1, opened_at, resolved_at FROM made
     )
     INSERT INTO incident_occurrence (incident_id, number, opening, node, summary, affected, evidence)
     SELECT id, 1, 1, node, summary, affected, evidence FROM made`,
    [open, resolved],
  );
  await database.query('ANALYZE incident, incident_opening, incident_occurrence');
}

async function repeat(work: () => Promise<unknown>): Promise<number[]> {
  await work();
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) times.push(await timed(work));
  return times;
}

function report(what: string, times: readonly number[], base: readonly number[]): void {
  const ratio = (median(times) / median(base)).toFixed(2);
  console.log(`  ${what}: median ${median(times).toFixed(1)} ms, p95 ${quantile(times, 0.95).toFixed(1)} ms (${ratio})`);
}
