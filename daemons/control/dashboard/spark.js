// SPDX-License-Identifier: BSD-2-Clause
// spark: a curve of the size of a word. It repeats what a number beside it says, so it is decoration
// for those who do not see it.

function spark(values) {
    const known = values.filter(isNumber);
    const box = svg('svg', { class: 'spark', viewBox: '0 0 90 22', preserveAspectRatio: 'none', 'aria-hidden': 'true', focusable: 'false' });
    if (known.length < 2)
        return box;
    const top = Math.max(...known) || 1, step = 88 / (values.length - 1);
    let path = '', pen = false;
    values.forEach((v, i) => {
        if (isNumber(v))
            path += `${pen ? 'L' : 'M'}${(1 + i * step).toFixed(1)} ${(20 - v / top * 18).toFixed(1)}`;
        pen = isNumber(v);
    });
    box.append(svg('path', { d: path, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5, 'stroke-linejoin': 'round', 'vector-effect': 'non-scaling-stroke' }));
    return box;
}

function bar(share) {
    const width = Math.max(0, Math.min(1, share || 0)) * 100;
    return el('span', { class: 'bar-cell', 'aria-hidden': 'true' },
        svg('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none' }, svg('rect', { width: width.toFixed(1), height: 10, fill: 'currentColor' })));
}
