// SPDX-License-Identifier: BSD-2-Clause
// tail: the last requests, with what cache and limits decided.

const TAIL = 50;
const CACHE_TAGS = { hit: 'good', stale: 'warn', revalidated: 'good', collapsed: 'good', miss: 'plain', bypass: 'plain', none: 'plain' };
let tail = [], paused = false;

const statusKind = s => s >= 500 ? 'bad' : s >= 400 ? 'warn' : 'good';
const limitText = r => r.limited === 'refused' ? tag('warn', `refused by ${r.limit ?? '?'}`) : r.limited === 'admitted' ? `admitted by ${r.limit ?? '?'}` : NONE;

function showTail() {
    if (paused)
        return;
    if (!tail.length)
        return replace($('tail'), el('p', { class: 'empty' }, 'No request has come since this page looks.'));
    replace($('tail'), table('The last requests', [
        { title: 'Time', cell: r => format.clock(r.at) },
        { title: 'Status', cell: r => tag(statusKind(r.status), String(r.status)) },
        { title: 'Request', class: 'target', cell: r => `${r.method} ${r.target ?? ''}` },
        { title: 'Took', num: true, cell: r => r.us ? format.seconds(r.us / 1e6) : NONE },
        { title: 'Cache', cell: r => r.cache && r.cache !== 'none' ? tag(CACHE_TAGS[r.cache] ?? 'plain', r.cache) : NONE },
        { title: 'Limit', cell: limitText },
        { title: 'Key', wide: true, cell: r => r.key ? el('code', {}, r.key) : NONE },
        { title: 'Why', wide: true, cell: r => el('span', { class: 'quiet' }, [r.detail, r.standsFor ? `one of ${r.standsFor}` : ''].filter(Boolean).join(' · ')) },
    ], tail, { key: r => r.n, stacked: false }));
}

function pauseTail() {
    paused = !paused;
    $('tail-pause').setAttribute('aria-pressed', paused);
    setText($('tail-pause'), paused ? 'Go on' : 'Pause');
    showTail();
}

onChange(['requests'], () => {
    const last = tail[0]?.n ?? -1, begun = data.requests.some(r => r.n < last - 4000);
    const fresh = data.requests.filter(r => begun || r.n > last).reverse();
    tail = (begun ? fresh : [...fresh, ...tail]).slice(0, TAIL);
    showTail();
});
onChange(['overview'], () => tail.length || showTail());
$('tail-pause').addEventListener('click', pauseTail);
