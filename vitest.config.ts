import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: './test/support/global-setup.ts',
    // Beyond the deadline of waitFor, which says what did not come.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    pool: 'forks',
    // They wait for most of their time.
    maxWorkers: 3,
  },
});
