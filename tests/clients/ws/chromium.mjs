// SPDX-License-Identifier: BSD-2-Clause
// A real browser as a client: headless Chromium, driven over its DevTools socket, opens a page that
// came through Polder, and from it a WebSocket. usage: chromium.mjs http://HOST:PORT/PAGE ws://...
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import WebSocket from 'ws';
import { story } from './story.mjs';

const [page, url] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), 'polder-chromium.'));
const browser = spawn('chromium', ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
  '--no-first-run', '--disable-extensions', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--proxy-server=direct://', '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'],
  { stdio: ['ignore', 'ignore', 'pipe'], detached: true }); // a group of its own, to end as one
const late = setTimeout(() => { console.log('chromium: too slow'); finish(1); }, 240000);

process.on('SIGTERM', () => finish(1)); // leaves no browser behind

async function finish(code) {
  clearTimeout(late);
  const gone = new Promise((yes) => { browser.exitCode !== null ? yes() : browser.on('exit', yes); });
  try { process.kill(-browser.pid, 'SIGKILL'); } catch { /* it has left */ }
  await gone;
  for (let i = 0; i < 50; i++) {
    try { rmSync(profile, { recursive: true, force: true, maxRetries: 5 }); break; } catch { await new Promise((y) => setTimeout(y, 100)); }
  }
  process.exit(code);
}

const devtools = await new Promise((yes, no) => {
  let said = '';
  browser.stderr.on('data', (part) => {
    said += part;
    const found = /DevTools listening on (ws:\S+)/.exec(said);
    if (found) yes(found[1]);
  });
  browser.on('error', no);
  browser.on('exit', () => no(new Error(`chromium left: ${said.slice(-500)}`)));
}).catch((error) => { console.log(String(error)); return finish(1); });

const socket = new WebSocket(devtools, { perMessageDeflate: false, maxPayload: 1 << 26 });
await new Promise((yes) => socket.on('open', yes));
let last = 0;
const asked = new Map(), events = new Map();
socket.on('message', (text) => {
  const m = JSON.parse(text);
  if (m.id) asked.get(m.id)(m);
  else events.get(m.method)?.(m);
});
const call = (method, params = {}, sessionId = undefined) => new Promise((yes, no) => {
  asked.set(++last, (m) => (m.error ? no(new Error(`${method}: ${m.error.message}`)) : yes(m.result)));
  socket.send(JSON.stringify({ id: last, method, params, sessionId }));
});

try {
  const { targetId } = await call('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  await call('Page.enable', {}, sessionId);
  const loaded = new Promise((yes) => events.set('Page.loadEventFired', yes));
  await call('Page.navigate', { url: page }, sessionId);
  await loaded;
  const { result, exceptionDetails } = await call('Runtime.evaluate', {
    expression: `(${story})(WebSocket, ${JSON.stringify(url)})`, awaitPromise: true, returnByValue: true }, sessionId);
  console.log(exceptionDetails ? exceptionDetails.exception.description : result.value);
  await finish(exceptionDetails ? 1 : 0);
} catch (error) {
  console.log(String(error));
  await finish(1);
}
