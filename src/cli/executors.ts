import { type Surroundings, withReadyContext } from './command.ts';
import { describeRestraints, lookAtFleet } from './look.ts';
import { formatSeconds, printJson, table } from './output.ts';

const COLOUR = { alive: 'green', late: 'yellow', missing: 'red', dead: 'red', hung: 'red', stopped: 'dim', unknown: 'dim' } as const;

export async function executors(surroundings: Surroundings, options: { json?: true; all?: true }): Promise<void> {
  await withReadyContext(surroundings, async (context) => {
    const { executors: all, restraints } = await lookAtFleet(context);
    const shown = options.all ? all : all.filter((executor) => executor.verdict !== 'stopped');
    if (options.json) return printJson(surroundings, shown);
    const rows = shown.map((executor) => [
      executor.id,
      { text: executor.verdict, colour: COLOUR[executor.verdict] },
      executor.reason,
      executor.host ?? '',
      String(executor.pid ?? ''),
      `${formatSeconds(executor.silentSeconds)} ago`,
      executor.lastSignAt,
      executor.witnessNode ?? '',
      executor.queues.join(' '),
    ]);
    surroundings.out(
      rows.length === 0
        ? noneShown(all.length)
        : table(['EXECUTOR', 'VERDICT', 'REASON', 'HOST', 'PID', 'LAST SIGN', 'AT', 'SEEN BY', 'QUEUES'], rows),
    );
    for (const line of describeRestraints(restraints)) surroundings.out(line);
  });
}

function noneShown(stopped: number): string {
  return stopped === 0 ? 'no executors known' : `no executors but ${stopped} stopped: --all shows them`;
}
