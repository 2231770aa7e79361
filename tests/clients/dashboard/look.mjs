// SPDX-License-Identifier: BSD-2-Clause
// A browser looks at the dashboard of a running Polder: its figures are those of the JSON, and axe
// finds nothing at both widths and in both themes. usage: node look.mjs OPS_URL STEP...
// Steps say what they have seen, a line each; the first thing that is wrong ends it with 1. A line
// on standard input lets a step that waits for its caller go on.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import axeCore from 'axe-core';
import { chromium } from 'playwright-core';

const [url, ...steps] = process.argv.slice(2);
const PATIENCE_MS = 30000;
const WIDTHS = [390, 1440], THEMES = ['light', 'dark'];

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'] });
const context = await browser.newContext({ viewport: { width: 1440, height: 1000 } });
await context.grantPermissions(['clipboard-read', 'clipboard-write']);
const page = await context.newPage();
const requested = [];
page.on('request', r => requested.push(new URL(r.url())));
const wrong = [];
page.on('pageerror', e => wrong.push(`script: ${e.message}`));
page.on('console', m => m.type() === 'error' && !/Failed to load|ERR_|status of 4/.test(m.text()) && wrong.push(`console: ${m.text()}`));

const fail = text => { throw new Error(text); };
const json = async name => (await fetch(`${url}/api/telemetry/${name}`)).json();
async function until(what, check) {
    const end = Date.now() + PATIENCE_MS;
    let last;
    do {
        last = await check();
        if (last === true)
            return;
        await new Promise(r => setTimeout(r, 100));
    } while (Date.now() < end);
    fail(`${what}: ${last}`);
}
const text = async selector => (await page.locator(selector).first().textContent()).trim();

// The page has no frames, so that axe may run in it alone. A theme changes colours and nothing else: in the second
// one only the rules about colours are asked.
const ABOUT_COLOURS = ['color-contrast', 'link-in-text-block'];
async function axe(where, rules) {
    if (!await where.evaluate(() => 'axe' in window))
        await where.evaluate(axeCore.source);
    return where.evaluate(options => window.axe.run(document, options), { resultTypes: ['violations'], ...(rules && { runOnly: rules }) });
}

async function checkAxe(state, widths = WIDTHS) {
    for (const width of widths) {
        await page.setViewportSize({ width, height: 1000 });
        for (const colorScheme of THEMES) {
            await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
            const { violations } = await axe(page, colorScheme === THEMES[0] ? undefined : ABOUT_COLOURS);
            if (violations.length)
                fail(`axe, ${state}, ${width} px, ${colorScheme}: ` + violations.map(v => `${v.id}: ${v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)).join(' | ')}`).join('; '));
        }
        const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (sideways > 0)
            fail(`${state}, ${width} px: ${sideways} px wider than the screen`);
    }
    await page.setViewportSize({ width: 1440, height: 1000 });
    console.log(`axe ${state} ok`);
}

const grouped = x => x.toLocaleString('en', { maximumFractionDigits: 0 });
const percent = x => `${(x * 100).toLocaleString('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 })} %`;

// The page's own list of events, with a flood among them.
function checkFlood() {
    const source = readFileSync(new URL('../../../daemons/control/dashboard/events.js', import.meta.url), 'utf8');
    const list = new Function('onChange', 'format', `${source}; return { takeEvent, eventDetail, rows: () => events };`)(() => {}, { plural: (n, what) => `${grouped(n)} ${what}s`, clock: () => 'then' });
    list.takeEvent({ n: 0, at: 0, noun: 'processes', what: 'started', subject: 'worker 1', detail: 'pid 7', count: 1 });
    for (let n = 1; n <= 60; n++)
        list.takeEvent({ n, at: n * 1000, noun: 'limits', what: 'refused', subject: 'few', detail: n < 60 ? '90 requests' : '1 request', count: 90 });
    const seen = list.rows().map(list.eventDetail).join('; ');
    if (seen !== '5,311 requests since then; pid 7')
        fail(`events: ${seen}`);
}

