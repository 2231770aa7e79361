// SPDX-License-Identifier: BSD-2-Clause
// dom: elements from plain values. Text is only ever set as text, so nothing that a client or a
// backend has sent can become markup.

const $ = id => document.getElementById(id);

// el('td', { class: 'num' }, 'text', node, null, ...)
function el(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes))
        if (typeof value === 'function')
            node.addEventListener(key, value);
        else if (value !== null && value !== undefined && value !== false)
            node.setAttribute(key, value === true ? '' : value);
    node.append(...children.flat(Infinity).filter(c => c !== null && c !== undefined && c !== false));
    return node;
}

const SVG = 'http://www.w3.org/2000/svg';
function svg(name, attributes = {}, ...children) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes))
        node.setAttribute(key, value);
    node.append(...children);
    return node;
}

function setText(node, text) {
    if (node.textContent !== text)
        node.textContent = text;
}

// Puts what is new in the place of what was there, unless it looks the same: what has the focus or
// is selected stays as long as nothing changes. What has the focus is found again by its data-key.
function replace(parent, ...nodes) {
    const made = document.createElement(parent.tagName);
    made.append(...nodes.flat().filter(Boolean));
    if (made.innerHTML === parent.dataset.made)
        return;
    const active = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const scroll = [...parent.querySelectorAll('.scroll')].map(s => [s.scrollTop, s.scrollLeft]);
    parent.dataset.made = made.innerHTML;
    parent.replaceChildren(...made.childNodes);
    parent.querySelectorAll('.scroll').forEach((s, i) => scroll[i] && ([s.scrollTop, s.scrollLeft] = scroll[i]));
    if (active)
        parent.querySelector(`[data-key="${CSS.escape(active)}"]`)?.focus({ preventScroll: true });
}

// columns: { title, num, wide, cell(row) }; the first one names its row. stacked: where there is
// little room a row becomes a block of lines, each with its title; roles keep it a table then.
const ROWS_MAX = 200;
function table(caption, columns, all, { key, stacked = true } = {}) {
    const rows = all.slice(0, ROWS_MAX), left = all.length - rows.length;
    const cls = c => [c.num && 'num', c.wide && 'wide', c.class].filter(Boolean).join(' ') || null;
    const cell = (row, c, i) => i ? el('td', { role: 'cell', class: cls(c), 'data-title': c.title || null }, el('span', {}, c.cell(row)))
        : el('th', { role: 'rowheader', scope: 'row', class: cls(c) }, c.cell(row));
    const head = c => c.title ? el('th', { role: 'columnheader', scope: 'col', class: cls(c) }, c.title) : el('td', { role: 'cell', class: cls(c) });
    return el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Table: ${caption}`, 'data-key': `scroll-${caption}` },
        el('table', { role: 'table', class: stacked ? 'stacked' : null }, el('caption', { class: 'hidden' }, caption),
            el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, columns.map(head))),
            el('tbody', { role: 'rowgroup' }, rows.map(row => el('tr', { role: 'row', 'data-row': key?.(row) }, columns.map((c, n) => cell(row, c, n)))))),
        left > 0 && el('p', { class: 'quiet' }, `${format.count(left)} more`));
}

// State in a word, a sign and a colour.
const SIGNS = { good: '✓', warn: '▲', bad: '✕', hint: 'i', plain: '○' };
const tag = (kind, text) => el('span', { class: `tag ${kind}` }, el('span', { 'aria-hidden': 'true' }, `${SIGNS[kind]} `), text);

let speaking = 0;
// Spoken by screen readers, politely, and only the last one of a hurry.
function speak(text) {
    clearTimeout(speaking);
    speaking = setTimeout(() => setText($('spoken'), text), 180);
}
