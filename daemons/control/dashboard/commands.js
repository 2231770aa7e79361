// SPDX-License-Identifier: BSD-2-Clause
// commands: the polderctl command that acts on what a row shows, to be copied. The page itself
// changes nothing.

const shellWord = word => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replace(/'/g, `'\\''`)}'`;

function command(...words) {
    const socket = data.overview?.socket;
    const at = socket && socket !== '/run/polder/admin.sock' ? ['-s', socket] : [];
    return ['polderctl', ...at, ...words].map(shellWord).join(' ');
}

async function copyText(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch { // no secure context: an address that is not loopback, without TLS
        const area = el('textarea', { class: 'hidden', 'aria-hidden': 'true' });
        area.value = text;
        document.body.append(area);
        area.select();
        const done = document.execCommand('copy');
        area.remove();
        return done;
    }
}

async function copyFrom(button) {
    const done = await copyText(button.dataset.command);
    speak(done ? 'Copied' : 'It could not be copied');
    const verb = button.querySelector('.verb');
    if (!done || !verb)
        return;
    button.dataset.done = '';
    setText(verb, 'copied ✓');
    setTimeout(() => {
        delete button.dataset.done;
        setText(verb, 'copy');
    }, 1600);
}

// shorter: what is shown of it
function copyButton(text, shorter = text) {
    return el('button', { type: 'button', class: 'copy', 'data-command': text, 'data-key': text, title: text, 'aria-label': `Copy: ${text}` },
        el('span', { class: 'verb' }, 'copy'), el('code', {}, shorter.replace(/^polderctl( -s \S+)? /, '')));
}

document.addEventListener('click', event => {
    const button = event.target.closest('button.copy');
    if (button)
        copyFrom(button);
});
