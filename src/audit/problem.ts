export interface AuditProblem {
  /** Of the audit row; null where the chain itself is damaged. */
  seq: string | null;
  position: number | null;
  what: string;
}
