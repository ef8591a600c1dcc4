// Says what can be seen of a living process (argv), and of one that does not exist.
import { openSync } from 'node:fs';
import { isPidAmbiguous, openProcess } from '../../src/host/process.ts';

function useUpDescriptors(): void {
  try {
    for (;;) openSync('/dev/null', 'r');
  } catch {
    // None is left.
  }
}

if (process.env['WITHOUT_DESCRIPTORS']) useUpDescriptors();
const [living, none] = [Number(process.argv[2]), 2 ** 22].map((pid) => {
  const found = openProcess(pid);
  return typeof found === 'string' ? found : 'seen';
});
process.stdout.write(`${JSON.stringify({ living, none, ambiguous: isPidAmbiguous(Number(process.argv[2])) })}\n`);
