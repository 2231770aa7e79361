// SPDX-License-Identifier: BSD-2-Clause
// money: what was saved by what, and a month of it.

const OPTIMISATIONS = { polling: 'Polls answered within their interval', websocket: 'WebSockets that were reaped', caching: 'Answers from the cache', rateLimiting: 'Requests over a limit' };

onChange(['cost'], () => {
    const c = data.cost, all = Object.values(c.byOptimisation).reduce((a, b) => a + (b ?? 0), 0);
    const hour = c.projections.lastHour, start = c.projections.sinceStart, month = hour ?? start;
    if (!all && !c.estimatedCost && c.apiCalls)
        return replace($('money'), el('p', { class: 'empty' }, 'Calls have no price: ', el('code', {}, 'cost { upstream_call = ... }'), ' in polder.conf gives them one.'));
    replace($('money'),
        el('p', {}, el('span', { class: 'total', 'data-figure': 'saved' }, format.money(c.savingsRealized, c.currency)), ' ',
            el('span', { class: 'quiet' }, `saved since the start, ${format.money(c.estimatedCost, c.currency)} paid for ${format.count(c.apiCalls)} calls`)),
        table('Savings by optimisation', [
            { title: 'By', cell: ([name]) => OPTIMISATIONS[name] ?? name },
            { title: 'Share', wide: true, cell: ([, value]) => bar(all ? value / all : 0) },
            { title: 'Saved', num: true, cell: ([, value]) => format.money(value, c.currency) },
        ], Object.entries(c.byOptimisation), { key: row => row[0], stacked: false }),
        month && el('p', { class: 'quiet' }, `A month like ${hour ? 'the last hour' : 'since the start'}: `, el('b', {}, format.money(month.savings, c.currency)), ` saved, ${format.money(month.estimatedCost, c.currency)} paid.`));
});
