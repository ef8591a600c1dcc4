import { expect, test } from 'vitest';
import { createLimit } from './limit.ts';

test('so many at once, in order, also after one that fails', async () => {
  const limited = createLimit(2);
  const log: string[] = [];
  const ends = new Map<string, PromiseWithResolvers<void>>();
  const run = (name: string) => {
    const end = Promise.withResolvers<void>();
    ends.set(name, end);
    return limited(async () => {
      log.push(name);
      await end.promise;
      return name;
    });
  };
  const [a, b, c, d] = [run('a'), run('b'), run('c'), run('d')];
  expect(log).toEqual(['a', 'b']);
  ends.get('b')?.reject(new Error('no'));
  await expect(b).rejects.toThrow('no');
  expect(log).toEqual(['a', 'b', 'c']);
  for (const end of ends.values()) end.resolve();
  expect(await Promise.all([a, c, d])).toEqual(['a', 'c', 'd']);
  expect(log).toEqual(['a', 'b', 'c', 'd']);
});
