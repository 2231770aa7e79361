// SPDX-License-Identifier: BSD-2-Clause
// servers: backends side by side.

const SERVER_TAGS = { up: 'good', down: 'bad', 'slow start': 'warn', drained: 'plain' };
const serverName = s => `${s.upstream}/${s.server}`;
const serverCommand = s => s.state === 'drained' ? command('upstream', 'weight', s.upstream, s.server, String(s.fileWeight || 1))
    : s.state === 'down' || s.errors ? command('upstream', 'weight', s.upstream, s.server, '0') : null;

onChange(['upstreams', 'overview', 'sparks'], () => {
    const servers = data.upstreams?.servers;
    if (!servers?.length)
        return replace($('servers'), el('p', { class: 'empty' }, servers ? 'No upstream is configured.' : 'Waiting for figures.'));
    replace($('servers'), table('Servers', [
        { title: 'Server', cell: s => [s.server, el('span', { class: 'sub' }, s.upstream)] },
        { title: 'State', cell: s => tag(SERVER_TAGS[s.state] ?? 'plain', s.state) },
        { title: 'Weight', num: true, cell: s => s.weight === s.fileWeight ? format.count(s.weight) : `${format.count(s.weight)} (file: ${format.count(s.fileWeight)})` },
        ...(servers.some(s => typeof s.shiftPercent === 'number') ? [{ title: 'Shift', num: true, cell: s => typeof s.shiftPercent !== 'number' ? '' : [`${s.shiftPercent} %`, el('span', { class: 'sub' }, `${format.ratio(s.shiftErrorRate)} errors, ${s.shiftGuard}`)] }] : []),
        { title: 'p50', num: true, cell: s => format.seconds(s.p50) },
        { title: 'p95', num: true, cell: s => format.seconds(s.p95) },
        { title: 'p95 over time', num: true, wide: true, cell: s => spark(sparks[serverName(s)] ?? []) },
        { title: 'Errors', num: true, cell: s => [format.count(s.errors), s.errors ? el('span', { class: 'sub' }, format.ratio(share(s.errors, s.requests))) : null] },
        { title: 'Requests', num: true, class: 'wider', cell: s => format.count(s.requests) },
        { title: '', class: 'act', cell: s => serverCommand(s) && copyButton(serverCommand(s)) },
    ], servers, { key: serverName }));
});
