// SPDX-License-Identifier: BSD-2-Clause
// charts: the history of the span, fetched once and then followed by the stream.

const METRICS = ['requests', 'hitRate', 'backendCalls', 'avoidedCalls', 'p50', 'p95', 'p99', 'wsOpen', 'wsMax', 'heartbeatSuccess',
    'limitRefused', 'errors', 'cost', 'savings'];
// step: seconds between points; of a day not each of 8640, but as many as there are pixels
const STEPS = { '5m': 1, '1h': 10, '24h': 120 };
const history = { times: [], columns: {}, step: 1, failed: false };
let asking = 0;

function pointsChanged() {
    changedNow('history');
}

async function askHistory() {
    const number = ++asking, wanted = span;
    try {
        const answer = await fetch(`/api/telemetry/history?metric=${METRICS.join(',')}&since=${wanted}&step=${STEPS[wanted]}`);
        const h = await answer.json();
        if (number !== asking || !answer.ok)
            return;
        history.step = h.step;
        const n = Object.values(h.metrics)[0]?.values.length ?? 0;
        history.times = Array.from({ length: n }, (_, i) => h.end - (n - 1 - i) * h.step);
        history.columns = Object.fromEntries(METRICS.map(m => [m, h.metrics[m]?.values ?? []]));
        history.failed = false;
    } catch {
        history.failed = number === asking;
    }
    pointsChanged();
}

// Samples that are finer than the points of the chart are gathered into one.
let gathered = [];
function addPoint(point) {
    const last = history.times.at(-1) ?? 0, { step } = history;
    if (point.at <= last)
        return;
    gathered.push(point);
    if (point.at < last + step)
        return;
    const end = Math.floor(point.at / step) * step;
    history.times.push(end > last ? end : point.at);
    for (const m of METRICS) {
        const known = gathered.map(p => p.values[m]).filter(isNumber);
        (history.columns[m] ??= []).push(known.length ? known.reduce((a, b) => a + b, 0) / known.length : null);
    }
    gathered = [];
    const most = SPAN_S[span] / step;
    while (history.times.length > most) {
        history.times.shift();
        METRICS.forEach(m => history.columns[m].shift());
    }
    pointsChanged();
}

function chooseSpan(wanted) {
    span = wanted;
    document.querySelector(`#span input[value="${wanted}"]`).checked = true;
    gathered = [];
    changedNow('span', 'overview');
    askHistory();
}

onChange(['sample'], () => data.sample && addPoint(data.sample));
onChange(['reconnected'], () => askHistory());
document.querySelectorAll('#span input').forEach(input => input.addEventListener('change', () => chooseSpan(input.value)));

// ---- the small curves beside servers ----

const SPARK_STEPS = { '5m': 10, '1h': 60, '24h': 1440 };
const SPARKS_MAX = 24; // as many as one question may ask for
const SPARKS_EVERY_MS = 30000;
const sparks = {}; // by server
let sparksAsked = 0;

async function askSparks() {
    const servers = (data.upstreams?.servers ?? []).slice(0, SPARKS_MAX).map(serverName);
    if (!servers.length || Date.now() - sparksAsked < SPARKS_EVERY_MS)
        return;
    sparksAsked = Date.now();
    try {
        const names = servers.map(s => encodeURIComponent(`serverP95:${s}`)).join(',');
        const answer = await fetch(`/api/telemetry/history?metric=${names}&since=${span}&step=${SPARK_STEPS[span]}`);
        for (const [name, m] of answer.ok ? Object.entries((await answer.json()).metrics) : [])
            sparks[name.slice('serverP95:'.length)] = m.values;
        changedNow('sparks');
    } catch { /* the numbers are there without */ }
}
onChange(['span', 'reconnected'], () => { sparksAsked = 0; askSparks(); });
onChange(['upstreams', 'tick'], askSparks);
