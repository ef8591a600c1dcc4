import { type Database, inSnapshot, type Sql } from '../postgres/database.ts';
import { findCheckpoint } from './checkpoint.ts';
import { GENESIS, hashChain, hashRow } from './hash.ts';
import type { AuditProblem } from './problem.ts';
import {
  type ChainHead,
  listOutside,
  listSealed,
  listUnsealed,
  lockHead,
  readHead,
  readLastSeq,
  type Seal,
  saveHead,
  saveSeals,
} from './queries.ts';

/** Rows sealed in one transaction, and read at once when the chain is verified. */
const PAGE = 1_000;
/** So long the database keeps what it has moved to the archive, whatever the period. */
export const UNIT_KEPT_SECONDS = 30 * 86_400;
/** Named at most; their count is exact up to this. */
const MOST_PROBLEMS = 100;

/** The row that holds the end of the chain is gone: nothing can be chained any more. */
export class ChainEndLost extends Error {
  override readonly name = 'ChainEndLost';
  constructor() {
    super('the audit has lost the end of its chain: the row of audit_head is gone');
  }
}

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
  const lastSeq = await readLastSeq(tx);
  const head = await lockHead(tx);
  if (!head) {
    if (!(await readHead(tx))) throw new ChainEndLost();
    return 0;
  }
  const rows = await listUnsealed(tx, head.settledSeq, PAGE);
  if (rows.length === 0 && head.settledNextSeq === head.settledSeq && lastSeq === head.settledSeq) return 0;
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
  await saveHead(
    tx,
    { position, chainHash, settledSeq: all ? head.settledNextSeq : head.settledSeq },
    all ? { seq: lastSeq, transactionId: head.transactionId } : undefined,
  );
  return rows.length;
}

export interface AuditVerification {
  intact: boolean;
  /** Where the chain begins: events before this position are in the archive. */
  begins: number;
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

/**
 * Goes through what is left of the chain and names every row that was changed, removed, inserted or reordered. Reads only, all of it as it was at
 * the beginning, whatever is chained or archived meanwhile.
 * @param expected what was noted of the chain; where its position is in the archive by now, that is a problem unless `archiveToo`: then verifyArchive
 * is to compare it, afterwards.
 */
export function verifyAudit(
  database: Database,
  expected?: ExpectedHead,
  { archiveToo = false }: { archiveToo?: boolean } = {},
): Promise<AuditVerification> {
  return inSnapshot(database, (tx) => verifyAt(tx, expected, archiveToo));
}

async function verifyAt(sql: Sql, expected: ExpectedHead | undefined, archiveToo: boolean): Promise<AuditVerification> {
  const problems: AuditProblem[] = [];
  const report = (what: string, position: number | null = null, seq: string | null = null) => {
    if (problems.length < MOST_PROBLEMS) problems.push({ seq, position, what });
  };
  const start = await findCheckpoint(sql);
  const walked: Walk = { position: start?.position ?? 0, chainHash: start?.chainHash ?? GENESIS, checked: 0 };
  if (start && !start.kept && start.archivedSeconds < UNIT_KEPT_SECONDS)
    report(`the events ${start.firstPosition} to ${start.position} are gone from the archive`, start.firstPosition);
  for (const { position, seq } of await listSealed(sql, 0, 1))
    if (position <= walked.position)
      report(`the seal lies before the checkpoint ${walked.position}, where the chain begins`, position, seq);
  if (expected && expected.position < walked.position && !archiveToo)
    report(`what was noted lies in the archive: \`audit verify --archive\` compares it`, expected.position);
  if (expected?.position === walked.position && expected.hash !== walked.chainHash.toString('hex')) report(REWRITTEN, walked.position);
  await walk(sql, walked, expected, report);
  checkEnd(walked, await readHead(sql), report);
  if (expected && expected.position > walked.position)
    report(`the chain ends before ${expected.position}, which was noted`, expected.position);
  const outside = await listOutside(sql, MOST_PROBLEMS);
  for (const { seq, forged } of outside) if (forged) report('the row was inserted behind the chain', null, seq);
  return {
    intact: problems.length === 0,
    begins: (start?.position ?? 0) + 1,
    checked: walked.checked,
    unsealed: outside.filter(({ forged }) => !forged).length,
    head: { position: walked.position, hash: walked.chainHash.toString('hex') },
    problems,
  };
}

function checkEnd({ position, chainHash }: Walk, head: ChainHead | undefined, report: (what: string, position?: number) => void): void {
  if (!head) report('the end of the chain was removed: the row of audit_head is gone');
  else if (position < head.position) report(`the chain ends at ${position}, not at ${head.position}: its end was cut off`, head.position);
  else if (head.position < position) report(`the end of the chain was moved back to ${head.position}`, head.position);
  else if (!head.chainHash.equals(chainHash)) report('the end of the chain was changed', position);
}

export const REWRITTEN = 'the chain is not the one that was noted: it was written anew';

/** How far a verification has come. */
interface Walk {
  position: number;
  chainHash: Buffer;
  checked: number;
}

type Report = (what: string, position: number, seq: string) => void;

async function walk(sql: Sql, walked: Walk, expected: ExpectedHead | undefined, report: Report): Promise<void> {
  for (;;) {
    const page = await listSealed(sql, walked.position, PAGE);
    for (const seal of page) {
      const next = walked.position + 1;
      if (seal.position !== next) report(`the seals ${next} to ${seal.position - 1} are gone`, next, seal.seq);
      else if (!hashChain(walked.chainHash, seal.rowHash).equals(seal.chainHash)) report('the seal was changed', seal.position, seal.seq);
      if (!seal.row) report('the row was removed', seal.position, seal.seq);
      else if (!hashRow(seal.row).equals(seal.rowHash)) report('the row was changed', seal.position, seal.seq);
      if (expected?.position === seal.position && expected.hash !== seal.chainHash.toString('hex'))
        report(REWRITTEN, seal.position, seal.seq);
      // From here on with what is there, so that one change is told once.
      walked.position = seal.position;
      walked.chainHash = seal.chainHash;
      walked.checked += 1;
    }
    if (page.length < PAGE) return;
  }
}
