import type { Database } from '../../src/postgres/database.ts';
import { waitFor } from './wait.ts';

/** Until the daemons have swept the fleet twice from now on: each new turn begins when the one before has ended. */
export async function twoSweepsPass(database: Database): Promise<void> {
  const due = async () =>
    (await database.query<{ due: string | null }>(`SELECT max(due_at)::text AS due FROM turn WHERE name LIKE 'sweep%'`))[0]?.due;
  for (let turn = 0; turn < 3; turn++) {
    const before = await due();
    await waitFor('another sweep', async () => (await due()) !== before);
  }
}
