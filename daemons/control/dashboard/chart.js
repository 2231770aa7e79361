// SPDX-License-Identifier: BSD-2-Clause
// chart: a curve over time that can be read with the eyes, by keys and by ear. uPlot draws; the
// cursor's values stand in the legend and are spoken, and a table has them all.

const cssColor = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const DASHES = { solid: [], dash: [7, 4], dots: [2, 3] };
const TABLE_ROWS = 20;
const isDecade = t => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-6;
const decades = (u, ticks) => ticks.map(t => isDecade(t) ? t : null);
const charts = [];

// spec: { id, title, format, range(min, max), series: [{ metric, name, color, dash, fill, value }] }
class Chart {
    constructor(spec, box, legend) {
        Object.assign(this, { spec, box, legend, data: [[], ...spec.series.map(() => [])], at: null });
        box.classList.add('chart');
        box.tabIndex = 0;
        box.setAttribute('role', 'application');
        box.setAttribute('aria-roledescription', 'chart');
        this.plotBox = el('div', { class: 'chart-box', 'aria-hidden': 'true' });
        this.nothing = el('div', { class: 'nothing' }, 'Nothing yet');
        this.when = el('div', { class: 'when', 'aria-hidden': 'true' });
        box.append(this.plotBox, this.nothing, this.when);
        box.addEventListener('keydown', event => this.key(event));
        box.addEventListener('blur', () => this.moveTo(null));
        new ResizeObserver(() => this.resize()).observe(this.plotBox);
        charts.push(this);
        this.setLabel();
    }

    setLabel() {
        this.box.setAttribute('aria-label', `${this.spec.title}, ${SPAN_TEXT[span]}. Arrow keys move the cursor.`);
    }

    // A fiftieth of a millisecond beside two seconds: whole powers of ten.
    yScale() {
        const { spec } = this;
        if (!spec.log)
            return { range: (u, min, max) => spec.range?.(min, max) ?? [0, max > 0 ? max * 1.15 : 1] };
        return { distr: 3, range: (u, min, max) => {
            const low = Math.floor(Math.log10(Math.max(min || .0001, 1e-6)));
            return [10 ** low, 10 ** Math.max(Math.ceil(Math.log10(max || 1)), low + 1)];
        } };
    }

    size() {
        return { width: Math.max(50, this.plotBox.clientWidth), height: Math.max(50, this.plotBox.clientHeight) };
    }

    resize() {
        const s = this.size();
        if (this.plot && (s.width !== this.plot.width || s.height !== this.plot.height))
            this.plot.setSize(s);
    }

