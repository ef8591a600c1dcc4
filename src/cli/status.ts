import { CUT_OFF_AFTER_SECONDS } from '../fleet/beat.ts';
import { type FleetState, listNodes } from '../fleet/queries.ts';
import { countOpen } from '../incidents/listing.ts';
import { type OwnershipState, ownershipState } from '../ownership/install.ts';
import { restraintOnSilence, type TimeoutBrakes } from '../recovery/eligibility.ts';
import { type Surroundings, withReadyContext } from './command.ts';
import { describeRestraints, lookAtFleet } from './look.ts';
import { formatSeconds, printJson, table } from './output.ts';

/** That are not covered. */
const NAMED_TABLES = 5;

/** The fleet at a glance: pg-boss, ownership, nodes, executors, brakes, incidents. */
export async function status(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  await withReadyContext(surroundings, async (context) => {
    const { database, config, pgbossSchema, probePgBoss } = context;
    const pgboss = await probePgBoss();
    const ownership =
      pgboss.mode === 'wait'
        ? { installed: false, broken: undefined, tables: [], missing: [] }
        : await ownershipState(database, { schema: config.schema, pgbossSchema });
    const { executors: judged, fleet, restraints } = await lookAtFleet(context);
    const nodes = await listNodes(database);
    const byVerdict = Map.groupBy(judged, ({ verdict }) => verdict);
    const executors = Object.fromEntries([...byVerdict].map(([verdict, { length }]) => [verdict, length]));
    const incidents = Object.fromEntries((await countOpen(database)).map((row) => [row.class, row.count]));
    const { comebackSeconds, comebackReason, braked } = fleet;
    if (options.json) {
      const lastBeatSeconds = nodes.length === 0 ? null : Math.min(...nodes.map(({ beatSeconds }) => beatSeconds));
      const shown = { comebackSeconds, comebackReason, braked, lastBeatSeconds };
      return printJson(surroundings, { pgboss, ownership, fleet: shown, nodes, executors, restraints, incidents });
    }
    surroundings.out(`pg-boss    ${pgboss.detail}`);
    surroundings.out(`ownership  ${describeOwnership(ownership)}`);
    surroundings.out(`silence    ${describeSilence(fleet, context.sweepDependencies(null, true).brakes)}`);
    surroundings.out(`executors  ${counts(executors)}`);
    for (const line of describeRestraints(restraints)) surroundings.out(`           ${line}`);
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

function describeSilence(fleet: FleetState, brakes: TimeoutBrakes): string {
  switch (restraintOnSilence(fleet, brakes)) {
    case 'cut_off':
      return 'counts for nothing: no daemon of the fleet beats';
    case 'startup_delay':
      return `counts for nothing yet: the daemons began ${formatSeconds(fleet.daemonAgeSeconds)} ago`;
    case 'outage_grace':
      return `counts for nothing yet: ${fleet.comebackReason}, ${formatSeconds(fleet.comebackSeconds ?? 0)} ago`;
    case undefined:
      return 'counts';
  }
}

function describeOwnership({ installed, broken, tables, missing }: OwnershipState): string {
  if (!installed) return 'not installed: run `reclaimd install-ownership`';
  if (broken !== undefined) return broken;
  const recorded = `recorded on ${tables.length - missing.length} of ${tables.length} job tables`;
  if (missing.length === 0) return recorded;
  const more = missing.length - NAMED_TABLES;
  return `${recorded}, not on ${missing.slice(0, NAMED_TABLES).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function counts(record: Record<string, number>): string {
  const entries = Object.entries(record);
  return entries.length === 0 ? 'none' : entries.map(([name, count]) => `${count} ${name.replaceAll('_', ' ')}`).join(', ');
}
