/** What is kept, and what it takes to go. The texts are ours and constant. */
export interface RecordClass {
  name: RecordName;
  table: string;
  /** When a row, `r`, became history; null while it is not. */
  endedAt: string;
  /** Further conditions under which a row may go. */
  unless?: string;
  archived: boolean;
  /** What is archived of `gone`, the deleted row. */
  record?: string;
  /**
   * How it goes: row by row, along the pages of its table; as the beginning of the audit's chain; or all at once, when
   * ownership turns to its other table.
   */
  removal: 'rows' | 'chain' | 'rotation';
  /** The tables behind a view. */
  parts?: readonly string[];
  /** Rows that count with it, and go in another way. */
  beside?: Pick<RecordClass, 'table' | 'endedAt' | 'unless'>;
}

export const RECORD_NAMES = [
  'attempts',
  'recoveries',
  'executors',
  'nodes',
  'daemons',
  'incidents',
  'previews',
  'heals',
  'unit_lives',
  'crashes',
  'commands',
  'workflows',
  'workflow_actions',
  'audit',
  'runs',
  'restored',
  'archive',
] as const;
export type RecordName = (typeof RECORD_NAMES)[number];

/**
 * Everything that open incidents name, by now and in the occurrences that are kept of them: the keys of one object, which a statement
 * makes once, and in which it finds each row's names at next to no cost. The inner DISTINCT is for the planner, which expects a thousand
 * names of each evidence, and would compile, or run in parallel, what takes milliseconds.
 */
const CITED = `(SELECT coalesce(jsonb_object_agg(named.name, true), '{}') FROM (
    SELECT DISTINCT jsonb_path_query(open.evidence, 'strict $.** ? (@.type() == "string")') #>> '{}' AS name FROM (
      SELECT DISTINCT stated.evidence FROM (
        SELECT i.evidence FROM incident i WHERE i.resolved_at IS NULL
        UNION ALL SELECT o.evidence FROM incident_occurrence o JOIN incident i ON i.id = o.incident_id WHERE i.resolved_at IS NULL
      ) AS stated
    ) AS open
  ) AS named)`;

/** Evidence behind an open incident stays: what goes by one of these names. A null is no name. */
const notCited = (...names: string[]) => `NOT ${CITED} ?| ARRAY[${names.join(', ')}]`;

/**
 * The last life of its unit, and somebody stopped it: forgotten, the unit would be started again, however long ago that life began. A host
 * that has no daemon any more is remembered for a while.
 */
const STOP_STANDS = `(r.stop_requested IS TRUE
  AND NOT EXISTS (SELECT FROM unit_life l WHERE l.host = r.host AND l.unit = r.unit AND l.seen_at > r.seen_at)
  AND (r.seen_at > now() - interval '90 days' OR EXISTS (SELECT FROM node n WHERE n.host = r.host)))`;

/** The database keeps units of the audit for so long, whatever the period. */
const UNITS_STAY = `(r.class <> 'audit' OR r.archived_at < now() - interval '30 days')`;

/** The archive's files, which their nodes remove. */
export const ARCHIVE_FILES = { table: 'archive_file', endedAt: 'r.archived_at', unless: UNITS_STAY } as const;

