import type { Checkpoint } from './checkpoint.ts';
import { type AuditText, hashChain, hashRow } from './hash.ts';
import type { AuditProblem } from './problem.ts';

/** An event as it lies in the archive. */
export interface ArchivedEvent extends AuditText {
  position: number;
  /** Of its seal, in hexadecimal. */
  rowHash: string;
}

/** The chain's hash at a position of a unit; undefined where that is not in it. */
export function hashAt(
  events: readonly ArchivedEvent[],
  { beforeHash }: Pick<Checkpoint, 'beforeHash'>,
  wanted: number,
): string | undefined {
  let hash = beforeHash;
  for (const { position, rowHash } of events) {
    hash = hashChain(hash, Buffer.from(rowHash, 'hex'));
    if (position === wanted) return hash.toString('hex');
  }
  return undefined;
}

/** What a unit of the archive must fit. */
export type UnitSeals = Pick<Checkpoint, 'position' | 'chainHash' | 'firstPosition' | 'beforeHash'>;

/** Whether a unit is what was sealed: every event its seal, the events each other, and the whole its checkpoint. */
export function checkUnit(events: readonly ArchivedEvent[], { firstPosition, position, beforeHash, chainHash }: UnitSeals): AuditProblem[] {
  const problems: AuditProblem[] = [];
  let next = firstPosition;
  let hash = beforeHash;
  for (const event of events) {
    const { position: at, seq, rowHash } = event;
    if (at !== next) problems.push({ seq, position: next, what: `the archived events ${next} to ${at - 1} are gone` });
    if (hashRow(event).toString('hex') !== rowHash) problems.push({ seq, position: at, what: 'the archived event was changed' });
    hash = hashChain(hash, Buffer.from(rowHash, 'hex'));
    next = at + 1;
  }
  if (problems.length > 0) return problems;
  if (next !== position + 1) return [{ seq: null, position: next, what: `the archived events ${next} to ${position} are gone` }];
  if (!hash.equals(chainHash))
    return [{ seq: null, position, what: `the archived events ${firstPosition} to ${position} are not those that were sealed` }];
  return [];
}
