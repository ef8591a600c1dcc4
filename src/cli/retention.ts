import { LEAST_REASON, readReason } from '../authorization/reason.ts';
import { ArchiveDamaged } from '../retention/archive-file.ts';
import { type ClassResult, runArchivePrune } from '../retention/prune.ts';
import { restoreFile } from '../retention/restore.ts';
import { type ClassStatus, type RetentionStatus, retentionStatus } from '../retention/status.ts';
import { tidyArchive } from '../retention/tidy.ts';
import { EXIT, refused, type Surroundings, withReadyContext } from './command.ts';
import { type Cell, formatSeconds, printJson, table } from './output.ts';
import { auditWish, whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

export function showStatus(surroundings: Surroundings, { json }: { json?: true }): Promise<void> {
  return withReadyContext(surroundings, async (context) => {
    const status = await retentionStatus(context.pruneDependencies());
    if (json) printJson(surroundings, status);
    else surroundings.out(describe(status));
  });
}

export async function prune(
  surroundings: Surroundings,
  { actor, reason, json }: { actor: string; reason: string; json?: true },
): Promise<number> {
  const said = readReason(reason);
  if (said === undefined) throw new UsageError(`--reason: ${LEAST_REASON} characters or more are needed`);
  return withReadyContext(surroundings, async (context) => {
    if (context.config.dryRun)
      throw new UsageError('RECLAIMD_DRY_RUN is set: nothing is pruned; `reclaimd retention status` shows what is due');
    const wish = { actor, action: 'retention_prune', resource: { kind: 'fleet' }, target: 'retention', reason: said } as const;
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial, json);
    const run = await runArchivePrune(context.pruneDependencies(), { actor, reason: said, signal: surroundings.signal });
    if (!('classes' in run)) {
      const { actor: other, node, startedAt } = 'underWay' in run ? run.underWay : run.done;
      return refused(surroundings, `a run by ${other} on ${node} has been under way since ${startedAt}: it does what is due`, json);
    }
    const entries = Object.entries(run.classes);
    if (json) printJson(surroundings, run.classes);
    else
      surroundings.out(
        table(
          ['CLASS', 'PRUNED', 'ARCHIVED', 'OUTCOME'],
          entries.map(([name, result]) => [name, String(result.pruned), String(result.archived), outcomeOf(result)]),
        ),
      );
    await tidyArchive(context.pruneDependencies());
    return entries.some(([, { left, error }]) => left || error !== undefined) ? EXIT.failed : EXIT.done;
  });
}

const outcomeOf = ({ left, error }: ClassResult) => error ?? (left ? 'more is due' : 'done');

/** Reads one file of the archive back into the table `restored`. */
export async function restore(surroundings: Surroundings, path: string, { actor, json }: { actor: string; json?: true }): Promise<number> {
  return withReadyContext(surroundings, async (context) => {
    const wish = { actor, action: 'retention_restore', resource: { kind: 'fleet' }, target: 'retention' } as const;
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial, json);
    const restored = await restoreFile(context.database, path, (tx, detail) => auditWish(tx, context, wish, detail)).catch(
      async (error: unknown) => {
        if (error instanceof ArchiveDamaged)
          await auditWish(context.database, context, wish, { file: path, error: error.message }, 'failed');
        throw error;
      },
    );
    if (json) printJson(surroundings, restored);
    else
      surroundings.out(
        `${restored.rows} ${restored.class} are in "${context.config.schema}".restored, where file = '${restored.file}', for ${formatSeconds(context.config.retainRestoredMs / 1000)}`,
      );
    return EXIT.done;
  });
}

function describe({ classes, files, lastRun, nextRunAt }: RetentionStatus): string {
  const cells = ({ name, keptSeconds, archivedFirst, rows, bytes, due, oldestSeconds, lastResult }: ClassStatus): Cell[] => [
    name,
    keptSeconds === null ? 'for ever' : formatSeconds(keptSeconds),
    archivedFirst ? 'yes' : 'no',
    String(rows),
    `${(bytes / 1024).toFixed(0)} kB`,
    oldestSeconds === null ? '-' : formatSeconds(oldestSeconds),
    due > 0 ? { text: String(due), colour: 'yellow' } : '0',
    lastResult === null ? '-' : `${lastResult.pruned} pruned${lastResult.left ? `, ${outcomeOf(lastResult)}` : ''}`,
  ];
  const last = lastRun
    ? `last run: ${lastRun.startedAt} by ${lastRun.actor}, ${lastRun.endedAt === null ? lastRun.state : `ended ${lastRun.endedAt}`}`
    : 'no run yet';
  return [
    table(['CLASS', 'KEPT', 'ARCHIVED', 'ROWS', 'SIZE', 'OLDEST', 'DUE', 'LAST RUN'], classes.map(cells)),
    ...(files.count > 0 ? [`files of the archive: ${files.count}, with ${files.rows} rows in ${(files.bytes / 1024).toFixed(0)} kB`] : []),
    last,
    `next run: ${nextRunAt ?? 'never'}`,
  ].join('\n');
}
