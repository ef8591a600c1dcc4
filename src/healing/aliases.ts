import type { UnitManager } from '../actions/unit-manager.ts';
import { createAllowlist } from './allowlist.ts';

interface UnitLists {
  units: readonly string[];
  unitsDesired: readonly string[];
}

/** Of the names in the lists those that name a unit by an alias, in words: a unit goes by its own name, and is not meant by them. */
export async function findAliases(units: UnitManager, { units: allowed, unitsDesired }: UnitLists): Promise<string[]> {
  const lists = { RECLAIMD_UNITS: allowed, RECLAIMD_UNITS_DESIRED: unitsDesired };
  const found = await Promise.all(
    Object.entries(lists).map(async ([variable, patterns]) => {
      const { allows, patterns: wanted } = createAllowlist(patterns);
      const named = await Promise.all(wanted.filter(allows).map(async (name) => ({ name, unit: (await units.read(name))?.unit ?? name })));
      return named
        .filter(({ name, unit }) => name !== unit && !allows(unit))
        .map(({ name, unit }) => `${variable}: ${name} is another name of ${unit}: name that`);
    }),
  );
  return found.flat();
}
