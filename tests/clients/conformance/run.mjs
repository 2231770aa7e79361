// SPDX-License-Identifier: BSD-2-Clause
// Runs the public HTTP cache test suite through a proxy and judges the result.
// usage: node run.mjs PROXY_URL ORIGIN_PORT [TEST_ID]
//   starts the suite's own origin server on ORIGIN_PORT; the proxy must forward to it.
// A test counts only if those it depends on pass, as on cache-tests.fyi. Exit status 0: every required test passes
// and at least 92 % of the optimal ones, those of refused.json aside.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import fetch from 'node-fetch'

const suite = path.dirname(createRequire(import.meta.url).resolve('http-cache-tests/package.json'))
const { runTests, getResults } = await import(path.join(suite, 'client/runner.mjs'))
const { default: tests } = await import(path.join(suite, 'tests/index.mjs'))
const [proxy, originPort, only] = process.argv.slice(2)
const refused = JSON.parse(readFileSync(new URL('refused.json', import.meta.url)))

const origin = spawn(process.execPath, ['--no-warnings', 'server/server.mjs'], {
  cwd: suite,
  stdio: 'ignore',
  env: { ...process.env, npm_config_protocol: 'http', npm_config_port: originPort, npm_config_pidfile: '/dev/null' }
})
process.on('exit', () => origin.kill())

async function originUp () {
  for (let i = 0; i < 200; i++) {
    try {
      await fetch(`http://localhost:${originPort}/`)
      return
    } catch { await new Promise(resolve => setTimeout(resolve, 50)) }
  }
  throw new Error('the origin server of the suite does not start')
}

const all = new Map(tests.flatMap(s => s.tests).map(t => [t.id, t]))
const results = {}
function passes (id, seen = new Set()) {
  if (seen.has(id) || results[id] !== true) return false
  seen.add(id)
  return (all.get(id)?.depends_on ?? []).every(d => passes(d, seen))
}

await originUp()
const chosen = only ? [{ name: 'one', id: 'one', tests: [{ ...all.get(only), dump: true }] }] : tests
await runTests(chosen, fetch, false, proxy)
Object.assign(results, getResults())
if (only) {
  console.log(only, results[only])
  process.exit(results[only] === true ? 0 : 1)
}

const count = { required: [0, 0], optimal: [0, 0], check: [0, 0] }
const aside = { required: 0, optimal: 0, check: 0 }
const failed = []
for (const [id, test] of all) {
  if (test.browser_only) continue
  const kind = test.kind ?? 'required'
  const ok = passes(id)
  if (id in refused && !ok) {
    aside[kind]++
    continue
  }
  count[kind][1]++
  if (ok) count[kind][0]++
  else if (kind !== 'check') failed.push([kind, id, results[id] === true ? 'a test it depends on fails' : results[id]?.join(': ')])
}
for (const [kind, id, why] of failed) console.log(`${kind}: ${id}: ${why}`)
for (const id in refused) console.log(`refused: ${id}: ${refused[id]}`)
const share = count.optimal[0] / count.optimal[1]
console.log(`conformance: required ${count.required.join('/')}, optimal ${count.optimal.join('/')} (${(100 * share).toFixed(1)} %), checks ${count.check.join('/')}; refused: ${aside.required} required, ${aside.optimal} optimal`)
process.exit(count.required[0] === count.required[1] && share >= 0.92 ? 0 : 1)
