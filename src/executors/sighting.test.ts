import { expect, test } from 'vitest';
import { judgeSighting } from './sighting.ts';

const HERE = { node: 'n', bootId: 'boot-2', pidNamespace: 'pid:[1]', uptimeSeconds: 40 };
const BEFORE = {
  witnessNode: 'n',
  witnessBootId: 'boot-1',
  witnessPidNamespace: 'pid:[1]',
  witnessed: false,
  beatFresh: false,
  silentSeconds: 100,
};

test.each<[string, Partial<typeof BEFORE> | { witnessBootId: null }, string]>([
  ['never seen', { witnessBootId: null }, 'none'],
  ['seen on this boot', { witnessBootId: 'boot-2' }, 'here'],
  ['seen on this boot from another pid namespace', { witnessBootId: 'boot-2', witnessPidNamespace: 'pid:[2]' }, 'elsewhere'],
  ['seen by this node before the boot, silent since', {}, 'rebooted'],
  ['seen by another node of the same host name', { witnessNode: 'other' }, 'elsewhere'],
  ['a sign since this boot', { silentSeconds: 39 }, 'elsewhere'],
  ['its beats are fresh', { beatFresh: true }, 'elsewhere'],
  ['a living daemon has it in sight', { witnessed: true }, 'elsewhere'],
])('%s', (_, row, sighting) => {
  expect(judgeSighting({ ...BEFORE, ...row }, HERE)).toBe(sighting);
});