export const RECORD_CLASSES: readonly RecordClass[] = [
  {
    name: 'attempts',
    table: 'attempt',
    endedAt: 'r.started_on',
    // Those that a rotation has left behind for longer than it should take.
    unless: 'EXISTS (SELECT FROM attempt_turn t WHERE NOT t.emptied AND t.switched_at < now() - make_interval(secs => $1))',
    archived: false,
    removal: 'rotation',
    parts: ['attempt_a', 'attempt_b'],
  },
  {
    name: 'recoveries',
    table: 'recovery',
    endedAt: 'r.recovered_at',
    // An incident of an executor shows what was given back of it.
    unless: notCited('r.job_id::text', `r.queue || '/' || r.job_id`, 'r.executor_id'),
    archived: true,
    removal: 'rows',
  },
  {
    name: 'executors',
    table: 'executor',
    endedAt: 'greatest(r.beat_at, r.session_at, r.stopped_at, r.dead_at)',
    // Whoever still holds an attempt is not history.
    unless: `NOT EXISTS (SELECT FROM attempt a JOIN job j ON j.name = a.queue AND j.id = a.job_id WHERE a.application_name = r.application_name
       AND j.state = 'active' AND j.retry_count = a.retry_count) AND ${notCited('r.id')}`,
    archived: false,
    removal: 'rows',
  },
  { name: 'nodes', table: 'node', endedAt: 'r.beat_at', unless: notCited('r.node'), archived: false, removal: 'rows' },
  { name: 'daemons', table: 'daemon', endedAt: 'r.beat_at', archived: false, removal: 'rows' },
  {
    name: 'incidents',
    table: 'incident',
    endedAt: 'r.resolved_at',
    archived: true,
    record: `to_jsonb(gone) || jsonb_build_object(
      'history', (SELECT jsonb_agg(to_jsonb(o) ORDER BY o.number) FROM incident_occurrence o WHERE o.incident_id = gone.id),
      'opened', (SELECT jsonb_agg(to_jsonb(o) - 'incident_id' ORDER BY o.opening) FROM incident_opening o WHERE o.incident_id = gone.id))`,
    removal: 'rows',
  },
  { name: 'previews', table: 'repair_preview', endedAt: 'coalesce(r.ended_at, r.expires_at)', archived: false, removal: 'rows' },
  { name: 'heals', table: 'unit_action', endedAt: 'r.ended_at', unless: notCited('r.unit'), archived: true, removal: 'rows' },
  {
    name: 'unit_lives',
    table: 'unit_life',
    endedAt: 'r.seen_at',
    unless: `NOT ${STOP_STANDS} AND ${notCited('r.unit')}`,
    archived: false,
    removal: 'rows',
  },
  {
    name: 'crashes',
    table: 'unit_crash',
    endedAt: 'r.crashed_at',
    unless: notCited('r.executor_id', 'r.unit'),
    archived: true,
    removal: 'rows',
  },
  { name: 'commands', table: 'node_command', endedAt: 'coalesce(r.ended_at, r.take_by)', archived: false, removal: 'rows' },
  {
    name: 'workflows',
    table: 'workflow_instance',
    endedAt: `CASE WHEN r.state IN ('completed', 'failed', 'cancelled') THEN r.updated_at END`,
    unless: notCited('r.id'),
    archived: false,
    removal: 'rows',
  },
  {
    name: 'workflow_actions',
    table: 'workflow_action',
    endedAt: 'r.acted_at',
    unless: notCited(`r.queue || '/' || r.job_id`),
    archived: false,
    removal: 'rows',
  },
  {
    name: 'audit',
    table: 'audit',
    endedAt: 'r.at',
    // What happened since a day before the oldest open incident stays.
    unless: `r.at < coalesce((SELECT min(opened_at) - interval '1 day' FROM incident WHERE resolved_at IS NULL AND class <> 'retention_behind'), 'infinity')`,
    archived: true,
    removal: 'chain',
  },
  { name: 'runs', table: 'retention_run', endedAt: 'r.started_at', archived: false, removal: 'rows' },
  { name: 'restored', table: 'restored', endedAt: 'r.restored_at', archived: false, removal: 'rows' },
  {
    name: 'archive',
    table: 'archive',
    endedAt: 'r.archived_at',
    unless: UNITS_STAY,
    archived: false,
    removal: 'rows',
    beside: ARCHIVE_FILES,
  },
];

/** `$1` is the period in seconds. */
export const isDue = ({ endedAt, unless }: Pick<RecordClass, 'endedAt' | 'unless'>) =>
  `${endedAt} < now() - make_interval(secs => $1)${unless ? ` AND ${unless}` : ''}`;
