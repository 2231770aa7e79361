// SPDX-License-Identifier: BSD-2-Clause
// connections: how many there are and were, and what a restart would cost now.

const AGO = [['now', 'now'], ['15m', '15 min ago'], ['30m', '30 min ago'], ['60m', '60 min ago']];

const restartRow = (what, r) => r && el('div', {}, el('dt', {}, `Safe to restart ${what}:`),
    el('dd', {}, tag(r.safe ? 'good' : 'warn', r.safe ? 'yes' : 'no')), el('dd', { class: 'quiet' }, sentence(r.why)));

onChange(['overview'], () => {
    const { connections, restart } = data.overview;
    const rows = [['Clients', 'clients'], restart.supervisor && ['WebSockets', 'websockets']].filter(Boolean);
    replace($('connections'),
        table('Connections now and before', [{ title: 'Open', cell: r => r[0] }, ...AGO.map(([key, text]) => ({ title: text, num: true,
            cell: r => el('span', { class: key === 'now' ? 'lead' : null, 'data-figure': `${r[1]}-${key}` }, format.count(connections[key][r[1]])) }))], rows, { stacked: false }),
        el('dl', { class: 'restart' }, restartRow('polder', restart.polder), restartRow('polder-supervisor', restart.supervisor)));
});
