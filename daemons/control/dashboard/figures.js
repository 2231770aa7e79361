// SPDX-License-Identifier: BSD-2-Clause
// figures: the numbers of the chosen span, each above its curve.

const currency = () => data.cost?.currency ?? 'EUR';
// The line below which an alert begins; null: there is none.
const hitRateTarget = () => data.overview?.targets?.hitRate ?? null;
const percent = x => `${Math.round(x * 100)} %`;
const here = () => data.overview?.windows[span];
const fact = (name, value) => el('span', {}, `${name} `, el('b', {}, value));
const share = (part, whole) => whole > 0 ? part / whole : null;

const FIGURES = [
    {
        id: 'hit-rate', title: 'Hit rate', format: format.ratio, axis: x => `${Math.round(x * 100)} %`, range: () => [0, 1],
        series: [{ metric: 'hitRate', name: 'hit rate', color: '--c1', fill: true },
            { constant: hitRateTarget, name: 'target', color: '--target', dash: 'dash' }],
        show(w) {
            const above = w.hitRate === null || hitRateTarget() === null ? null : w.hitRate >= hitRateTarget();
            return [[format.ratio(w.hitRate), w.hitRate === null ? el('span', { class: 'beside' }, 'nothing that may be cached was asked for')
                : above !== null && tag(above ? 'good' : 'warn', above ? `above ${percent(hitRateTarget())}` : `below ${percent(hitRateTarget())}`)],
            [fact('hits', format.count(w.hits)), fact('misses', format.count(w.misses)), fact('stored now', format.count(data['cache-stats']?.items))]];
        },
    },
    {
        id: 'calls', title: 'Backend calls', format: format.rate,
        series: [{ metric: 'avoidedCalls', name: 'avoided', color: '--c1', fill: true },
            { metric: 'backendCalls', name: 'made', color: '--c2', dash: 'dash' }],
        show(w) {
            const of = share(w.avoidedCalls, w.avoidedCalls + w.backendCalls);
            return [[format.count(w.avoidedCalls), el('span', { class: 'beside' }, `avoided, ${format.count(w.backendCalls)} made`)],
                [fact('avoided share', format.ratio(of)), fact('requests', format.count(w.requests))]];
        },
    },
    {
        id: 'latency', title: 'Response time', format: format.seconds, axis: format.secondsShort, log: true,
        series: [{ metric: 'p50', name: 'p50', color: '--c1' }, { metric: 'p95', name: 'p95', color: '--c2' },
            { metric: 'p99', name: 'p99', color: '--c3', dash: 'dash' }],
        show: w => [[w.requests ? format.seconds(w.p95) : NONE, el('span', { class: 'beside' }, '95 % of answers took less')],
            [fact('p50', w.requests ? format.seconds(w.p50) : NONE), fact('p99', w.requests ? format.seconds(w.p99) : NONE), fact('answers 5xx', format.count(w.errors))]],
    },
    {
        id: 'websockets', title: 'WebSockets', format: x => format.count(x), range: (min, max) => [0, Math.max(max, 1) * 1.12],
        series: [{ metric: 'wsOpen', name: 'open', color: '--c1', fill: true }, { metric: 'wsMax', name: 'limit', color: '--target', dash: 'dash' }],
        show() {
            const ws = data['websocket-health'];
            if (!ws)
                return [[NONE], []];
            if (ws.supervisor === 'not needed')
                return [[el('span', { class: 'beside' }, 'No route has WebSockets')], []];
            if (ws.activeConnections === null)
                return [[NONE, tag('bad', `supervisor: ${ws.supervisor}`)], []];
            const full = ws.activeConnections >= ws.maxConnections && ws.maxConnections > 0;
            return [[format.count(ws.activeConnections), el('span', { class: 'unit' }, `of ${format.count(ws.maxConnections)}`), full && tag('warn', 'full')],
                [fact('heartbeats answered', ws.heartbeatsSent ? format.ratio(ws.heartbeatSuccess) : NONE), fact('refused', format.count(ws.refused)), fact('reaped', format.count(ws.reaped)), el('span', {}, 'since the start')]];
        },
    },
    {
        id: 'refused', title: 'Refused by limits', format: format.rate,
        series: [{ metric: 'limitRefused', name: 'refused', color: '--c2', fill: true }, { metric: 'errors', name: 'answers 5xx', color: '--c3', dash: 'dash' }],
        show: w => [[format.count(w.refused), el('span', { class: 'beside' }, w.requests ? `${format.ratio(share(w.refused, w.requests))} of ${format.count(w.requests)} requests` : 'no requests')], []],
    },
    {
        id: 'savings', title: 'Saved', format: x => isNumber(x) ? `${format.money(x, currency())} /h` : NONE, axis: x => format.money(x, currency()).replace(/\.?0+$/, ''),
        series: [{ metric: 'savings', name: 'saved', color: '--c1', fill: true }, { metric: 'cost', name: 'paid', color: '--c2', dash: 'dash' }],
        show(w) {
            const month = share(w.savings, w.seconds);
            return [[format.money(w.savings, currency()), el('span', { class: 'beside' }, `paid ${format.money(w.estimatedCost, currency())}`)],
                [fact('a month like that', month === null ? NONE : format.money(month * 30 * 86400, currency()))]];
        },
    },
];

function makeFigure(spec) {
    const big = el('p', { class: 'big' }), facts = el('p', { class: 'facts' }), legend = el('div', { class: 'legend' }), box = el('div');
    const chart = new Chart(spec, box, legend);
    $('figures').append(el('article', { class: 'panel figure', id: `figure-${spec.id}`, 'aria-labelledby': `figure-${spec.id}-title` },
        el('div', { class: 'head' }, el('h3', { id: `figure-${spec.id}-title` }, spec.title),
            el('button', { type: 'button', class: 'tool table-open', 'aria-haspopup': 'dialog', 'aria-label': `${spec.title} as a table`, click: () => chart.openTable() }, 'Table')),
        big, facts, box, legend));
    onChange(['overview', 'websocket-health', 'cost', 'span'], () => {
        const w = here();
        if (!w)
            return;
        const [first, second] = spec.show(w);
        replace(big, first.map(x => typeof x === 'string' ? el('span', { 'data-figure': spec.id }, x) : x));
        replace(facts, second, spec.id !== 'websockets' && w.seconds < SPAN_S[span] * .98 ? el('span', {}, `counted for ${format.duration(w.seconds)}`) : null);
    });
    onChange(['history'], () => chart.set([history.times,
        ...spec.series.map(s => s.constant ? history.times.map(s.constant) : history.columns[s.metric] ?? history.times.map(() => null))]));
}
FIGURES.forEach(makeFigure);
