// SPDX-License-Identifier: BSD-2-Clause
// The npm package ws as a client, with permessage-deflate and without; then fragments and native pings.
// usage: node.mjs URL
import WebSocket from 'ws';
import { story } from './story.mjs';

const url = process.argv[2];
for (const perMessageDeflate of [true, false]) {
  class Client extends WebSocket {
    constructor(to) { super(to, { perMessageDeflate, maxPayload: 1 << 24 }); }
  }
  console.log(await story(Client, url));
}

// Fragments with a ping of its own between them; the pings of Polder's, which ws answers by itself.
for (const perMessageDeflate of [true, false]) {
  const socket = new WebSocket(url, { perMessageDeflate });
  const late = setTimeout(() => { console.log('no echo, pong or ping'); process.exit(1); }, 60000);
  const pinged = new Promise((yes) => socket.on('ping', yes));
  const pong = new Promise((yes) => socket.on('pong', (data) => yes(data.toString())));
  const echo = new Promise((yes) => socket.on('message', (data, binary) => { if (binary) yes(data); }));
  await new Promise((yes, no) => { socket.on('open', yes); socket.on('error', no); });
  const whole = Buffer.alloc(90001).map((_, i) => i * 7 >> 2);
  socket.send(whole.subarray(0, 30000), { binary: true, fin: false });
  socket.ping('are you there');
  socket.send(whole.subarray(30000, 90000), { binary: true, fin: false });
  socket.send(whole.subarray(90000), { binary: true, fin: true });
  const [back, data] = await Promise.all([echo, pong, pinged]);
  clearTimeout(late);
  if (data !== 'are you there' || !whole.equals(back)) { console.log('fragments or pong differ'); process.exit(1); }
  socket.terminate();
}
console.log('fragments ok, pings ok');
