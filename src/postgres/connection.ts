import { Socket } from 'node:net';

export interface ConnectionOptions {
  url: string;
  /** Appears in pg_stat_activity. */
  applicationName: string;
  statementTimeoutMs: number;
  lockTimeoutMs: number;
}

const CONNECT_TIMEOUT_MS = 5_000;
const GOODBYE_LIMIT_MS = 5_000;
/** What a URL may say as well; the driver would let it win over what we set. */
const OURS = ['application_name', 'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'query_timeout', 'options'];

export interface Connections {
  /** As the driver takes it; not in the driver's own types, which whoever installs our package does not have. */
  config: {
    connectionString: string;
    application_name: string;
    options: string;
    connectionTimeoutMillis: number;
    query_timeout: number;
    keepAlive: boolean;
    stream(): Socket;
  };
  /** With the goodbye: a server that has fallen silent never hangs up, and its open socket would keep the process. */
  hangUpSoon(): void;
}

/**
 * A process that stalls within a transaction keeps its locks. Together with the beat of 5 s that the shortest time without a sign allows for,
 * this is less than those 15 s: nobody who waits for such a lock with its heartbeat is taken for missing.
 */
const IDLE_IN_TRANSACTION_MS = 8_000;

/** @param searchPath quoted names, in the order in which unqualified ones are looked up. */
export function describeConnections(options: ConnectionOptions, searchPath: readonly string[]): Connections {
  const { connectionString, theirOptions } = takeOurSettingsOut(options.url);
  const settings = {
    search_path: searchPath.join(',').replace(/[\\\s]/g, '\\$&'),
    statement_timeout: options.statementTimeoutMs,
    lock_timeout: options.lockTimeoutMs,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
    TimeZone: 'UTC',
    // Times are compared as text.
    DateStyle: 'ISO,YMD',
  };
  const sockets = new Set<Socket>();
  return {
    config: {
      connectionString,
      application_name: options.applicationName,
      options: `${theirOptions} ${Object.entries(settings)
        .map(([name, value]) => `-c ${name}=${value}`)
        .join(' ')}`.trim(),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      // The server's own time-out should speak first; this one bounds a server that says nothing.
      query_timeout: options.statementTimeoutMs + 5_000,
      keepAlive: true,
      stream: () => {
        const socket = new Socket();
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
        return socket;
      },
    },
    hangUpSoon: () => {
      setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, GOODBYE_LIMIT_MS).unref();
    },
  };
}

function takeOurSettingsOut(url: string): { connectionString: string; theirOptions: string } {
  const start = url.indexOf('?');
  if (start === -1) return { connectionString: url, theirOptions: '' };
  const parameters = new URLSearchParams(url.slice(start + 1));
  const theirOptions = parameters.get('options') ?? '';
  for (const name of OURS) parameters.delete(name);
  return { connectionString: `${url.slice(0, start)}?${parameters}`, theirOptions };
}
