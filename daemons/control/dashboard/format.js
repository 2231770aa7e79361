// SPDX-License-Identifier: BSD-2-Clause
// format: numbers as people read them. Every figure on the page is made here.

const NONE = '–';
const isNumber = x => typeof x === 'number' && Number.isFinite(x);
const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fixed = (x, digits) => x.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });

const format = {
    // 12,345 · 1.23 M
    count(x) {
        if (!isNumber(x))
            return NONE;
        return Math.abs(x) < 1e6 ? grouped.format(x) : Math.abs(x) < 1e9 ? `${fixed(x / 1e6, 2)} M` : `${fixed(x / 1e9, 2)} G`;
    },
    // 83.4 %
    ratio: x => isNumber(x) ? `${fixed(x * 100, x > .9995 && x < 1 ? 2 : 1)} %` : NONE,
    // 1.8 ms · 2.40 s
    seconds(x) {
        if (!isNumber(x))
            return NONE;
        if (x === 0)
            return '0 ms';
        if (x < .001)
            return `${fixed(x * 1e6, 0)} µs`;
        if (x < 1)
            return `${fixed(x * 1e3, x < .01 ? 2 : x < .1 ? 1 : 0)} ms`;
        return `${fixed(x, 2)} s`;
    },
    // of an axis: 100 ms
    secondsShort: x => x >= 1 ? `${x} s` : x >= .001 ? `${Math.round(x * 1e3)} ms` : `${Math.round(x * 1e6)} µs`,
    // 3 d 4 h · 5 min 2 s
    duration(s) {
        if (!isNumber(s))
            return NONE;
        const t = Math.max(0, Math.round(s)), parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
        const first = parts.findIndex(p => t >= p[0]);
        if (first < 0)
            return '0 s';
        const [size, unit] = parts[first], next = parts[first + 1];
        const rest = next ? Math.floor(t % size / next[0]) : 0;
        return `${Math.floor(t / size)} ${unit}` + (rest ? ` ${rest} ${next[1]}` : '');
    },
    // 12.3 /s
    rate: x => isNumber(x) ? `${x < 10 && x > 0 ? fixed(x, x < 1 ? 2 : 1) : format.count(Math.round(x))} /s` : NONE,
    bytes(x) {
        if (!isNumber(x))
            return NONE;
        const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
        let i = 0;
        for (; x >= 1024 && i < units.length - 1; i++)
            x /= 1024;
        return `${fixed(x, i && x < 100 ? 1 : 0)} ${units[i]}`;
    },
    money(x, currency) {
        if (!isNumber(x))
            return NONE;
        const digits = x !== 0 && Math.abs(x) < 1 ? 4 : 2;
        const sign = { EUR: '€', USD: '$', GBP: '£' }[currency];
        return sign ? `${x < 0 ? '−' : ''}${sign}${fixed(Math.abs(x), digits)}` : `${fixed(x, digits)} ${currency ?? ''}`;
    },
    clock: ms => new Date(ms).toLocaleTimeString('en-GB'),
    moment(ms, span) {
        const d = new Date(ms);
        return span === '24h' ? d.toLocaleString('en-GB', { weekday: 'short', hour: '2-digit', minute: '2-digit' }) : d.toLocaleTimeString('en-GB');
    },
    plural: (n, one, many = one + 's') => `${format.count(n)} ${n === 1 ? one : many}`,
};