    // Anew after a change of theme.
    build() {
        this.plot?.destroy();
        const { spec } = this, quiet = cssColor('--quiet'), grid = cssColor('--grid');
        const font = `${Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize) * .74)}px ${getComputedStyle(document.body).fontFamily}`;
        const axis = { stroke: quiet, font, ticks: { show: false }, grid: { stroke: grid, width: 1 } };
        this.plot = new uPlot({
            ...this.size(), padding: [8, 18, 0, 0], legend: { show: false },
            cursor: { y: false, points: { size: 7 }, sync: { key: 'polder' }, drag: { x: false, y: false } },
            scales: { x: { time: true }, y: this.yScale() },
            axes: [
                { ...axis, grid: { show: false }, size: 24, space: 40, values: (u, ticks) => ticks.map(t => new Date(t * 1000)
                    .toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })) },
                { ...axis, size: 58, gap: 6, space: spec.log ? 20 : 34, ...(spec.log ? { filter: decades, grid: { ...axis.grid, filter: decades } } : {}), values: (u, ticks) => ticks.map(t => t === null ? '' : (spec.axis ?? spec.format)(t)) },
            ],
            series: [{}, ...spec.series.map(s => ({
                label: s.name, stroke: cssColor(s.color), width: s.dash ? 1.5 : 2, dash: DASHES[s.dash ?? 'solid'],
                fill: s.fill ? cssColor(s.color) + '1f' : undefined, points: { show: false }, spanGaps: false,
            }))],
            hooks: { setCursor: [u => this.cursorMoved(u.cursor.idx)] },
        }, this.drawn(), this.plotBox);
    }

    // There is no 0 on a logarithmic scale.
    drawn() {
        return this.spec.log ? this.data.map((column, i) => i ? column.map(v => v > 0 ? v : null) : column) : this.data;
    }

    set(columns) {
        this.data = columns;
        this.nothing.hidden = columns.slice(1).some(c => c.some(isNumber));
        if (!this.plot)
            this.build();
        else
            this.plot.setData(this.drawn());
        this.setLabel();
        this.showLegend(this.at ?? undefined);
    }

    // ---- cursor ----

    cursorMoved(index) {
        if (this.at === null)
            this.showLegend(index);
    }

    moveTo(index) {
        const n = this.data[0].length;
        this.at = index === null || !n ? null : Math.max(0, Math.min(n - 1, index));
        if (!this.plot)
            return;
        this.plot.setCursor(this.at === null ? { left: -10, top: -10 }
            : { left: this.plot.valToPos(this.data[0][this.at], 'x'), top: 10 });
        this.showLegend(this.at);
        if (this.at !== null)
            speak(this.sayAt(this.at));
    }

    key(event) {
        const n = this.data[0].length, at = this.at ?? n;
        const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
        if (event.ctrlKey || event.altKey || event.metaKey || !n)
            return;
        if (step)
            this.moveTo(at + step);
        else if (event.key === 'Home')
            this.moveTo(0);
        else if (event.key === 'End')
            this.moveTo(n - 1);
        else if (event.key === 'Escape')
            this.moveTo(null);
        else
            return;
        event.preventDefault();
    }

    valueAt(i, index) {
        const s = this.spec.series[i];
        return (s.format ?? this.spec.format)(this.data[i + 1][index]);
    }

    sayAt(index) {
        return `${format.moment(this.data[0][index] * 1000, span)}: `
            + this.spec.series.map((s, i) => `${s.name} ${this.valueAt(i, index)}`.replace(NONE, 'nothing')).join(', ');
    }

    newest() {
        const column = this.data[1];
        for (let i = column.length - 1; i >= 0; i--)
            if (isNumber(column[i]))
                return i;
        return null;
    }

    showLegend(index) {
        const cursor = isNumber(index), at = cursor ? index : this.newest();
        replace(this.legend, this.spec.series.map((s, i) => el('span', {},
            svg('svg', { viewBox: '0 0 22 8', class: `s${s.color.slice(-1) === 't' ? 4 : s.color.slice(-1)}`, 'aria-hidden': 'true' },
                svg('path', { d: 'M1 4h20', stroke: 'currentColor', 'stroke-width': s.dash ? 2 : 2.5, 'stroke-dasharray': (DASHES[s.dash ?? 'solid']).join(' ') })),
            `${s.name} `, at === null ? '' : el('b', {}, this.valueAt(i, at)))));
        setText(this.when, cursor && this.data[0][at] ? format.moment(this.data[0][at] * 1000, span) : '');
    }

    // ---- table ----

    // Rows of equal length in time; a mean each, or the last value of what is a state.
    rows() {
        const [times] = this.data, rows = [], size = Math.max(1, Math.ceil(times.length / TABLE_ROWS));
        for (let end = times.length; end > 0; end -= size) {
            const begin = Math.max(0, end - size);
            rows.push([times[end - 1], ...this.data.slice(1).map(column => {
                const known = column.slice(begin, end).filter(isNumber);
                return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
            })]);
        }
        return rows;
    }

    openTable() {
        const columns = [{ title: 'Until', cell: row => format.moment(row[0] * 1000, span) },
            ...this.spec.series.map((s, i) => ({ title: s.name, num: true, cell: row => (s.format ?? this.spec.format)(row[i + 1]) }))];
        const id = `${this.spec.id}-table-title`;
        const dialog = el('dialog', { id: 'table-dialog', 'aria-labelledby': id },
            el('div', { class: 'head' }, el('h2', { id }, `${this.spec.title}, ${SPAN_TEXT[span]}`),
                el('form', { method: 'dialog' }, el('button', { class: 'tool', autofocus: true }, 'Close'))),
            el('p', { class: 'quiet' }, 'Means of equal stretches of time, the newest first.'),
            table(`${this.spec.title} in numbers`, columns, this.rows(), { stacked: false }));
        dialog.addEventListener('close', () => dialog.remove());
        document.body.append(dialog);
        dialog.showModal();
    }
}

function rebuildCharts() {
    for (const chart of charts)
        if (chart.plot)
            chart.build();
}
