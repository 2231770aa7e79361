// SPDX-License-Identifier: BSD-2-Clause
// status: what is not well, first and in words, with what to do.

const SEVERITIES = ['error', 'warning', 'hint'];
const SEVERITY_TAG = { error: ['bad', 'error'], warning: ['warn', 'warning'], hint: ['hint', 'hint'] };

// "api/127.0.0.1:8001"
const serverOf = subject => [subject.slice(0, subject.indexOf('/')), subject.slice(subject.indexOf('/') + 1)];

// What to type, by what is wrong; the rest is in the runbook.
const CONDITION_COMMANDS = {
    draining: () => ['drain', '--off'],
    backend_down: c => c.subject.includes('/') ? ['upstream', 'weight', ...serverOf(c.subject), '0'] : ['upstream', 'list'],
    no_server_left: () => ['upstream', 'list'],
    name_unresolved: () => ['upstream', 'list'],
    supervisor_missing: () => ['ws', 'stats'],
    supervisor_hung: () => ['ws', 'stats'],
    process_hung: () => ['status'],
    disk_full: () => ['cache', 'stats'],
    store_off: () => ['cache', 'stats'],
    access_log_failed: () => ['log', 'reopen'],
    reload_failed: () => ['reload'],
    route_quarantined: c => ['cache', 'guard', '--release', c.subject],
    leak_guard_inconclusive: () => ['cache', 'guard'],
    identity_bypass: () => ['cache', 'guard'],
    limit_table_full: () => ['limit', 'list'],
    fleet_cut_off: () => ['fleet'],
    fleet_limit_cut_off: c => ['limit', 'show', c.subject],
    fleet_name_taken: () => ['fleet'],
    fleet_lag: () => ['fleet'],
    fleet_learning: () => ['fleet'],
    fleet_store_changed: () => ['fleet'],
    fleet_two_masters: () => ['fleet'],
    fleet_versions: () => ['fleet'],
    fleet_strangers: () => ['fleet'],
};
const ALERT_COMMANDS = {
    cache_hit_rate: () => ['cache', 'stats'],
    websockets: () => ['ws', 'list'],
    response_time: () => ['upstream', 'list'],
    memory: () => ['status'],
    server_errors: a => a.subject.includes('/') ? ['upstream', 'weight', ...serverOf(a.subject), '0'] : ['upstream', 'list'],
};
const ALERT_SEVERITY = { critical: 'error', warning: 'warning', info: 'hint' };

const sentence = text => text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.') : '';

function conditionIssues() {
    return (data.conditions?.conditions ?? []).map(c => ({
        severity: c.severity, name: c.condition, subject: c.subject, since: c.since * 1000,
        title: sentence(c.what).replace(/\.$/, ''), reason: c.reason, anchor: `condition-${c.condition}`,
        command: CONDITION_COMMANDS[c.condition]?.(c) ?? ['status'],
    }));
}

// A condition has an alert too: it is said once.
function alertIssues() {
    const conditions = new Set((data.conditions?.conditions ?? []).map(c => c.condition));
    return (data.alerts?.alerts ?? []).filter(a => a.state !== 'resolved' && !conditions.has(a.name)).map(a => ({
        severity: a.state === 'pending' ? 'hint' : ALERT_SEVERITY[a.severity] ?? 'warning', pending: a.state === 'pending',
        name: a.name, subject: a.subject, since: a.since * 1000, title: sentence(a.summary.split(': ')[0]).replace(/\.$/, ''),
        reason: a.summary.split(': ').slice(1).join(': '), action: a.action, anchor: (a.runbook || `alert ${a.name}`).replace(' ', '-'),
        command: (ALERT_COMMANDS[a.name] ?? (() => ['alert', 'list']))(a),
    }));
}

const withMarkup = html => {
    const box = el('span');
    box.innerHTML = html; // of the runbook, made at build time
    return box;
};

function issueNode(issue) {
    const [kind, word] = SEVERITY_TAG[issue.severity] ?? ['plain', issue.severity];
    const line = command(...issue.command);
    const action = ACTIONS[issue.anchor], known = issue.anchor in ACTIONS;
    return el('li', { class: 'issue', tabindex: -1 },
        el('div', { class: 'top' }, tag(kind, issue.pending ? 'pending' : word),
            el('h3', {}, issue.subject ? `${issue.subject}: ` : '', issue.title),
            el('time', { datetime: new Date(issue.since).toISOString() }, `since ${format.moment(issue.since, Date.now() - issue.since > 43200000 ? '24h' : '')}`)),
        issue.reason && el('p', { class: 'what' }, sentence(issue.reason)),
        action ? el('p', { class: 'do' }, el('b', {}, 'Do: '), withMarkup(action))
            : issue.action && el('p', { class: 'do' }, el('b', {}, 'Do: '), sentence(issue.action)),
        el('div', { class: 'after' }, copyButton(line),
            el('a', { href: known ? `/runbook#${issue.anchor}` : '/runbook', 'aria-label': `Runbook: ${issue.name}` }, 'Runbook')));
}

function wellText() {
    const o = data.overview;
    if (!o)
        return '';
    return [`${o.workers.ready} of ${format.plural(o.workers.wanted, 'worker')} ready`,
        o.workers.draining ? `${o.workers.draining} finishing` : '',
        `up ${format.duration((serviceNow() / 1000 - o.started))}`,
        o.ready ? 'takes traffic' : 'does not take traffic'].filter(Boolean).join(' · ');
}

function showStatus() {
    if (!data.overview || !data.conditions)
        return;
    const issues = [...conditionIssues(), ...alertIssues()]
        .sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) || a.since - b.since);
    const serious = issues.filter(i => i.severity !== 'hint');
    const state = serious.length ? serious[0].severity : data.overview.ready ? 'well' : 'warning';
    const box = $('status');
    box.dataset.state = state;
    setText($('status-title'), serious.length ? `${format.plural(serious.length, 'condition')} ${serious.length === 1 ? 'needs' : 'need'} attention`
        : state === 'well' ? 'All is well' : 'It does not take traffic yet');
    setText($('status-text'), wellText());
    replace($('issues'), issues.map(issueNode));
    document.title = serious.length ? `(${serious.length}) Polder` : 'Polder';
}
onChange(['overview', 'conditions', 'alerts'], showStatus);
setInterval(() => data.overview && setText($('status-text'), wellText()), 1000);

onChange(['overview'], () => {
    setText($('host'), data.overview.host);
    setText($('version'), `Polder ${data.overview.version}`);
});
