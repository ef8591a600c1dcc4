import { appendAudit } from '../src/audit/append.ts';
import { sealAudit } from '../src/audit/chain.ts';
import { createDatabase, type Database } from '../src/postgres/database.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { createLogger } from '../src/runtime/logger.ts';
import { median, timed, withServer } from './support.ts';

const AT_ONCE = 20;

/** What one audit event adds to a small transaction, with twenty at once, in turns with the same without it. */
export async function benchAudit(quick: boolean): Promise<void> {
  const rounds = quick ? 3 : 9;
  const each = quick ? 20 : 100;
  console.log(`\naudit: ${AT_ONCE} writers, ${each} transactions each, ${rounds} rounds, with and without an event in turns`);
  await withServer(quick, async ({ url }) => {
    await using database = connect(url);
    await database.query('CREATE TABLE work (id int)');
    const medians: Record<'with' | 'without', number[]> = { with: [], without: [] };
    for (let round = 0; round < rounds; round++)
      for (const kind of round % 2 === 0 ? (['without', 'with'] as const) : (['with', 'without'] as const))
        medians[kind].push(await measure(database, each, kind === 'with'));
    const [plain, audited] = [median(medians.without), median(medians.with)];
    console.log(
      `  median of a transaction: ${plain.toFixed(2)} ms without, ${audited.toFixed(2)} ms with: ${(audited - plain).toFixed(2)} ms added`,
    );
    let sealed = 0;
    const seconds =
      (await timed(async () => {
        sealed = await sealAudit(database);
      })) / 1000;
    console.log(`  chained ${sealed} events in ${seconds.toFixed(2)} s: ${Math.round(sealed / seconds)} a second`);
  });
}

async function measure(database: Database, each: number, audited: boolean): Promise<number> {
  const times: number[] = [];
  const writer = async () => {
    for (let count = 0; count < each; count++)
      times.push(
        await timed(() =>
          database.transaction(async (tx) => {
            await tx.query('INSERT INTO work VALUES (1)');
            if (audited)
              await appendAudit(tx, {
                actor: 'bench',
                action: 'sweep',
                target: 'q',
                outcome: 'done',
                reason: null,
                node: 'n',
                detail: { count },
              });
          }),
        ),
      );
  };
  await Promise.all(Array.from({ length: AT_ONCE }, writer));
  return median(times);
}

function connect(url: string): Database & AsyncDisposable {
  const options = {
    url,
    applicationName: 'bench',
    searchPath: ['reclaimd'],
    maxConnections: AT_ONCE,
    statementTimeoutMs: 60_000,
    lockTimeoutMs: 60_000,
  };
  const database = createDatabase(options, { clock: systemClock, log: createLogger('silent', 'bench') });
  return { ...database, [Symbol.asyncDispose]: () => database.close() };
}
