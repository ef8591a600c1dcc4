import type { FleetState } from '../fleet/queries.ts';
import type { Sql } from '../postgres/database.ts';
import { type IncidentChanges, listOpenEvidence, project, readLookTime } from './incident.ts';

/** Longer than a restart of the daemon by its service manager. */
const SILENT_AFTER_SECONDS = 30;

interface NodeRow {
  node: string;
  host: string;
  stack: string | null;
  env: string | null;
  version: string;
  lastBeatAt: string;
  silent: boolean;
  executors: number;
}

/**
 * Nodes whose daemon fell silent without a goodbye: nobody proves deaths there. After an outage nobody's silence counts,
 * and who was cut off itself does not look. A node that is forgotten, its row gone, stays until somebody acknowledges it.
 */
export async function projectSilentNodes(sql: Sql, node: string, fleet: FleetState): Promise<IncidentChanges> {
  const { comebackSeconds, ownBeatFresh } = fleet;
  if (!ownBeatFresh || (comebackSeconds !== null && comebackSeconds < SILENT_AFTER_SECONDS)) return { opened: [], resolved: [] };
  const lookedAt = await readLookTime(sql);
  const nodes = await listNodesWithSilence(sql);
  const open = await listOpenEvidence<{ node?: string }>(sql, 'supervision_stalled');
  // What names no node is of the supervision of queues, and not ours to judge.
  const unknown = open
    .filter(
      ({ evidence, acknowledged }) => evidence.node === undefined || (!acknowledged && !nodes.some((row) => row.node === evidence.node)),
    )
    .map(({ fingerprint }) => fingerprint);
  return project(
    sql,
    node,
    { class: 'supervision_stalled', unknown, lookedAt },
    nodes
      .filter(({ silent }) => silent)
      .map(({ node: silentNode, host, stack, env, version, lastBeatAt, executors }) => ({
        class: 'supervision_stalled',
        fingerprint: `supervision_stalled:${silentNode}`,
        summary: `the daemon of ${silentNode} is silent: it stopped beating without a goodbye`,
        evidence: { node: silentNode, host, version, lastBeatAt },
        affected: Math.max(1, executors),
        node: silentNode,
        stack,
        env,
      })),
  );
}

/** With how many executors each node has in sight. */
function listNodesWithSilence(sql: Sql): Promise<NodeRow[]> {
  return sql.query<NodeRow>(
    `SELECT n.node, n.host, n.stack, n.env, n.version, to_char(n.beat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "lastBeatAt",
       n.stopped_at IS NULL AND n.beat_at < now() - make_interval(secs => $1) AS silent, count(e.id)::int AS executors
     FROM node n LEFT JOIN executor e ON e.witness_node = n.node AND e.stopped_at IS NULL AND e.proof IS NULL
     GROUP BY n.node`,
    [SILENT_AFTER_SECONDS],
  );
}