const STEP = {
    // One request makes the page; then there is the stream and the history, all from here.
    async open() {
        await page.goto(url + '/', { waitUntil: 'load' });
        const before = requested.filter(r => !['/events', '/api/telemetry/history'].includes(r.pathname) && r.protocol !== 'data:');
        if (before.length !== 1 || requested.some(r => r.protocol !== 'data:' && r.origin !== new URL(url).origin))
            fail(`asked for ${requested.map(r => r.href.slice(0, 100))}`);
        await until('live', async () => (await text('#live')) === 'live' || text('#live'));
        console.log('open ok');
    },
    async empty() {
        await until('empty', async () => (await text('#tail')).includes('No request has come') || text('#tail'));
        await checkAxe('empty');
    },
    async traffic() {
        console.log('send traffic');
        await lines.next();
    },
    async numbers() {
        await until('hit rate', async () => {
            const o = (await json('overview')).windows['5m'], shown = await text('[data-figure="hit-rate"]');
            return o.hits > 0 && shown === percent(o.hitRate) || `${shown} is not ${o.hitRate}`;
        });
        await until('target', async () => (await text('#figure-hit-rate .big')).includes('below 99 %') || text('#figure-hit-rate .big'));
        await until('calls avoided beside calls made', async () => {
            const o = (await json('overview')).windows['5m'], shown = await text('#figure-calls .big');
            return shown === `${grouped(o.avoidedCalls)}avoided, ${grouped(o.backendCalls)} made` || `${shown} is not ${o.avoidedCalls} ${o.backendCalls}`;
        });
        await until('refused', async () => {
            const o = (await json('overview')).windows['5m'], shown = await text('[data-figure="refused"]');
            return o.refused > 0 && shown === grouped(o.refused) || `${shown} is not ${o.refused}`;
        });
        await until('savings', async () => {
            const c = await json('cost'), shown = await text('[data-figure="saved"]');
            return shown === `€${c.savingsRealized.toLocaleString('en', { minimumFractionDigits: 4, maximumFractionDigits: 4 })}` || `${shown} is not ${c.savingsRealized}`;
        });
        await until('connections', async () => {
            const o = await json('overview'), shown = await text('[data-figure="clients-now"]');
            return shown === grouped(o.connections.now.clients) || `${shown} is not ${o.connections.now.clients}`;
        });
        await until('limits', async () => {
            const l = (await json('limits')).limits.find(x => x.refused), row = await text(`#limits tr[data-row="${l.name}"]`);
            return row.includes(l.refusedMost[0].key) && row.includes(grouped(l.refused)) || `${row} lacks ${JSON.stringify(l)}`;
        });
        await until('servers', async () => {
            const s = (await json('upstreams')).servers[0], row = await text(`#servers tr[data-row="${s.upstream}/${s.server}"]`);
            return row.includes(s.state) && row.includes(grouped(s.requests)) || `${row} lacks ${JSON.stringify(s)}`;
        });
        await until('routes', async () => {
            const all = (await json('routes')).routes, used = all.find(r => r.hits), dead = all.find(r => !r.requests && !r.websocket);
            const one = await text(`#routes tr[data-row="${used.route}"]`), other = await text(`#routes tr[data-row="${dead.route}"]`);
            return one.includes(grouped(used.requests)) && one.includes('in use') && other.includes('no request yet') || `${one} / ${other}`;
        });
        await until('the last requests', async () => {
            const tail = await text('#tail');
            return tail.includes('/items/1') && tail.includes('hit') && tail.includes('refused by') && tail.includes('token=*') && !tail.includes('secret') || tail;
        });
        if (await page.locator('#fleet-panel').isVisible() || await json('fleet') !== null)
            fail('a fleet is shown where there is none');
        checkFlood();
        console.log('numbers ok');
    },
    async span() {
        await page.keyboard.press('3');
        await until('24 h', async () => (await page.locator('#span input[value="24h"]').isChecked()) || 'not checked');
        await until('24 h hit rate', async () => {
            const o = (await json('overview')).windows['24h'], shown = await text('[data-figure="hit-rate"]');
            return shown === percent(o.hitRate) || `${shown} is not ${o.hitRate}`;
        });
        await page.keyboard.press('1');
        console.log('span ok');
    },
    // The cursor of a chart by keys, what is spoken of it, and its table.
    async keys() {
        const chart = page.locator('#figure-calls .chart');
        await until('history', async () => (await page.locator('#figure-calls .nothing').isHidden()) || 'no curve');
        await chart.focus();
        await page.keyboard.press('End');
        await until('spoken', async () => /avoided .*made /.test(await text('#spoken')) || text('#spoken'));
        await page.keyboard.press('ArrowLeft');
        await page.keyboard.press('Escape');
        await page.locator('#figure-calls .table-open').click();
        const rows = await page.locator('#table-dialog tbody tr').count();
        if (rows < 2)
            fail(`${rows} rows in the table`);
        await checkAxe('table', [390]);
        await page.keyboard.press('Escape');
        await page.keyboard.press('?');
        await until('help', async () => (await page.locator('#help').isVisible()) || 'no help');
        await page.keyboard.press('Escape');
        console.log('keys ok');
    },
    async copy() {
        await page.locator('#limits button.copy').first().click();
        const command = await page.evaluate(() => navigator.clipboard.readText());
        if (!/^polderctl -s \/\S+\/admin\.sock limit top \w+$/.test(command))
            fail(`copied ${command}`);
        console.log('copy ok');
    },
    async loaded() { await checkAxe('loaded'); },
    async alerting() {
        console.log('break something');
        await lines.next();
        await until('what is not well', async () => (await text('#status')).includes('does not answer') || text('#status'));
        await until('the alert', async () => {
            const a = (await json('alerts')).alerts.find(x => x.name === 'cache_hit_rate');
            const issue = page.locator('#issues .issue', { has: page.locator('a[href="/runbook#alert-cache_hit_rate"]') });
            return a?.state === 'firing' && (await issue.count()) === 1 && (await issue.textContent()).includes('warning') || JSON.stringify(a);
        });
        const link = page.locator('#issues a').first();
        if (!(await text('#issues')).includes('Do:') || (await link.getAttribute('href')) !== '/runbook#condition-backend_down')
            fail(await text('#issues'));
        if (await page.title() === 'Polder')
            fail('the title says nothing');
        await checkAxe('alerting');
        await page.evaluate(() => document.activeElement.blur());
        await page.keyboard.press('c');
        await until('a command by a key', async () => /upstream weight gone 127.0.0.1:\d+ 0$/.test(await page.evaluate(() => navigator.clipboard.readText())) || 'not copied');
        const book = await context.newPage();
        await book.goto(url + '/runbook#condition-backend_down');
        const found = await axe(book);
        if (found.violations.length || !(await book.locator('#condition-backend_down').isVisible()))
            fail(`runbook: ${found.violations.map(v => v.id)}`);
        await book.close();
    },
    // Of a host in a fleet, one of whose members has a name that is markup and applies nothing.
    async fleet() {
        const shown = async figure => text(`[data-figure="fleet-${figure}"]`);
        await until('member', async () => /amber.*member/.test(await shown('state')) || shown('state'));
        const store = (await json('fleet')).store;
        if (await shown('store') !== store)
            fail(`store ${await shown('store')} is not ${store}`);
        await until('its hosts', async () => {
            const { hosts } = await json('fleet'), names = await page.locator('#fleet tbody th').allTextContents();
            return hosts.length === 2 && hosts.every(h => names.some(n => n.startsWith(h.host))) || `${names} are not ${JSON.stringify(hosts)}`;
        });
        if (await page.locator('#fleet img, #issues img').count() || await page.evaluate(() => 'broken' in window))
            fail('the name of a host became markup');
        console.log('invalidate');
        await lines.next();
        await until('what was sent', async () => {
            const f = await json('fleet'), said = await shown('rates');
            return f.sent > 0 && said.includes(`${grouped(f.sent)} and ${grouped(f.received)} in all`) && /[\d.]+ \/s out/.test(said) || `${said} is not ${f.sent} ${f.received}`;
        });
        await until('the late host', async () => /late/.test(await text('#fleet tbody tr:has(th:has-text("img"))')) || text('#fleet tbody'));
        await until('its condition', async () => (await text('#status')).includes('applies what others have invalidated late') || text('#status'));
        await until('cache and limits', async () => /in use.*given/.test(await shown('cache')) && /granted/.test(await shown('limits')) || `${await shown('cache')} ${await shown('limits')}`);
        await checkAxe('fleet', [390]);
        console.log('kill the store');
        await lines.next();
        await until('cut off', async () => /cut off.*since.*serve/.test(await shown('state')) || shown('state'));
        await until('that it is not well', async () => (await text('#issues')).includes('other hosts’ invalidations are not heard') || (await text('#issues')).includes("other hosts' invalidations are not heard") || text('#issues'));
        if ((await page.content()).includes('hidden from all'))
            fail('the secret is shown');
        console.log('fleet ok');
    },
    async lost() {
        console.log('kill it');
        await lines.next();
        await until('lost', async () => (await page.locator('#lost').isVisible()) || 'it does not say so');
        await checkAxe('disconnected');
        console.log('bring it back');
        await lines.next();
        await until('back', async () => (await text('#live')) === 'live' && (await page.locator('#lost').isHidden()) || text('#live'));
        console.log('lost ok');
    },
};

try {
    for (const step of steps)
        await STEP[step]();
    if (wrong.length)
        fail(wrong.join('; '));
    console.log('all ok');
} catch (e) {
    console.log(`wrong: ${e.message}`);
    process.exitCode = 1;
}
await browser.close();
process.exit();
