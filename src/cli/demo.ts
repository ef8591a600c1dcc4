import type { Surroundings } from './command.ts';
export async function demo(_s: Surroundings, _o: { once?: true; json?: true }): Promise<number> {
  return 0;
}
