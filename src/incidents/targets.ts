import type { IncidentClass } from './class.ts';

/** What an incident says of itself, as far as advice and history need it. */
export interface Stated {
  class: IncidentClass;
  node: string | null;
  evidence: Record<string, unknown>;
}

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);
const texts = (value: unknown): string[] => (Array.isArray(value) ? value.filter((item) => typeof item === 'string') : []);

/** The job that the evidence names, as commands and audit spell it. */
export function jobOf({ evidence }: Stated): string | undefined {
  const queue = text(evidence['queue']);
  const jobId = text(evidence['jobId']);
  return queue && jobId ? `${queue}/${jobId}` : undefined;
}

/** The attempts that the evidence lists, likewise. */
export function attemptsOf({ class: incidentClass, node, evidence: { attempts } }: Stated): string[] {
  const jobs = Array.isArray(attempts) ? (attempts as Record<string, unknown>[]) : [];
  return jobs.map((evidence) => jobOf({ class: incidentClass, node, evidence })).filter((job) => job !== undefined);
}

export function executorsOf({ evidence }: Stated): string[] {
  const one = text(evidence['executor']) ?? text(evidence['executorId']);
  return one ? [one] : texts(evidence['executors']);
}

/** Those of many executors that hold attempts. */
export const holdersOf = ({ evidence }: Stated): string[] => texts(evidence['holding']);

export function unitOf({ evidence, node }: Stated): string | undefined {
  const unit = text(evidence['unit']);
  const at = text(evidence['node']) ?? node;
  return unit && (at ? `${at}:${unit}` : unit);
}

/** The blocked jobs of a stuck workflow, and the parent that they wait for. */
export function workflowOf(stated: Stated): { parent: string | undefined; children: string[] } {
  const { evidence } = stated;
  return { parent: text(evidence['parent']) ?? jobOf(stated), children: texts(evidence['children']) };
}

/** Everything that somebody could have acted on because of this incident. */
export function targetsOf(stated: Stated): string[] {
  const { parent, children } = workflowOf(stated);
  const targets = [jobOf(stated), ...attemptsOf(stated), ...executorsOf(stated), unitOf(stated), parent, ...children];
  return [...new Set(targets.filter((target) => target !== undefined))];
}
