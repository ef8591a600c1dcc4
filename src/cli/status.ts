import { EXECUTOR_KEPT_SECONDS } from '../executors/health.ts';
import { countVerdicts } from '../executors/queries.ts';
import { CUT_OFF_AFTER_SECONDS } from '../fleet/beat.ts';
import { listNodes, readFleetState } from '../fleet/queries.ts';
import { countOpen } from '../incidents/listing.ts';
import { type OwnershipState, ownershipState } from '../ownership/install.ts';
import { type Surroundings, withReadyContext } from './command.ts';
import { formatSeconds, printJson, table } from './output.ts';

/** The fleet at a glance: pg-boss, ownership, nodes, executors, brakes, incidents. */
export async function status(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  await withReadyContext(surroundings, async ({ database, config, pgbossSchema, probePgBoss }) => {
    const pgboss = await probePgBoss();
    const ownership =
      pgboss.mode === 'wait'
        ? { installed: false, broken: undefined, tables: [], missing: [] }
        : await ownershipState(database, { schema: config.schema, pgbossSchema });
    const fleet = await readFleetState(database, null, null, CUT_OFF_AFTER_SECONDS);
    const nodes = await listNodes(database);
    const executors = Object.fromEntries((await countVerdicts(database, EXECUTOR_KEPT_SECONDS)).map((row) => [row.verdict, row.count]));
    const incidents = Object.fromEntries((await countOpen(database)).map((row) => [row.class, row.count]));
    const { comebackSeconds, comebackReason, braked } = fleet;
    if (options.json) {
      const lastBeatSeconds = nodes.length === 0 ? null : Math.min(...nodes.map(({ beatSeconds }) => beatSeconds));
      const shown = { comebackSeconds, comebackReason, braked, lastBeatSeconds };
      return printJson(surroundings, { pgboss, ownership, fleet: shown, nodes, executors, incidents });
    }
    const inGrace = comebackSeconds !== null && comebackSeconds * 1000 < config.outageGraceMs;
    surroundings.out(`pg-boss    ${pgboss.detail}`);
    surroundings.out(`ownership  ${describeOwnership(ownership)}`);
    surroundings.out(
      `silence    ${inGrace ? `counts for nothing yet: ${comebackReason}, ${formatSeconds(comebackSeconds)} ago` : 'counts'}`,
    );
    surroundings.out(`executors  ${counts(executors)}`);
    surroundings.out(`incidents  ${counts(incidents)}`);
    surroundings.out('');
    surroundings.out(
      nodes.length === 0
        ? 'no node has beaten yet'
        : table(
            ['NODE', 'HOST', 'STATE', 'LAST BEAT', 'VERSION', 'STACK', 'ENV'],
            nodes.map((node) => [
              node.node,
              node.host,
              node.stopped ? 'stopped' : node.beatSeconds > CUT_OFF_AFTER_SECONDS ? 'silent' : 'beats',
              `${formatSeconds(node.beatSeconds)} ago`,
              node.version,
              node.stack ?? '',
              node.env ?? '',
            ]),
          ),
    );
  });
}

function describeOwnership({ installed, broken, tables, missing }: OwnershipState): string {
  if (!installed) return 'not installed: run `reclaimd install-ownership`';
  return broken ?? `recorded on ${tables.length - missing.length} of ${tables.length} job tables`;
}

function counts(record: Record<string, number>): string {
  const entries = Object.entries(record);
  return entries.length === 0 ? 'none' : entries.map(([name, count]) => `${count} ${name.replaceAll('_', ' ')}`).join(', ');
}
