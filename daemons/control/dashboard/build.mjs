// SPDX-License-Identifier: BSD-2-Clause
// Joins the dashboard's sources, uPlot and what to do from the runbook into pages that need nothing
// else, and writes them as C. usage: node build.mjs OUT.c
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { actions, readRunbook, runbookHtml } from './runbook.mjs';

const GZIP_MAX = 100_000;
const here = name => new URL(name, import.meta.url);
const read = name => readFileSync(here(name), 'utf8');

const scripts = ['format', 'dom', 'store', 'spark', 'chart', 'charts', 'commands', 'status', 'figures', 'limits', 'servers',
    'routes', 'fleet', 'connections', 'money', 'events', 'tail', 'keys', 'main'];

const hash = text => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
// functions: '$' in a replacement string would mean something
const fill = (html, parts) => html.replace(/<!-- (\w+) -->/g, (_, name) => parts[name]);

function page(template, parts, style, script) {
    const text = fill(template, { ...parts, style: `<style>${style}</style>`, script: script ? `<script>${script}</script>` : '' });
    const policy = [`default-src 'none'`, script ? `script-src ${hash(script)}` : '', `style-src ${hash(style)}`, `connect-src 'self'`,
        `img-src data:`, `base-uri 'none'`, `form-action 'none'`, `frame-ancestors 'none'`].filter(Boolean).join('; ');
    const plain = Buffer.from(text), gzip = gzipSync(plain, { level: 9 });
    gzip.fill(0, 4, 8); // no time in it: the same sources make the same bytes
    return { plain, gzip, policy };
}

const bytes = buffer => [...buffer].join(',').replace(/(.{1,150}),/g, '$1,\n');
const asset = (name, p) => `static const unsigned char ${name}_plain[] = {\n${bytes(p.plain)}};
static const unsigned char ${name}_gzip[] = {\n${bytes(p.gzip)}};
const struct dashboard_asset dashboard_${name} = {"${p.policy}",
    ${name}_plain, ${name}_gzip, sizeof ${name}_plain, sizeof ${name}_gzip};
`;

const runbook = readRunbook(read('../../../admin/man/polder-runbook.7'));
const icon = 'data:image/svg+xml,' + encodeURIComponent(read('icon.svg').trim());
const uplot = read('node_modules/uplot/dist/uPlot.iife.min.js');
const style = read('node_modules/uplot/dist/uPlot.min.css') + read('style.css');
const script = `${uplot}\n(() => {\n'use strict';\nconst ACTIONS = ${JSON.stringify(actions(runbook)).replace(/</g, '\\u003c')};\n`
    + scripts.map(name => read(name + '.js')).join('\n') + '})();\n';
const index = page(read('index.html'), { icon, mark: read('icon.svg') }, style, script);
const book = page(read('runbook.html'), { icon, runbook: runbookHtml(runbook) }, read('style.css'), '');
if (index.gzip.length > GZIP_MAX)
    throw new Error(`the dashboard takes ${index.gzip.length} bytes compressed; at most ${GZIP_MAX} are allowed`);
writeFileSync(process.argv[2], `/* Made by daemons/control/dashboard/build.mjs. */
#include "daemons/control/ops/dashboard.h"

${asset('index', index)}
${asset('runbook', book)}`);
console.log(`dashboard: ${index.plain.length} bytes, ${index.gzip.length} compressed`);
