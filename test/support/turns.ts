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

/** As if another node had a pass under way. */
export async function holdTurn(database: Database, name: string): Promise<void> {
  await database.query(
    `INSERT INTO turn (name, holder, due_at, lease_until) VALUES ($1, gen_random_uuid(), now(), now() + interval '1 hour')
     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, due_at = excluded.due_at, lease_until = excluded.lease_until`,
    [name],
  );
}

export async function releaseTurn(database: Database, name: string): Promise<void> {
  await database.query('UPDATE turn SET lease_until = NULL WHERE name = $1', [name]);
}
