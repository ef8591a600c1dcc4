import { createHash } from 'node:crypto';

/** One row as text, the way the database prints it in UTC: what its hash is of. */
export interface AuditText {
  seq: string;
  at: string;
  actor: string;
  action: string;
  target: string;
  outcome: string;
  reason: string | null;
  node: string;
  detail: string;
}

const sha256 = (...parts: (Uint8Array | string)[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

export function hashRow({ seq, at, actor, action, target, outcome, reason, node, detail }: AuditText): Buffer {
  return sha256(JSON.stringify([seq, at, actor, action, target, outcome, reason, node, detail]));
}

/** Each link covers everything before it. */
export const hashChain = (before: Uint8Array, rowHash: Uint8Array): Buffer => sha256(before, rowHash);

/** The chain before its first event. */
export const GENESIS: Buffer = Buffer.alloc(32);
