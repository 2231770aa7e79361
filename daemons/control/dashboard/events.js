// SPDX-License-Identifier: BSD-2-Clause
// events: what has happened to the service, the newest first. What goes on happening is one row,
// which a flood of refusals cannot make more of; so the rare ones stay in sight.

const EVENTS = 40;
let events = [], lastEvent = -1;

const floods = e => e.what === 'refused';
const sameEvent = (a, b) => floods(a) && a.noun === b.noun && a.what === b.what && a.subject === b.subject;
const detailCount = e => Number(/^\d+/.exec(e.detail ?? '')?.[0] ?? e.count ?? 1);

function takeEvent(e) {
    const at = events.findIndex(row => sameEvent(row, e));
    const row = at < 0 ? { ...e, since: e.at, sum: detailCount(e) } : events.splice(at, 1)[0];
    if (at >= 0)
        Object.assign(row, { at: e.at, n: e.n, sum: row.sum + detailCount(e), detail: e.detail });
    events.unshift(row);
    lastEvent = Math.max(lastEvent, e.n);
}

const eventText = e => `${e.noun}: ${e.what}${e.subject ? ` ${e.subject}` : ''}${e.count > 1 && !e.detail ? ` (${format.count(e.count)})` : ''}`;
const eventDetail = e => e.at - e.since < 1000 ? e.detail
    : `${(e.detail ?? '').replace(/^\d+ (\w+?)s?\b/, (all, what) => format.plural(e.sum, what))} since ${format.clock(e.since)}`;

onChange(['events', 'overview'], () => {
    (data.events ?? []).filter(e => e.n > lastEvent).forEach(takeEvent);
    events = events.slice(0, EVENTS);
    replace($('events'), events.length ? el('ul', { class: 'events', tabindex: 0, 'aria-label': 'Events, the newest first', 'data-key': 'events' },
        events.map(e => el('li', {}, el('time', { datetime: new Date(e.at).toISOString() }, format.clock(e.at)),
            el('span', {}, eventText(e), eventDetail(e) && el('span', { class: 'sub' }, eventDetail(e))))))
        : el('p', { class: 'empty' }, 'Nothing has happened since the start.'));
});
onChange(['reconnected'], () => { events = []; lastEvent = -1; });
