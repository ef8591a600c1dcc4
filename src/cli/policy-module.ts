import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ResolvePolicy } from '../recovery/policy.ts';
import { UsageError } from './usage-error.ts';

/** Loads RECLAIMD_POLICY_MODULE: its default export, or its `resolvePolicy`. */
export async function loadPolicyModule(path: string | undefined): Promise<ResolvePolicy | undefined> {
  if (path === undefined) return undefined;
  let loaded: { default?: unknown; resolvePolicy?: unknown };
  try {
    loaded = (await import(pathToFileURL(resolve(path)).href)) as typeof loaded;
  } catch (cause) {
    throw new UsageError(`RECLAIMD_POLICY_MODULE: ${path} cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
  const resolvePolicy = loaded.resolvePolicy ?? loaded.default;
  if (typeof resolvePolicy !== 'function') {
    throw new UsageError(`RECLAIMD_POLICY_MODULE: ${path} exports neither a function as default nor one named resolvePolicy`);
  }
  return resolvePolicy as ResolvePolicy;
}
