import type { LocalExecutorRow } from './queries.ts';

type Sighting = Pick<
  LocalExecutorRow,
  'witnessNode' | 'witnessBootId' | 'witnessPidNamespace' | 'witnessed' | 'beatFresh' | 'silentSeconds'
>;

export interface Here {
  node: string;
  bootId: string;
  pidNamespace: string | undefined;
  uptimeSeconds: number;
}

/**
 * What an earlier sighting of an executor's process means to this daemon.
 *
 * `here`: made on this boot, in this pid namespace: its pid and start time can be compared. `rebooted`: made by this
 * node, and the host has booted since. A boot id alone would not do: two hosts of one name would declare each other's
 * workers dead, so the executor must also have been silent for longer than this host is up. `elsewhere`: says nothing
 * here. `none`: there was none.
 */
export function judgeSighting(row: Sighting, here: Here): 'none' | 'here' | 'rebooted' | 'elsewhere' {
  if (row.witnessBootId === null) return 'none';
  if (row.witnessBootId === here.bootId) return row.witnessPidNamespace === here.pidNamespace ? 'here' : 'elsewhere';
  const silentSinceBoot = !row.witnessed && !row.beatFresh && row.silentSeconds > here.uptimeSeconds;
  return row.witnessNode === here.node && silentSinceBoot ? 'rebooted' : 'elsewhere';
}
