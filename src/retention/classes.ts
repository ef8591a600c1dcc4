/** What is kept, and what it takes to go. The texts are ours and constant. */
export interface RecordClass {
  name: RecordName;
  table: string;
  /** When a row became history; null while it is not. */
  endedAt: string;
  /** Further conditions under which a row may go; `r` is the row. */
  unless?: string;
  archived: boolean;
  /** What is archived of `gone`, the deleted row. */
  record?: string;
}

export const RECORD_NAMES = [
  'recoveries',
  'executors',
  'nodes',
  'incidents',
  'previews',
  'heals',
  'unit_lives',
  'crashes',
  'commands',
  'workflows',
  'workflow_actions',
  'runs',
  'archive',
] as const;
export type RecordName = (typeof RECORD_NAMES)[number];

/** Evidence behind an open incident stays. */
const NOT_IN_OPEN_EVIDENCE = (column: string) =>
  `NOT EXISTS (SELECT FROM incident i WHERE i.resolved_at IS NULL AND i.evidence::text LIKE '%' || ${column} || '%')`;

export const RECORD_CLASSES: readonly RecordClass[] = [
  { name: 'recoveries', table: 'recovery', endedAt: 'r.recovered_at', unless: NOT_IN_OPEN_EVIDENCE('r.job_id::text'), archived: true },
  {
    name: 'executors',
    table: 'executor',
    endedAt: 'greatest(r.beat_at, r.session_at, r.stopped_at, r.dead_at)',
    // Whoever still holds an attempt is not history.
    unless: `NOT EXISTS (SELECT FROM attempt a JOIN job j ON j.name = a.queue AND j.id = a.job_id WHERE a.application_name = r.application_name
       AND j.state = 'active' AND j.retry_count = a.retry_count) AND ${NOT_IN_OPEN_EVIDENCE('r.id')}`,
    archived: false,
  },
  { name: 'nodes', table: 'node', endedAt: 'r.beat_at', archived: false },
  {
    name: 'incidents',
    table: 'incident',
    endedAt: 'r.resolved_at',
    archived: true,
    record: `to_jsonb(gone) || jsonb_build_object('history', (SELECT jsonb_agg(to_jsonb(o) ORDER BY o.number) FROM incident_occurrence o WHERE o.incident_id = gone.id))`,
  },
  { name: 'previews', table: 'repair_preview', endedAt: 'coalesce(r.ended_at, r.expires_at)', archived: false },
  { name: 'heals', table: 'unit_action', endedAt: 'r.ended_at', archived: true },
  { name: 'unit_lives', table: 'unit_life', endedAt: 'r.seen_at', archived: false },
  { name: 'crashes', table: 'unit_crash', endedAt: 'r.crashed_at', unless: NOT_IN_OPEN_EVIDENCE('r.executor_id'), archived: true },
  { name: 'commands', table: 'node_command', endedAt: 'coalesce(r.ended_at, r.take_by)', archived: false },
  {
    name: 'workflows',
    table: 'workflow_instance',
    endedAt: `CASE WHEN r.state IN ('completed', 'failed', 'cancelled') THEN r.updated_at END`,
    archived: false,
  },
  { name: 'workflow_actions', table: 'workflow_action', endedAt: 'r.acted_at', archived: false },
  { name: 'runs', table: 'retention_run', endedAt: 'r.started_at', archived: false },
  { name: 'archive', table: 'archive', endedAt: 'r.archived_at', archived: false },
];
