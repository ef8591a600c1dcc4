import type { Database, Sql } from '../postgres/database.ts';
import { hashChain, hashRow } from './hash.ts';
import { type ChainHead, listOutside, listSealed, listUnsealed, lockHead, readHead, type Seal, saveHead, saveSeals } from './queries.ts';

/** Rows sealed in one transaction, and read at once when the chain is verified. */
const PAGE = 1_000;
/** Named at most; their count is exact up to this. */
const MOST_PROBLEMS = 100;

/**
 * Chains every row that has committed since the last time: each seal holds the hash of its row, and of the whole chain up to
 * it. One at a time in the fleet; who comes meanwhile leaves it to the other. @returns how many were sealed.
 */
export async function sealAudit(database: Database): Promise<number> {
  let sealed = 0;
  for (;;) {
    const count = await database.transaction(sealPage);
    sealed += count;
    if (count < PAGE) return sealed;
  }
}

async function sealPage(tx: Sql): Promise<number> {
  const head = await lockHead(tx);
  if (!head) return 0;
  const rows = await listUnsealed(tx, head.settledSeq, PAGE);
  if (rows.length === 0 && head.settledNextSeq === head.settledSeq) return 0;
  const seals: Seal[] = [];
  let { position, chainHash } = head;
  for (const row of rows) {
    const rowHash = hashRow(row);
    position += 1;
    chainHash = hashChain(chainHash, rowHash);
    seals.push({ position, seq: row.seq, rowHash, chainHash });
  }
  const all = rows.length < PAGE;
  await saveSeals(tx, seals);
  await saveHead(tx, { position, chainHash, settledSeq: all ? head.settledNextSeq : head.settledSeq }, all);
  return rows.length;
}

export interface AuditProblem {
  /** Of the audit row; null where the chain itself is damaged. */
  seq: string | null;
  position: number | null;
  what: string;
}

export interface AuditVerification {
  intact: boolean;
  /** Seals that were looked at. */
  checked: number;
  /** Committed a moment ago and not chained yet. */
  unsealed: number;
  /** The end of the chain: noted elsewhere, it proves later that nothing before it was changed or cut off. */
  head: { position: number; hash: string };
  problems: AuditProblem[];
}

/** An end of the chain that somebody noted before. */
export interface ExpectedHead {
  position: number;
  hash: string;
}

/** Goes through the whole chain and names every row that was changed, removed, inserted or reordered. Reads only. */
export async function verifyAudit(sql: Sql, expected?: ExpectedHead): Promise<AuditVerification> {
  const head = await readHead(sql);
  const problems: AuditProblem[] = [];
  const report = (what: string, position: number | null = null, seq: string | null = null) => {
    if (problems.length < MOST_PROBLEMS) problems.push({ seq, position, what });
  };
  let position = 0;
  let chainHash: Buffer = Buffer.alloc(32);
  let checked = 0;
  for (;;) {
    const page = await listSealed(sql, position, PAGE);
    for (const seal of page) {
      if (seal.position !== position + 1) report(`the seals ${position + 1} to ${seal.position - 1} are gone`, position + 1);
      else if (!hashChain(chainHash, seal.rowHash).equals(seal.chainHash)) report('the seal was changed', seal.position, seal.seq);
      if (!seal.row) report('the row was removed', seal.position, seal.seq);
      else if (!hashRow(seal.row).equals(seal.rowHash)) report('the row was changed', seal.position, seal.seq);
      if (expected?.position === seal.position && expected.hash !== seal.chainHash.toString('hex'))
        report('the chain is not the one that was noted: it was written anew', seal.position, seal.seq);
      // From here on with what is there, so that one change is told once.
      ({ position, chainHash } = seal);
      checked += 1;
    }
    if (page.length < PAGE) break;
  }
  checkEnd(head, { position, chainHash }, expected, report);
  const outside = await listOutside(sql, MOST_PROBLEMS);
  for (const { seq, forged } of outside) if (forged) report('the row was inserted behind the chain', null, seq);
  return {
    intact: problems.length === 0,
    checked,
    unsealed: outside.filter(({ forged }) => !forged).length,
    head: { position, hash: chainHash.toString('hex') },
    problems,
  };
}

function checkEnd(
  head: ChainHead,
  found: Pick<ChainHead, 'position' | 'chainHash'>,
  expected: ExpectedHead | undefined,
  report: (what: string, position: number) => void,
): void {
  // Sealing may go on while we read: more than the head of before is no fault.
  if (found.position < head.position)
    report(`the chain ends at ${found.position}, not at ${head.position}: its end was cut off`, head.position);
  else if (found.position === head.position && !found.chainHash.equals(head.chainHash))
    report('the end of the chain was changed', head.position);
  if (expected && expected.position > found.position)
    report(`the chain ends before ${expected.position}, which was noted`, expected.position);
}
