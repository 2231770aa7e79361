// SPDX-License-Identifier: BSD-2-Clause
// What polder-runbook(7) says, for the page at /runbook and, entry by entry, for the dashboard. Reads
// the part of mdoc that the manual uses.

const escape = text => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
const plain = text => escape(text.replace(/\\&/g, '').replace(/\\-/g, '-').replace(/\\\(aq/g, "'").replace(/\\\(dq/g, '"').replace(/\\\([lr]q/g, '"').replace(/\\\(em/g, '—').replace(/\\ /g, ' ').replace(/\\e/g, '\\')
    .replace(/\\\(bu/g, '•').replace(/\\fB|\\fR|\\fI|\\fP/g, ''));

// "a "b c" d" as mdoc cuts it
const words = line => [...line.matchAll(/"((?:[^"]|"")*)"|(\S+)/g)].map(m => m[1] ?? m[2]);
const isClosing = word => /^[.,;:?!)\]]$/.test(word);

const inline = {
    Ql: 'code', Pa: 'code', Ic: 'code', Li: 'code', Cm: 'code', Ar: 'code', Va: 'code', Dv: 'code', Er: 'code', Fl: 'code',
    Dl: 'code', Ev: 'code', Sy: 'b', Em: 'em', Nm: 'code',
};

function macro(name, args) {
    const tail = [];
    while (args.length && isClosing(args[args.length - 1]))
        tail.unshift(args.pop());
    if (name === 'Xr')
        return `${plain(args[0])}(${plain(args[1] ?? '')})` + tail.join('');
    const text = args.map(plain).join(' ');
    if (name === 'Dq')
        return `“${inner(args)}”` + tail.join('');
    if (name === 'Sq')
        return `‘${inner(args)}’` + tail.join('');
    if (name === 'Pq')
        return `(${inner(args)})` + tail.join('');
    if (name === 'Fl')
        return `<code>-${text}</code>` + tail.join('');
    if (inline[name])
        return `<${inline[name]}>${text}</${inline[name]}>` + tail.join('');
    return text + tail.join('');
}
const inner = args => inline[args[0]] || args[0] === 'Xr' ? macro(args[0], args.slice(1)) : args.map(plain).join(' ');

// { sections: [{ title, blocks: [{ kind: 'text'|'code'|'item', id, title, html }] }] }
export function readRunbook(source) {
    const sections = [];
    let section = null, block = null, code = null;
    const begin = (kind, more) => {
        block = { kind, html: '', ...more };
        section.blocks.push(block);
    };
    for (const line of source.split('\n')) {
        if (line.startsWith('.\\"') || line === '')
            continue;
        const [, name, rest] = /^\.([A-Za-z]+)\s*(.*)$/.exec(line) ?? [];
        if (code && name !== 'Ed') {
            code.html += plain(line) + '\n';
        } else if (name === 'Sh' || name === 'Ss') {
            section = { title: plain(rest), deep: name === 'Ss', blocks: [] };
            sections.push(section);
            block = null;
        } else if (!section || ['Dd', 'Dt', 'Os', 'Bl', 'El'].includes(name)) {
            if (name === 'El')
                block = null;
        } else if (name === 'Bd') {
            begin('code');
            code = block;
        } else if (name === 'Ed') {
            code = block = null;
        } else if (name === 'It') {
            const title = words(rest).filter(w => !inline[w] && w !== 'Dq').join(' ');
            const [, kind, id] = /^(condition|alert) (\S+)/.exec(title) ?? [];
            begin('item', { title: plain(title), id: kind ? `${kind}-${id}` : null });
        } else if (name === 'Pp') {
            if (block?.kind !== 'item')
                block = null;
        } else {
            if (!block)
                begin('text');
            const html = name ? macro(name, words(rest)) : plain(line);
            block.html += (block.html && !/^[.,;:]$/.test(html) ? ' ' : '') + html;
        }
    }
    return sections.filter(s => s.blocks.length);
}

// "Symptom: ... See: ... Do: ... Worked: ..." into its parts
const part = /(?:^|\s)(Symptom|See|Do|Worked): /;
export function parts(html) {
    const cut = html.split(part), found = {};
    for (let i = 1; i + 1 < cut.length; i += 2)
        found[cut[i].toLowerCase()] = cut[i + 1].trim();
    return found;
}

const capital = html => html.replace(/^[a-z]/, letter => letter.toUpperCase());
function itemHtml(block) {
    const { symptom, see, do: action, worked } = parts(block.html);
    const rows = [['Symptom', symptom], ['How to see it', see], ['What to do', action], ['How to know it worked', worked]]
        .filter(row => row[1]);
    const body = rows.length ? `<dl>${rows.map(([t, d]) => `<div><dt>${t}</dt><dd>${capital(d)}</dd></div>`).join('')}</dl>`
        : `<p>${block.html}</p>`;
    return `<article${block.id ? ` id="${block.id}"` : ''}><h3>${block.title}</h3>${body}</article>`;
}

export function runbookHtml(sections) {
    return sections.filter(s => !['NAME', 'SEE ALSO'].includes(s.title)).map(s =>
        `<section>${s.title === 'DESCRIPTION' ? '' : `<h2>${s.title}</h2>`}` + s.blocks.map(b =>
            b.kind === 'code' ? `<pre tabindex="0">${b.html}</pre>` : b.kind === 'item' ? itemHtml(b) : `<p>${b.html}</p>`).join('\n') + '</section>').join('\n');
}

// What the dashboard says beside a condition or an alert: { "condition-NAME": HTML of what to do }
export function actions(sections) {
    const found = {};
    for (const block of sections.flatMap(s => s.blocks))
        if (block.id)
            found[block.id] = capital(parts(block.html).do ?? '');
    return found;
}
