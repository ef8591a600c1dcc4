import type { JobName } from './facts.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** `QUEUE/JOB-ID`; a queue's own name may hold a slash. Undefined where it is none. */
export function parseJobTarget(target: string): JobName | undefined {
  const slash = target.lastIndexOf('/');
  const [queue, jobId] = [target.slice(0, slash), target.slice(slash + 1)];
  return slash > 0 && UUID.test(jobId) ? { queue, jobId: jobId.toLowerCase() } : undefined;
}

/** As plans and audit spell it, so that one job is one target; what names no job is left as it is. */
export function respellJobTarget(target: string): string {
  const job = parseJobTarget(target);
  return job ? `${job.queue}/${job.jobId}` : target;
}

export const isToken = (text: string): boolean => UUID.test(text);
