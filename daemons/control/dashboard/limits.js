// SPDX-License-Identifier: BSD-2-Clause
// limits: refused clients. The busiest refusal first; limits without refusals last.

const quota = l => `${format.count(l.requests)} in ${format.duration(l.windowSeconds)}`;
const refusedMost = l => l.refusedMost.length
    ? el('span', {}, l.refusedMost.slice(0, 2).map((r, i) => [i ? ', ' : '', el('code', {}, r.key), ` ${format.count(r.refused)}×`]))
    : el('span', { class: 'quiet' }, 'none');

onChange(['limits', 'overview'], () => {
    const limits = data.limits?.limits;
    if (!limits?.length)
        return replace($('limits'), el('p', { class: 'empty' }, limits ? 'No limit is configured.' : 'Waiting for figures.'));
    replace($('limits'), table('Limits, and who was refused most in the last minutes', [
        { title: 'Limit', cell: l => [l.name, el('span', { class: 'sub' }, quota(l), l.changed ? ', changed' : '', l.dryRun ? ', dry run' : '')] },
        { title: 'State', cell: l => l.dryRun ? tag('plain', 'dry run') : l.refusedMost.length ? tag('warn', 'refusing') : tag('good', 'quiet') },
        { title: 'Admitted', num: true, class: 'wider', cell: l => format.count(l.admitted) },
        { title: 'Refused', num: true, cell: l => format.count(l.dryRun ? l.dryRunRefused : l.refused) },
        { title: 'Refused most', class: 'row', cell: refusedMost },
        { title: '', class: 'act', cell: l => l.refused || l.dryRunRefused ? copyButton(command('limit', 'top', l.name)) : null },
    ], [...limits].sort((a, b) => b.refusedMost.length - a.refusedMost.length || b.refused - a.refused), { key: l => l.name }));
});
