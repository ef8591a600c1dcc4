export const SEVERITIES = ['critical', 'error', 'warning'] as const;
/** `critical`: recovery itself does not work. `error`: something is broken. `warning`: it waits for a person, or will break. */
export type Severity = (typeof SEVERITIES)[number];

interface ClassTraits {
  severity: Severity;
  /** Only the node itself can see it: each node resolves its own, and nobody else's. */
  ofNode?: true;
}

const CLASSES = {
  mass_staleness: { severity: 'critical' },
  supervision_stalled: { severity: 'critical' },
  ownership_missing: { severity: 'critical' },
  pgboss_unsupported: { severity: 'critical', ofNode: true },
  dead_executor: { severity: 'error' },
  hung_executor: { severity: 'error' },
  poison_job: { severity: 'error' },
  workflow_stuck: { severity: 'error' },
  unit_failed: { severity: 'error', ofNode: true },
  unit_flapping: { severity: 'error', ofNode: true },
  held_orphan: { severity: 'warning' },
  retention_behind: { severity: 'warning' },
} as const satisfies Record<string, ClassTraits>;

export type IncidentClass = keyof typeof CLASSES;

/** Every class, the gravest first. */
export const INCIDENT_CLASSES = Object.keys(CLASSES) as IncidentClass[];

export const severityOf = (incidentClass: IncidentClass): Severity => CLASSES[incidentClass].severity;

export const isOfNode = (incidentClass: IncidentClass): boolean => 'ofNode' in CLASSES[incidentClass];
