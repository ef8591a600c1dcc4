import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

export type Break = 'before' | 'after';

/**
 * Between a daemon and Postgres: ends every connection before statement `n` reaches the server, or when the server has
 * carried it out and before the daemon hears of it. To Postgres that is what a killed daemon looks like.
 */
export async function createBreakingProxy(databaseUrl: string) {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let order: { statement: number; when: Break } | undefined;
  let seen = 0;
  let broken = false;

  function breakAll(): void {
    broken = true;
    for (const socket of sockets) socket.destroy();
  }

  const proxy = createServer((daemon) => {
    const server = connect(Number(target.port), target.hostname);
    let breaksWithAnswer = false;
    for (const [socket, peer] of [
      [daemon, server],
      [server, daemon],
    ] as const) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        peer.destroy();
      });
    }
    if (broken) return void daemon.destroy();
    let statement: Buffer[] = [];
    const fromDaemon = splitMessages(true, (type, bytes) => {
      if (broken) return;
      statement.push(bytes);
      if ('PBDEC'.includes(type)) return;
      if (type === 'Q' || type === 'S') {
        seen += 1;
        if (order?.statement === seen && order.when === 'before') return breakAll();
        breaksWithAnswer = order?.statement === seen;
      }
      server.write(Buffer.concat(statement));
      statement = [];
    });
    const fromServer = splitMessages(false, (type, bytes) => {
      if (!breaksWithAnswer) daemon.write(bytes);
      else if (type === 'Z') breakAll();
    });
    daemon.on('data', fromDaemon);
    server.on('data', fromServer);
  });
  await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    breakAll();
    proxy.close();
  });
  const url = new URL(databaseUrl);
  url.port = String((proxy.address() as AddressInfo).port);
  return {
    url: url.href,
    /** Counts from here. */
    breakAt: (statement: number, when: Break) => {
      seen = 0;
      order = { statement, when };
    },
    breakNow: breakAll,
    isBroken: () => broken,
    /** Lets connections through again, and breaks no more. */
    mend: () => {
      broken = false;
      order = undefined;
    },
  };
}

/** Postgres's wire protocol: type, length, content; a client's first message has no type. */
function splitMessages(startsUntyped: boolean, onMessage: (type: string, bytes: Buffer) => void) {
  let rest: Buffer = Buffer.alloc(0);
  let untyped = startsUntyped;
  return (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const header = untyped ? 0 : 1;
      if (rest.length < header + 4) return;
      const length = header + rest.readUInt32BE(header);
      if (rest.length < length) return;
      const bytes = rest.subarray(0, length);
      rest = rest.subarray(length);
      onMessage(untyped ? 'startup' : String.fromCharCode(bytes[0] ?? 0), bytes);
      untyped = false;
    }
  };
}
