// SPDX-License-Identifier: BSD-2-Clause
// The npm package ws as a client, with permessage-deflate and without; then native pings both ways.
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

// Its own ping passes to the backend and comes back; ours come when heartbeats are native.
const socket = new WebSocket(url);
await new Promise((yes, no) => { socket.on('open', yes); socket.on('error', no); });
const pong = new Promise((yes) => socket.on('pong', (data) => yes(data.toString())));
socket.ping('are you there');
const late = setTimeout(() => { console.log('no pong'); process.exit(1); }, 20000);
if (await pong !== 'are you there') process.exit(1);
clearTimeout(late);
socket.terminate();
console.log('pong ok');
