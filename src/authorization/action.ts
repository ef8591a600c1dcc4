/** What a person can ask for. The names are those of the audit. */
export const ACTIONS = [
  'job_retry',
  'job_rescue',
  'job_cancel',
  'job_discard',
  'executor_rescue',
  'executor_stop_and_rescue',
  'unit_heal',
  'unit_restart',
  'workflow_retry_parent',
  'workflow_cancel_descendants',
  'workflow_unblock',
  'incident_acknowledge',
  'incident_snooze',
  'reconcile',
  'retention_prune',
  'retention_restore',
  'sweep',
  'policy_set',
  'policy_remove',
  'ownership_install',
  'ownership_remove',
] as const;
export type Action = (typeof ACTIONS)[number];

/** On what. An executor carries the queues of the jobs that it holds. */
export type Resource =
  | { kind: 'queue'; name: string }
  | { kind: 'unit'; node: string; name: string }
  | { kind: 'executor'; id: string; queues: readonly string[] }
  | { kind: 'fleet' };

/** `sentence`: why not, and what would help, for whoever asked. */
export type Decision = { allowed: true } | { allowed: false; sentence: string };
