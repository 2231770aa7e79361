// SPDX-License-Identifier: BSD-2-Clause
// connections: how many there are and were, and what a restart would cost now.

const AGO = [['now', 'now'], ['15m', '15 min ago'], ['30m', '30 min ago'], ['60m', '60 min ago']];

const restartRow = (what, r) => r && el('div', {}, el('dt', {}, `Safe to restart ${what}:`),
    el('dd', {}, tag(r.safe ? 'good' : 'warn', r.safe ? 'yes' : 'no')), el('dd', { class: 'quiet' }, sentence(r.why)));

onChange(['overview'], () => {
    const { connections, restart } = data.overview;
    replace($('connections'),
        el('dl', { class: 'trend' }, AGO.map(([key, text]) => el('div', {}, el('dt', {}, text),
            el('dd', { 'data-figure': `connections-${key}` }, format.count(connections[key].clients),
                restart.supervisor && el('small', {}, `${format.count(connections[key].websockets)} WebSockets`))))),
        el('dl', { class: 'restart' }, restartRow('polder', restart.polder), restartRow('polder-supervisor', restart.supervisor)));
});
