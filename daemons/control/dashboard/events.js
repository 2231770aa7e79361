// SPDX-License-Identifier: BSD-2-Clause
// events: what has happened to the service, the newest first.

const EVENTS = 40;
let events = [];

const eventText = e => `${e.noun}: ${e.what}${e.subject ? ` ${e.subject}` : ''}${e.count > 1 && !e.detail ? ` (${format.count(e.count)})` : ''}`;

onChange(['events', 'overview'], () => {
    const last = events[0]?.n ?? -1, fresh = (data.events ?? []).filter(e => e.n > last).reverse();
    events = [...fresh, ...events].slice(0, EVENTS);
    replace($('events'), events.length ? el('ul', { class: 'events', tabindex: 0, 'aria-label': 'Events, the newest first', 'data-key': 'events' },
        events.map(e => el('li', {}, el('time', { datetime: new Date(e.at).toISOString() }, format.clock(e.at)),
            el('span', {}, eventText(e), e.detail && el('span', { class: 'sub' }, e.detail)))))
        : el('p', { class: 'empty' }, 'Nothing has happened since the start.'));
});
onChange(['reconnected'], () => { events = []; });
