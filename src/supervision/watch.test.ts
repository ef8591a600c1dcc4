import { expect, test } from 'vitest';
import type { SupervisionStore } from '../actions/supervision-store.ts';
import type { Sql } from '../postgres/database.ts';
import { findStalls } from './watch.ts';

test('of many stalled queues the evidence names some, and the incident all: the right to attend to it is asked for on each', async () => {
  const queues = Array.from({ length: 60 }, (_, index) => `queue-${index + 100}`);
  const supervision: Pick<SupervisionStore, 'readPace' | 'readMonitoring' | 'listOverdue'> = {
    readPace: async () => ({ monitorSeconds: null, passSeconds: null }),
    readMonitoring: async () => ({
      queues: 60,
      claimSeconds: 1,
      idle: queues,
      instances: 1,
      supervising: [],
      instanceSeconds: 9_999,
      supervisingSeconds: 0,
    }),
    listOverdue: async () => queues.map((queue) => ({ queue, count: 1, oldestSeconds: 999 })),
  };
  const watch = {
    supervision: supervision as SupervisionStore,
    flows: { listLeaves: async () => [], countUnresolved: async () => 0 },
    takenOver: true,
  };
  const { findings } = await findStalls({} as Sql, watch, 9_999);
  expect(findings.map(({ fingerprint, queues: all }) => [fingerprint, all])).toEqual([
    ['supervision_stalled:pgboss:overdue', queues],
    ['supervision_stalled:pgboss:idle', queues],
  ]);
  for (const { evidence } of findings) expect((evidence as { queues: string[] }).queues).toEqual(queues.slice(0, 50));
});
