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

/** Until a daemon's loop has turned so often from now on, taking turns or not. */
export async function passesOf(loop: string, daemonUrl: string | undefined, count = 3): Promise<void> {
  const passes = async () => {
    const page = await (await fetch(`${daemonUrl}/metrics`)).text();
    return Number(new RegExp(`^reclaimd_loop_runs_total\\{loop="${loop}",result="ok"\\} (\\d+)`, 'm').exec(page)?.[1] ?? 0);
  };
  const before = await passes();
  await waitFor(`${count} passes of ${loop}`, async () => (await passes()) >= before + count);
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
