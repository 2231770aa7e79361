// SPDX-License-Identifier: BSD-2-Clause
// A WebSocket backend of the npm package ws, which compresses as each client asks for. It echoes.
// usage: echo_server.mjs PORT
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({
  host: '127.0.0.1', port: Number(process.argv[2]), maxPayload: 1 << 24,
  perMessageDeflate: { threshold: 0, concurrencyLimit: 100 },
});
server.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
  socket.on('error', () => {});
});
