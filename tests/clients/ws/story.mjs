// SPDX-License-Identifier: BSD-2-Clause
// What every JavaScript client is put through; it runs in Node with the ws package and, as text, in
// a browser's page. Says in one line what it has seen, or throws.
export async function story(WebSocket, url) {
  const fail = (why) => { throw new Error(why); };
  const within = (promise, what) => {
    let timer;
    const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(`waited in vain for ${what}`)), 60000); });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const inbox = [], waiting = [];
  let closed;
  const end = new Promise((yes) => { closed = yes; });
  socket.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : inbox.push(data));
  socket.onclose = (event) => closed(event);
  const early = end.then(({ code, reason }) => fail(`closed too early: ${code} ${reason}`));
  early.catch(() => {});
  const next = () => (inbox.length ? Promise.resolve(inbox.shift()) : new Promise((yes) => waiting.push(yes)));
  const beat = (data) => typeof data === 'string' && data.startsWith('{"type":"heartbeat"');
  const answer = async () => {
    for (;;) {
      const data = await within(Promise.race([next(), early]), 'an echo');
      if (!beat(data)) return data;
    }
  };
  await within(new Promise((yes, no) => { socket.onopen = yes; socket.onerror = () => no(new Error('not opened')); }), 'the opening');

  const long = 'polder \u20ac \u{1f30a} '.repeat(65536) + '.'.repeat(0); // a mebibyte, max_message to the byte
  for (const text of ['hello', '', '\u0000', long]) {
    socket.send(text);
    if (await answer() !== text) fail(`a text of ${text.length} came back otherwise`);
  }
  const bytes = new Uint8Array(1000000).map((_, i) => i * 31 >> 3);
  socket.send(bytes);
  const back = new Uint8Array(await answer());
  if (back.length !== bytes.length || back.some((b, i) => b !== bytes[i])) fail('bytes came back otherwise');

  for (let i = 0; i < 500; i++) socket.send(`number ${i}`); // in order, none lost, none twice
  for (let i = 0; i < 500; i++) if (await answer() !== `number ${i}`) fail(`number ${i} is missing`);

  let heartbeat;
  do heartbeat = await within(next(), 'a heartbeat'); while (!beat(heartbeat));
  const { timestamp, client_id: id } = JSON.parse(heartbeat);
  if (id !== url.split('/').pop() || Number.isNaN(Date.parse(timestamp))) fail(`a strange heartbeat: ${heartbeat}`);

  socket.close(4321, 'until then');
  const { code, reason, wasClean } = await within(end, 'the closing'); // the backend says the same
  if (code !== 4321 || reason !== 'until then' || !wasClean) fail(`closed with ${code} ${reason}`);

  const other = new WebSocket(url); // and one that the backend closes
  const told = new Promise((yes) => { other.onclose = yes; });
  other.onopen = () => other.send('bye');
  const last = await within(told, 'a close by the backend');
  if (last.code !== 4001 || last.reason !== 'as asked' || !last.wasClean) fail(`told ${last.code} ${last.reason}`);
  return `echo ok, order ok, heartbeat ok, close ok, extensions "${socket.extensions}"`;
}
