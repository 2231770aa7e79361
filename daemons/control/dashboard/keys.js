// SPDX-License-Identifier: BSD-2-Clause
// keys: the keyboard, and the theme.

const THEMES = ['auto', 'light', 'dark'];
const stored = { get: () => { try { return localStorage.getItem('polder-theme'); } catch { return null; } },
    set: t => { try { localStorage.setItem('polder-theme', t); } catch { /* private window */ } } };
let theme = THEMES.includes(stored.get()) ? stored.get() : 'auto';

function showTheme() {
    if (theme === 'auto')
        delete document.documentElement.dataset.theme;
    else
        document.documentElement.dataset.theme = theme;
    setText($('theme'), `Theme: ${theme}`);
    rebuildCharts();
}

function nextTheme() {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    stored.set(theme);
    showTheme();
    speak(`Theme ${theme}`);
}

function copyNearest() {
    const row = document.activeElement?.closest('tr, .issue');
    const button = document.activeElement?.closest('button.copy') ?? row?.querySelector('button.copy') ?? document.querySelector('#issues button.copy');
    if (button)
        copyFrom(button);
}

const KEYS = {
    1: () => chooseSpan('5m'), 2: () => chooseSpan('1h'), 3: () => chooseSpan('24h'),
    c: copyNearest, p: pauseTail, t: nextTheme, '?': () => $('help').open || $('help').showModal(),
};
document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest('dialog'))
        return;
    if (KEYS[event.key]) {
        KEYS[event.key]();
        event.preventDefault();
    }
});
$('theme').addEventListener('click', nextTheme);
$('help-open').addEventListener('click', () => $('help').showModal());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', rebuildCharts);
