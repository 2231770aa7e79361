// SPDX-License-Identifier: BSD-2-Clause
// store: the stream of events, the sections that it has brought, and who shows them.

const data = {}; // sections, by the names of the documents under /api/telemetry
const shown = []; // { names, show }
let changed = new Set(), drawing = false;
let span = '5m';
let clockOffset = 0; // of the service's clock

const SPAN_S = { '5m': 300, '1h': 3600, '24h': 86400 };
const SPAN_TEXT = { '5m': 'last 5 minutes', '1h': 'last hour', '24h': 'last 24 hours' };

// Calls show() after one of these has changed, at most once a frame.
function onChange(names, show) {
    shown.push({ names, show });
}

function draw() {
    const now = changed;
    drawing = false;
    changed = new Set();
    for (const { names, show } of shown)
        if (names.some(name => now.has(name)))
            show();
}

function changedNow(...names) {
    names.forEach(name => changed.add(name));
    if (!drawing) {
        drawing = true;
        // a hidden page gets no frames
        document.hidden ? setTimeout(draw, 250) : requestAnimationFrame(draw);
    }
}

// What is too long for the stream is asked for, now and then.
const LONG_EVERY_MS = 15000;
const long = {}; // name: when it was asked for

async function askLong(name) {
    long[name] = Date.now();
    try {
        const answer = await fetch(`/api/telemetry/${name}`);
        if (answer.ok && name in long) {
            data[name] = await answer.json();
            changedNow(name);
        }
    } catch { /* the connection is watched elsewhere */ }
}

function receive(message) {
    clockOffset = message.now - Date.now();
    for (const [name, value] of Object.entries(message))
        if (value?.tooLong) {
            long[name] = 0;
        } else if (name !== 'now') {
            delete long[name];
            data[name] = value;
            changedNow(name);
        }
    for (const name of Object.keys(long))
        if (Date.now() - long[name] > LONG_EVERY_MS)
            askLong(name);
    changedNow('tick');
}
const serviceNow = () => Date.now() + clockOffset;

// ---- the connection ----

const connection = { state: 'waiting', since: Date.now(), last: 0 };
const SILENCE_MS = 6000; // a message comes each second
const HIDDEN_MS = 60000; // a hidden page gives its place to others
let source = null, hiddenTimer = 0;

function setConnection(state) {
    if (connection.state === state)
        return;
    connection.state = state;
    connection.since = Date.now();
    changedNow('connection');
}

function connect() {
    source?.close();
    source = new EventSource('/events');
    source.onmessage = event => {
        const back = connection.state !== 'live';
        connection.last = Date.now();
        receive(JSON.parse(event.data));
        setConnection('live');
        if (back)
            changedNow('reconnected');
    };
    source.onerror = () => setConnection(connection.last ? 'lost' : 'waiting');
}

function disconnect() {
    source?.close();
    source = null;
    setConnection('asleep');
}

// The browser tries again by itself, but not after an answer like 503, nor when nothing comes.
function watchConnection() {
    if (connection.state === 'asleep')
        return;
    if (connection.state === 'live' && Date.now() - connection.last > SILENCE_MS)
        setConnection('lost');
    if (connection.state !== 'live' && (source?.readyState === EventSource.CLOSED || Date.now() - connection.since > 15000)) {
        connection.since = Date.now();
        connect();
    }
    if (connection.state !== 'live')
        changedNow('connection');
}

document.addEventListener('visibilitychange', () => {
    clearTimeout(hiddenTimer);
    if (document.hidden)
        hiddenTimer = setTimeout(disconnect, HIDDEN_MS);
    else if (connection.state === 'asleep')
        connect();
});

onChange(['connection'], () => {
    const { state, last } = connection;
    const text = { live: 'live', waiting: 'connecting', asleep: 'asleep', lost: 'connection lost' }[state];
    $('live').dataset.state = state;
    setText($('live-text'), text);
    const lost = $('lost');
    lost.hidden = state !== 'lost';
    document.body.classList.toggle('is-lost', state === 'lost');
    if (state === 'lost')
        setText(lost, `Connection lost. What you see is of ${format.clock(last)}. Trying again until it is back.`);
});
