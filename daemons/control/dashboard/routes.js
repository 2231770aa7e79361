// SPDX-License-Identifier: BSD-2-Clause
// routes: what came to each, and when last; those that nobody has asked for in a day are dead.

const DEAD_S = 86400;
const lastHit = r => r.lastRequest ? serviceNow() / 1000 - r.lastRequest : null;
const upFor = () => serviceNow() / 1000 - (data.overview?.started ?? serviceNow() / 1000);
// WebSockets are counted by the supervisor
const isUnused = r => !r.websocket && r.requests === 0;
const isDead = r => !r.websocket && (r.requests ? lastHit(r) ?? 0 : upFor()) > DEAD_S;
const ago = s => s === null ? 'before this control ran' : s < 15 ? 'just now' : `${format.duration(s)} ago`.replace(/ \d+ s ago/, ' ago');

function routeState(r) {
    if (isDead(r))
        return tag('plain', r.requests ? 'dead: no request for a day' : 'dead: no request since the start');
    if (isUnused(r))
        return tag('plain', 'no request yet');
    return r.errors && r.errors > r.requests / 20 ? tag('bad', 'failing') : tag('good', r.websocket && !r.requests ? 'WebSockets' : 'in use');
}

function routeCommand(r) {
    if (!r.cached || isDead(r) || isUnused(r))
        return null;
    return r.hits ? command('cache', 'invalidate', ...(r.route.endsWith('*') ? ['--prefix', r.route.slice(0, -1)] : [r.route])) : null;
}

onChange(['routes', 'overview'], () => {
    const routes = data.routes?.routes;
    if (!routes?.length)
        return replace($('routes'), el('p', { class: 'empty' }, routes ? 'No route is configured.' : 'Waiting for figures.'));
    replace($('routes'), table('Routes', [
        { title: 'Route', cell: r => [el('code', {}, r.route), el('span', { class: 'sub' }, r.upstream || 'answered by Polder')] },
        { title: 'State', class: 'row', cell: routeState },
        { title: 'Last hit', cell: r => r.requests ? ago(lastHit(r)) : NONE },
        { title: 'Requests', num: true, cell: r => r.websocket && !r.requests ? NONE : format.count(r.requests) },
        { title: 'Hit rate', num: true, cell: r => r.cached ? format.ratio(r.hitRate) : el('span', { class: 'quiet' }, 'no cache') },
        { title: 'p95', num: true, cell: r => format.seconds(r.p95) },
        { title: 'Refused', num: true, wide: true, cell: r => format.count(r.refused) },
        { title: '', class: 'act wider', cell: r => routeCommand(r) && copyButton(routeCommand(r)) },
    ], [...routes].sort((a, b) => isDead(a) - isDead(b) || isUnused(a) - isUnused(b) || b.requests - a.requests), { key: r => r.route }));
});
