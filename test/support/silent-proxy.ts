import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/** Between a client and Postgres: after `fallSilent` it passes nothing on and never hangs up, as a host that lost its power. */
export async function createSilentProxy(databaseUrl: string): Promise<{ url: string; fallSilent(): void; openConnections(): number }> {
  const target = new URL(databaseUrl);
  const clients = new Set<Socket>();
  const servers = new Set<Socket>();
  let silent = false;
  const proxy = createServer({ allowHalfOpen: true }, (client) => {
    const server = connect({ port: Number(target.port), host: target.hostname, allowHalfOpen: true });
    clients.add(client.on('close', () => clients.delete(client)).on('error', () => client.destroy()));
    servers.add(server.on('error', () => client.destroy()));
    client.on('data', (chunk) => silent || server.write(chunk)).on('end', () => silent || server.end());
    server.on('data', (chunk) => silent || client.write(chunk)).on('end', () => silent || client.end());
  });
  await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    for (const socket of [...clients, ...servers]) socket.destroy();
    proxy.close();
  });
  const url = new URL(databaseUrl);
  url.port = String((proxy.address() as AddressInfo).port);
  return {
    url: url.href,
    fallSilent: () => {
      silent = true;
    },
    // A client that sent its end and waits for ours is still there; one that gave up answers with a reset.
    openConnections: () => {
      for (const client of clients) if (silent && !client.destroyed) client.write('?');
      return clients.size;
    },
  };
}
