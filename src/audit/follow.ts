import { type Database, inSnapshot } from '../postgres/database.ts';
import { type AuditFilter, type AuditMark, type AuditRow, listAudit, listAuditAfter, listLastNumbers, readAuditMark } from './queries.ts';

const PAGE = 1_000;
/** An event that commits late has a number below those that were seen; not by more than what others append meanwhile. */
const LATEST_BEHIND = 10_000;

/** Events as they come, each once. */
export interface AuditFollower {
  /** What was there at the start, by the filter. */
  readonly first: readonly AuditRow[];
  /** Page by page, in the order of their numbers; what commits late comes late. */
  next(): AsyncGenerator<AuditRow[]>;
}

/**
 * Numbers are given before commits: below one that was seen another may still turn up. So everything is looked for from `floor` on,
 * below which nothing can any more, and what was seen above it is remembered.
 */
export async function followAudit(database: Database, filter: AuditFilter): Promise<AuditFollower> {
  const started = await inSnapshot(database, async (tx) => ({
    first: await listAudit(tx, filter),
    numbers: await listLastNumbers(tx, LATEST_BEHIND),
    mark: await readAuditMark(tx),
  }));
  const seen = new Set(started.numbers);
  let floor = BigInt(started.mark.seq) - BigInt(LATEST_BEHIND);
  let before: AuditMark = started.mark;
  /** Its number is settled once all that was under way at its look has ended. */
  let pending: { seq: string; xmax: string } | undefined;

  return { first: started.first, next };

  async function* next(): AsyncGenerator<AuditRow[]> {
    const mark = await readAuditMark(database);
    const settled = pending && BigInt(mark.xmin) >= BigInt(pending.xmax) ? pending.seq : undefined;
    for (let after = String(floor); ; ) {
      const rows = await listAuditAfter(database, { ...filter, limit: PAGE }, after, [...seen]);
      for (const { seq } of rows) {
        seen.add(seq);
        after = seq;
      }
      yield rows;
      if (rows.length < PAGE) break;
    }
    if (settled !== undefined) {
      floor = BigInt(settled);
      for (const seq of seen) if (BigInt(seq) <= floor) seen.delete(seq);
      pending = undefined;
    }
    // A number of the look before, with the transactions of this one: whoever got a lower number has begun by now.
    pending ??= { seq: before.seq, xmax: mark.xmax };
    before = mark;
  }
}
