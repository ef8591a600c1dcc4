/** Of dbus-next only what lies below its MessageBus: see bus.ts. Its own types cover none of it. */
declare module 'dbus-next/lib/connection.js' {
  import type { EventEmitter } from 'node:events';
  import type { Socket } from 'node:net';
  import type { Message } from 'dbus-next';

  interface Connection extends EventEmitter {
    stream: Socket;
    message(message: Message): void;
  }
  export default function createConnection(options: { busAddress: string; authMethods: string[] }): Connection;
}
declare module 'dbus-next/lib/message-type.js' {
  export { Message } from 'dbus-next';
}
