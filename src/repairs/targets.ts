import type { JobName } from './facts.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** `QUEUE/JOB-ID`; a queue's own name may hold a slash. Undefined where it is none. */
export function parseJobTarget(target: string): JobName | undefined {
  const slash = target.lastIndexOf('/');
  const [queue, jobId] = [target.slice(0, slash), target.slice(slash + 1)];
  return slash > 0 && UUID.test(jobId) ? { queue, jobId: jobId.toLowerCase() } : undefined;
}

export const isToken = (text: string): boolean => UUID.test(text);
