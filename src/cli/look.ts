import type { Context } from '../context.ts';
import { importSigns } from '../executors/health.ts';
import { hasRegistry } from '../pgboss/gate.ts';
import { DatabaseError } from '../postgres/errors.ts';
import type { Restraint } from '../recovery/eligibility.ts';
import { judgeFleet } from '../recovery/sweep.ts';
import { oneLine } from './output.ts';

/** insufficient_privilege and read_only_sql_transaction. */
const MAY_NOT_WRITE = ['42501', '25006'];

/** Everybody as a sweep would judge them now. */
export async function lookAtFleet(context: Context) {
  await takeOverSigns(context);
  return judgeFleet(context.sweepDependencies(null, true));
}

/**
 * What the daemons do all the time: while they are away, everybody would look silent. Whoever may only read looks at what
 * they saw last.
 */
export async function takeOverSigns({ database, registry, probePgBoss }: Context): Promise<void> {
  try {
    if (hasRegistry(await probePgBoss())) await importSigns(database, registry);
  } catch (error) {
    if (!(error instanceof DatabaseError && MAY_NOT_WRITE.includes(error.code ?? ''))) throw error;
  }
}

/** What may be done about it, where waiting is not the answer. */
const WHAT_TO_DO: Partial<Record<Restraint['reason'], string>> = {
  cut_off:
    'no daemon of the fleet beats: what cut it off from the database may have silenced its workers, too. Start the daemons; to take one that is known to be dead, `reclaimd preview executor_rescue ID`',
  witness_lost:
    'the daemon that saw its process was heard of until lately, and may find it again. To take one that is known to be dead, `reclaimd preview executor_rescue ID`',
  mass_failure: 'to take one that is known to be dead, `reclaimd preview executor_rescue ID`',
};

export function describeRestraints(restraints: readonly Restraint[]): string[] {
  return restraints.flatMap(({ reason, executors }) => {
    const advice = WHAT_TO_DO[reason];
    return [
      oneLine(`held back (${reason.replaceAll('_', ' ')}): ${executors.join(', ')}`),
      ...(advice === undefined ? [] : [`  ${advice}`]),
    ];
  });
}
