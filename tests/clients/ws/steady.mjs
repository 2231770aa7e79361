// SPDX-License-Identifier: BSD-2-Clause
// The npm package ws as clients that talk on and on, whatever happens to what is between: with
// permessage-deflate, whose context stays or begins anew with each message, and without. Each
// message has to come back once and in order. Ends when its standard input does.
// usage: steady.mjs URL
import WebSocket from 'ws';

const UNDER_WAY = 4;
const kinds = {
  context: { threshold: 0 },
  'no-context': { threshold: 0, clientNoContextTakeover: true, serverNoContextTakeover: true },
  plain: false,
};
let stop = false;
process.stdin.on('end', () => { stop = true; });
process.stdin.resume();

// Half of it is in the window of the messages before, half is not.
function message(kind, i) {
  let text = `${kind} ${i} `;
  let seed = i * 2654435761 >>> 0;
  const length = i % 50 === 49 ? 40000 : 20 + seed % 3000;
  while (text.length < length) {
    seed = (seed * 1664525 + 1013904223) >>> 0;
    text += seed & 1 ? 'the same words as ever, ' : seed.toString(36);
  }
  return text;
}

function talk(name, perMessageDeflate) {
  const [kind] = name.split('/');
  return new Promise((yes, no) => {
    const socket = new WebSocket(process.argv[2], { perMessageDeflate, maxPayload: 1 << 24 });
    let sent = 0, got = 0;
    const silent = setInterval(() => no(new Error(`${name}: silence behind message ${got}`)), 60000);
    const next = () => socket.send(message(name, sent++));
    socket.on('open', () => { for (let i = 0; i < UNDER_WAY; i++) next(); });
    socket.on('message', (data) => {
      silent.refresh();
      if (data.toString() !== message(name, got)) no(new Error(`${name}: message ${got} is another one`));
      got++;
      if (!stop) setTimeout(next, 2);
      else if (got === sent) socket.close(4321, 'until then');
    });
    socket.on('close', (code) => {
      clearInterval(silent);
      if (code !== 4321) no(new Error(`${name}: closed with ${code} behind message ${got}`));
      else yes({ kind, got, extensions: socket.extensions });
    });
    socket.on('error', no);
  });
}

const talks = Object.entries(kinds).flatMap(([kind, deflate]) => [1, 2].map((n) => talk(`${kind}/${n}`, deflate)));
for (const { kind, got, extensions } of await Promise.all(talks)) {
  console.log(`${kind}: ${got < 10 ? 'too few' : 'all'} came back, extensions "${extensions}"`);
}
process.exit(0);
