import { appendAudit } from '../src/audit/append.ts';
import { sealAudit } from '../src/audit/chain.ts';
import { createDatabase, type Database, type Sql } from '../src/postgres/database.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { createLogger } from '../src/runtime/logger.ts';
import { median, timed, withServer } from './support.ts';

const AT_ONCE = 20;

/** What a transaction does besides its one row of work: nothing, a second row as large as an event but without numbers, names and rules, or an event. */
const SECONDS: Record<'nothing' | 'row' | 'event', (tx: Sql, count: number) => Promise<unknown>> = {
  nothing: async () => undefined,
  row: (tx, count) =>
    tx.execute('INSERT INTO plain VALUES ($1, $2, $3, $4, $5, $6, $7)', ['bench', 'sweep', 'q', 'done', null, 'n', { count }], 'plain_row'),
  event: (tx, count) =>
    appendAudit(tx, { actor: 'bench', action: 'sweep', target: 'q', outcome: 'done', reason: null, node: 'n', detail: { count } }),
};
type Second = keyof typeof SECONDS;

/** What one audit event adds to a small transaction, with twenty at once, in turns with the same without it and with a plain row. */
export async function benchAudit(quick: boolean): Promise<void> {
  const rounds = quick ? 3 : 9;
  const each = quick ? 20 : 100;
  console.log(
    `\naudit: ${AT_ONCE} writers, ${each} transactions each, ${rounds} rounds, with nothing more, a plain row and an event in turns`,
  );
  await withServer(quick, async ({ url }) => {
    await using database = connect(url);
    await database.query('CREATE TABLE work (id int)');
    await database.query('CREATE TABLE plain (actor text, action text, target text, outcome text, reason text, node text, detail jsonb)');
    const medians: Record<Second, number[]> = { nothing: [], row: [], event: [] };
    const kinds = Object.keys(medians) as Second[];
    for (let round = 0; round < rounds; round++)
      for (const kind of round % 2 === 0 ? kinds : kinds.toReversed()) medians[kind].push(await measure(database, each, kind));
    const [plain, row, event] = [median(medians.nothing), median(medians.row), median(medians.event)];
    console.log(
      `  median of a transaction: ${plain.toFixed(2)} ms; a plain row adds ${(row - plain).toFixed(2)} ms, an event ${(event - plain).toFixed(2)} ms`,
    );
    let sealed = 0;
    const seconds =
      (await timed(async () => {
        sealed = await sealAudit(database);
      })) / 1000;
    console.log(`  chained ${sealed} events in ${seconds.toFixed(2)} s: ${Math.round(sealed / seconds)} a second`);
  });
}

async function measure(database: Database, each: number, second: Second): Promise<number> {
  const times: number[] = [];
  const writer = async () => {
    for (let count = 0; count < each; count++)
      times.push(
        await timed(() =>
          database.transaction(async (tx) => {
            await tx.query('INSERT INTO work VALUES (1)');
            await SECONDS[second](tx, count);
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
