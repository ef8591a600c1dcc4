import type { ClassStatus, RetentionStatus } from '../retention/prune.ts';
import { retentionStatus, runArchivePrune } from '../retention/prune.ts';
import { EXIT, refused, type Surroundings, withReadyContext } from './command.ts';
import { formatSeconds, paint, printJson, table } from './output.ts';
import { whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

const LEAST_REASON = 8;

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
  if (reason.trim().length < LEAST_REASON) throw new UsageError(`--reason: ${LEAST_REASON} characters or more are needed`);
  return withReadyContext(surroundings, async (context) => {
    if (context.config.dryRun)
      throw new UsageError('RECLAIMD_DRY_RUN is set: nothing is pruned; `reclaimd retention status` shows what is due');
    const wish = { actor, action: 'retention_prune', resource: { kind: 'fleet' }, target: 'retention', reason } as const;
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial);
    const result = await runArchivePrune(context.pruneDependencies(), { actor, reason: reason.trim() });
    const entries = Object.entries(result);
    if (json) printJson(surroundings, result);
    else
      surroundings.out(
        table(
          ['CLASS', 'PRUNED', 'ARCHIVED', 'OUTCOME'],
          entries.map(([name, { pruned, archived, left, error }]) => [
            name,
            String(pruned),
            String(archived),
            error ?? (left ? 'more is due' : 'done'),
          ]),
        ),
      );
    return entries.some(([, { left, error }]) => left || error !== undefined) ? EXIT.failed : EXIT.done;
  });
}

function describe({ classes, lastRun }: RetentionStatus): string {
  const cells = ({ name, keptSeconds, archivedFirst, rows, bytes, due, oldestSeconds }: ClassStatus) => [
    name,
    keptSeconds === null ? 'for ever' : formatSeconds(keptSeconds),
    archivedFirst ? 'yes' : 'no',
    String(rows),
    `${(bytes / 1024).toFixed(0)} kB`,
    oldestSeconds === null ? '-' : formatSeconds(oldestSeconds),
    due > 0 ? paint(String(due), 'yellow') : '0',
  ];
  const last = lastRun
    ? `last run: ${lastRun.startedAt} by ${lastRun.actor}, ${lastRun.endedAt === null ? 'which broke off' : `ended ${lastRun.endedAt}`}`
    : 'no run yet';
  return `${table(['CLASS', 'KEPT', 'ARCHIVED', 'ROWS', 'SIZE', 'OLDEST', 'DUE'], classes.map(cells))}\n${last}`;
}
