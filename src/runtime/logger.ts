import { type Logger as PinoLogger, pino } from 'pino';

export type Logger = Pick<PinoLogger, 'debug' | 'info' | 'warn' | 'error'>;
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** JSON lines on standard output, ISO times, each with the node it speaks of. */
export function createLogger(level: LogLevel, node: string): Logger {
  const output = pino.destination(1);
  // A reader or a terminal that is gone takes the log with it, not what is to be brought to its end.
  output.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
    // What could not be written would be tried again at the process's end, for ever.
    output.write = () => true;
    output.flushSync = () => undefined;
  });
  const { isoTime: timestamp } = pino.stdTimeFunctions;
  return pino({ level, base: { node }, timestamp, formatters: { level: (label) => ({ level: label }) } }, output);
}

/** What a log line may say of an error: its class, code and message; never a query's values. */
export function errorFields(error: unknown): { error: string; code?: string } {
  if (!(error instanceof Error)) return { error: String(error) };
  const code = (error as { code?: unknown }).code;
  return { error: `${error.name}: ${error.message}`, ...(typeof code === 'string' ? { code } : {}) };
}
