// SPDX-License-Identifier: BSD-2-Clause
// fleet: this host among those that share a store; nothing where there is no fleet.

const RATE_S = 10; // that invalidations a second are a mean of
let fleetCounts = []; // { at, sent, received }, the oldest first

function countFleet(f) {
    const last = fleetCounts.at(-1), at = serviceNow();
    if (last && (f.sent < last.sent || f.received < last.received))
        fleetCounts = []; // control has begun anew
    fleetCounts.push({ at, sent: f.sent, received: f.received });
    while (fleetCounts.length > 2 && fleetCounts[1].at <= at - RATE_S * 1000)
        fleetCounts.shift();
}

function fleetRate(which) {
    const first = fleetCounts[0], last = fleetCounts.at(-1);
    return last.at > first.at ? (last[which] - first[which]) / (last.at - first.at) * 1000 : null;
}

const hostTag = h => h.state === 'stranger' ? tag('warn', 'stranger') : h.state !== 'member' ? tag('bad', 'cut off') : h.lateSeconds > 3 ? tag('warn', 'late') : tag('good', 'member');
const behind = h => h.lag ? `${format.count(h.lag)} behind, ${format.seconds(h.lateSeconds)}` : 'none';
const fleetFact = (title, figure, ...value) => el('div', {}, el('dt', {}, title), el('dd', { 'data-figure': figure }, ...value));

const SERVER_TAG = { followed: 'good', replica: 'plain', unreachable: 'warn', master: 'bad', fenced: 'warn' };
const serverLine = s => el('div', {}, el('code', {}, s.server), ' ', tag(SERVER_TAG[s.state] ?? 'plain', s.state), s.why && el('span', { class: 'sub' }, s.why));

function fleetFacts(f) {
    const { cache, limits, slots } = f;
    return el('dl', { class: 'fleet' },
        fleetFact('This host', 'fleet-state', f.host, ' ', f.state === 'member' ? tag('good', 'member') : tag('bad', 'cut off'),
            el('span', { class: 'sub' }, `since ${format.duration(serviceNow() / 1000 - f.since)}`, f.why && `: ${f.why}; the cache does ${f.cutOff}`)),
        fleetFact('Store', 'fleet-store', f.servers.length ? f.servers.map(serverLine) : el('code', {}, f.store)),
        fleetFact('Invalidations', 'fleet-rates', `${format.rate(fleetRate('sent'))} out, ${format.rate(fleetRate('received'))} in`,
            el('span', { class: 'sub' }, `${format.count(f.sent)} and ${format.count(f.received)} in all`, f.pending ? `, ${format.count(f.pending)} to be sent` : '',
                f.gaps ? `, ${format.plural(f.gaps, 'gap')}` : '')),
        cache && fleetFact('Shared cache', 'fleet-cache', cache.inUse ? tag('good', 'in use') : tag('warn', 'left out'), ` ${format.plural(cache.hits, 'hit')}, ${format.plural(cache.misses, 'miss', 'misses')}`,
            el('span', { class: 'sub' }, `${format.count(cache.puts)} given, ${format.count(cache.outdated + cache.rejected)} not taken`)),
        limits && fleetFact('Limits', 'fleet-limits', limits.state === 'granted' ? tag('good', 'granted') : tag('warn', limits.state), ` ${format.count(limits.granted)} granted, ${format.plural(limits.refusals, 'refusal')}`,
            el('span', { class: 'sub' }, `${format.ratio(limits.share)} if cut off`, limits.aloneAdmitted + limits.aloneRefused ? `, ${format.count(limits.aloneAdmitted)} admitted and ${format.count(limits.aloneRefused)} refused alone` : '')),
        slots && fleetFact('Places', 'fleet-slots', slots.state === 'granted' ? tag('good', 'granted') : tag('warn', slots.state),
            ` ${format.count(slots.requestsInUse)} of ${format.plural(slots.requestsHeld, 'request')}, ${format.count(slots.websocketsInUse)} of ${format.plural(slots.websocketsHeld, 'WebSocket')}`,
            el('span', { class: 'sub' }, format.plural(slots.refusals, 'refusal'), slots.ended ? `, ${format.count(slots.ended)} ended` : '')),
        fleetFact('Strangers', 'fleet-strange', f.strange ? tag('warn', format.count(f.strange)) : 'none'));
}

onChange(['fleet', 'tick'], () => {
    const f = data.fleet;
    $('fleet-panel').hidden = !f;
    if (!f)
        return;
    countFleet(f);
    setText($('fleet-name'), f.fleet);
    replace($('fleet'), fleetFacts(f), table('Hosts of the fleet', [
        { title: 'Host', cell: h => [h.host, h.self && el('span', { class: 'sub' }, 'this one')] },
        { title: 'State', cell: hostTag },
        { title: 'Lease', num: true, cell: h => h.leaseSeconds > 0 ? format.seconds(h.leaseSeconds) : `ended ${format.duration(-h.leaseSeconds)} ago` },
        { title: 'Lag', num: true, cell: behind },
        { title: 'Version', cell: h => h.version || 'unknown' },
        { title: 'Last entry', num: true, cell: h => format.count(h.applied) },
    ], f.hosts, { key: h => h.host }), el('p', {}, copyButton(command('fleet'))));
});
onChange(['reconnected'], () => { fleetCounts = []; });
