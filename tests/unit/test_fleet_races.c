/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Three hosts whose clocks differ, a store and the links between them, all in one process and in a time
 * that is simulated: links break, replies are lost, control and whole daemons are killed, the store
 * dies, keeps or loses its data, and fails over to one with another clock. The code of control, the
 * cells of grants and the scripts, run by a real Redis, are those of the product; each admission is
 * logged, and no window has more than the limit. POLDER_LONG: more seeds.
 */
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_limits.h"
#include "daemons/control/model/fleet_scripts.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/fleet_grants.h"
#include "polder/runtime.h"
#include "polder/shared.h"
#include "redis.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include <cmocka.h>

#define HOSTS      3
#define BEGIN      UINT64_C(1700000000000)
#define TIMEOUT_MS 20 /* fleet.limit_timeout */
#define LOG_MAX    400000
#define LOSSES_MAX 64

static const struct {
    const char *name;
    uint32_t algorithm, requests;
    uint64_t window_ms;
    bool closed;
    uint32_t dear; /* what each fourth request costs; 0: 1, as the others */
} keys[] = {{"fixed", RUNTIME_FIXED, 100, 1000, false, 0},
            {"sliding", RUNTIME_SLIDING, 90, 1000, false, 0},
            {"gcra", RUNTIME_GCRA, 60, 1000, false, 0},
            {"closed", RUNTIME_FIXED, 3, 500, true, 0},
            {"long fixed", RUNTIME_FIXED, 600, 20000, false, 0},
            {"long sliding", RUNTIME_SLIDING, 300, 10000, false, 0},
            {"long gcra", RUNTIME_GCRA, 400, 10000, false, 0},
            {"small gcra", RUNTIME_GCRA, 12, 1000, false, 0},
            {"costs", RUNTIME_SLIDING, 90, 1000, false, 7},
            {"costs gcra", RUNTIME_GCRA, 90, 1000, false, 7}};
#define KEYS (sizeof keys / sizeof *keys)

/* A script that is on its way. */
struct message {
    STAILQ_ENTRY(message) entry;
    enum fleet_script script;
    int n_keys, argc;
    char **argv;
    uint64_t arrives, returns; /* true time */
    redisReply *reply;         /* it has been there */
    fleet_reply_fn done;
    void *arg;
};

struct fleet { /* of fleet_limits: what it sees of this host's membership */
    unsigned host;
    uint64_t epoch;    /* that it follows; 0: cut off */
    uint64_t looks_at; /* true time: it notices another one then */
    STAILQ_HEAD(, message) messages;
    uint64_t last_arrival, last_return;
};

static struct host {
    struct fleet fleet;
    struct config_fleet config;
    struct shared shared;
    struct fleet_page page;
    struct fleet_limits *limits; /* NULL: no control */
    uint64_t control_at;         /* it is back then; 0: it is there */
    bool dead, cut;
    uint64_t clock;   /* its monotonic clock is ahead by that */
    uint64_t look_at; /* of control */
    bool woken;
    uint32_t waiting[KEYS]; /* requests */
    uint32_t waiting_dear[KEYS];
    uint64_t waiting_for[KEYS]; /* their end */
    unsigned rate[KEYS];        /* requests in 1000 ms */
    uint64_t share_log[KEYS][512];
    unsigned n_share[KEYS];
    uint64_t lost_at; /* what it knew; 0: never */
} hosts[HOSTS];

static struct redis redis;
static redisContext *link_to_redis;
static struct ev_loop *loop;
static char shas[FLEET_SCRIPTS][48];
static uint64_t now;         /* true time */
static int64_t store_offset; /* its clock is ahead by that */
static bool store_dead, store_changed_clock;
static uint64_t store_time_set;
static unsigned active; /* the host whose clock is asked for */
static uint64_t random_state;

static struct admission {
    uint32_t at, store_at; /* after BEGIN */
    uint8_t host, key;
} * admissions;
static unsigned n_admissions;
static struct loss {
    uint64_t at;
    bool late[HOSTS]; /* that host did not come to be learned */
    bool done;
} losses[LOSSES_MAX];
static unsigned n_losses;
static bool only_store; /* nothing else breaks, and its clock goes on */
static bool calm;       /* nothing breaks: what is refused must be used up */
static bool healed;     /* but in windows that had begun before */
static unsigned refusals, offered[KEYS];
/* What one bucket over all hosts would hold; the time is the true one. */
static struct {
    double level;
    uint64_t at;
} bucket[KEYS];

static uint64_t rnd(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

/* ---- what the parts of control ask for ---- */

uint64_t clock_mono_ms(void)
{
    const uint64_t exact = now - BEGIN + 1000000 + hosts[active].clock;
    return exact / CLOCK_COARSE_MS * CLOCK_COARSE_MS;
}

uint64_t clock_mono_ns(void)
{
    return clock_mono_ms() * 1000000;
}

uint64_t clock_real_ms(void)
{
    return now;
}

void clock_open(void)
{
}

void shared_wake_worker(const struct shared *sh, unsigned worker)
{
    (void)sh, (void)worker;
}

uint64_t fleet_epoch(const struct fleet *f)
{
    return f->epoch;
}

uint64_t fleet_epoch_ms(uint64_t epoch)
{
    return epoch / 1000000;
}

static uint64_t later(uint64_t *last, uint64_t ms)
{
    const uint64_t slow = rnd(200) ? rnd(3) : rnd(400);
    *last = *last > now + ms + slow ? *last : now + ms + slow;
    return *last;
}

bool fleet_run(struct fleet *f, enum fleet_script script, int n_keys, int argc, const char **argv,
               fleet_reply_fn done, void *arg)
{
    if (!f->epoch)
        return false;
    struct message *m = calloc(1, sizeof *m);
    *m = (struct message){.script = script,
                          .n_keys = n_keys,
                          .argc = argc,
                          .argv = calloc((size_t)argc, sizeof *m->argv),
                          .arrives = later(&f->last_arrival, 0),
                          .done = done,
                          .arg = arg};
    m->returns = later(&f->last_return, m->arrives - now);
    for (int i = 0; i < argc; i++)
        m->argv[i] = strdup(argv[i]);
    STAILQ_INSERT_TAIL(&f->messages, m, entry);
    return true;
}

/* ---- the store ---- */

static redisReply *store_do(int argc, const char **argv)
{
    redisReply *r = redisCommandArgv(link_to_redis, argc, argv, NULL);
    assert_non_null(r);
    return r;
}

static void store_set_time(void)
{
    char s[24], us[24];
    const uint64_t ms = now + (uint64_t)store_offset;
    if (store_time_set == ms)
        return;
    store_time_set = ms;
    snprintf(s, sizeof s, "%" PRIu64, ms / 1000);
    snprintf(us, sizeof us, "%" PRIu64, ms % 1000 * 1000);
    const char *argv[] = {"MSET", "now:s", s, "now:us", us};
    freeReplyObject(store_do(5, argv));
}

static void replace(char *text, size_t size, const char *from, const char *to)
{
    char *at = strstr(text, from);
    assert_non_null(at);
    char *rest = strdup(at + strlen(from));
    snprintf(at, size - (size_t)(at - text), "%s%s", to, rest);
    free(rest);
}

/* With the time that is simulated; keys do not end by the real one. */
static void store_load(enum fleet_script script, const char *text)
{
    char changed[32768];
    snprintf(changed, sizeof changed, "%s", text);
    replace(changed, sizeof changed, "redis.call('TIME')", "redis.call('MGET', 'now:s', 'now:us')");
    if (script != FLEET_SCRIPT_LIMIT_SHARE)
        replace(changed, sizeof changed, "'PEXPIRE', key, string.format('%.0f', ms)",
                "'PERSIST', key");
    const char *argv[] = {"SCRIPT", "LOAD", changed};
    redisReply *r = store_do(3, argv);
    assert_int_equal(r->type, REDIS_REPLY_STRING);
    snprintf(shas[script], sizeof shas[script], "%s", r->str);
    freeReplyObject(r);
}

static void store_run(struct message *m)
{
    const char *argv[512] = {"EVALSHA", shas[m->script]};
    char n[16];
    store_set_time();
    snprintf(n, sizeof n, "%d", m->n_keys);
    argv[2] = n;
    memcpy(argv + 3, m->argv, (size_t)m->argc * sizeof *argv);
    m->reply = store_do(m->argc + 3, argv);
    if (m->reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s", m->reply->str);
}

static void message_free(struct message *m)
{
    for (int i = 0; i < m->argc; i++)
        free(m->argv[i]);
    free(m->argv);
    if (m->reply)
        freeReplyObject(m->reply);
    free(m);
}

/* The link has ended; control: is there still, and hears of it. */
static void drop_messages(struct host *h, bool control)
{
    for (struct message *m; (m = STAILQ_FIRST(&h->fleet.messages));) {
        STAILQ_REMOVE_HEAD(&h->fleet.messages, entry);
        if (control)
            m->done(m->arg, NULL);
        message_free(m);
    }
}

static void cut_off(struct host *h)
{
    active = (unsigned)(h - hosts);
    h->fleet.epoch = 0;
    h->fleet.looks_at = now + rnd(700);
    drop_messages(h, h->limits != NULL);
}

static const char *store_epoch(void)
{
    static char text[32];
    const char *argv[] = {"GET", "polder:{sim}:epoch"};
    redisReply *r = store_do(2, argv);
    snprintf(text, sizeof text, "%s", r->type == REDIS_REPLY_STRING ? r->str : "");
    freeReplyObject(r);
    return text;
}

/* What fleet.c does: the first that finds no history makes one. */
static void enter(struct host *h)
{
    char epoch[32];
    if (h->cut || store_dead || !h->limits)
        return;
    if (!*store_epoch()) {
        snprintf(epoch, sizeof epoch, "%" PRIu64 "%06u", now + (uint64_t)store_offset,
                 (unsigned)rnd(1000000));
        const char *argv[] = {"SET", "polder:{sim}:epoch", epoch};
        freeReplyObject(store_do(3, argv));
    }
    const uint64_t epoch_now = strtoull(store_epoch(), NULL, 10);
    if (h->fleet.epoch && h->fleet.epoch != epoch_now)
        cut_off(h);
    else
        h->fleet.epoch = epoch_now;
}

static void end_history(bool data)
{
    const char *gone[] = {"DEL", "polder:{sim}:epoch"}, *all[] = {"FLUSHALL"};
    freeReplyObject(data ? store_do(1, all) : store_do(2, gone));
    store_time_set = 0;
    if (data && n_losses < LOSSES_MAX)
        losses[n_losses++] = (struct loss){.at = now};
}

/* ---- hosts ---- */

static void control_start(struct host *h)
{
    active = (unsigned)(h - hosts);
    h->fleet.looks_at = now + rnd(300);
    h->limits = fleet_limits_new(loop, &h->fleet, &h->config, &h->shared);
    fleet_limits_use(h->limits, true);
    h->control_at = 0;
}

/* Only what is in shared memory is left. */
static void control_kill(struct host *h)
{
    struct fleet_grants *g = h->shared.fleet_grants;
    if (!h->limits)
        return;
    const uint64_t until_ms = atomic_load(&g->until_ms);
    active = (unsigned)(h - hosts);
    h->fleet.epoch = 0;
    drop_messages(h, false); /* some had been in the store, and nobody knows */
    fleet_limits_free(h->limits);
    h->limits = NULL;
    atomic_store(&g->until_ms, until_ms);
    h->control_at = now + 1 + rnd(400);
}

static void host_forgets(struct host *h)
{
    struct fleet_grants *g = h->shared.fleet_grants;
    if (g)
        munmap(g, sizeof *g);
    g = mmap(NULL, sizeof *g, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0);
    assert_ptr_not_equal(g, MAP_FAILED);
    h->shared.fleet_grants = g;
    memset(h->waiting, 0, sizeof h->waiting);
    memset(h->waiting_dear, 0, sizeof h->waiting_dear);
    memset(h->n_share, 0, sizeof h->n_share);
}

static void host_kill(struct host *h)
{
    control_kill(h);
    host_forgets(h);
    h->lost_at = now;
    h->dead = true;
    h->control_at = now + 200 + rnd(3000);
    if (rnd(2))
        atomic_store(&h->page.instance, rnd(UINT64_MAX) | 1);
}

/* ---- requests ---- */

static uint32_t cost_of(unsigned key)
{
    return keys[key].dear && !rnd(4) ? keys[key].dear : 1;
}

static struct fleet_want ask_of(unsigned key, uint32_t cost)
{
    return (struct fleet_want){.key = key + 77,
                               .hash = {key + 1, 9},
                               .window_ms = keys[key].window_ms,
                               .requests = keys[key].requests,
                               .algorithm = keys[key].algorithm,
                               .cost = cost};
}

static double bucket_level(unsigned key)
{
    const double out =
        (double)(now - bucket[key].at) * keys[key].requests / (double)keys[key].window_ms;
    return bucket[key].level > out ? bucket[key].level - out : 0;
}

static void admit(struct host *h, unsigned key, uint32_t cost)
{
    assert_true(n_admissions + cost <= LOG_MAX);
    bucket[key].level = bucket_level(key) + cost;
    bucket[key].at = now;
    while (cost--)
        admissions[n_admissions++] = (struct admission){
            (uint32_t)(now - BEGIN), (uint32_t)(now - BEGIN + (uint64_t)store_offset + 100000),
            (uint8_t)(h - hosts), (uint8_t)key};
}

static void decide_alone(struct host *h, unsigned key, uint32_t cost)
{
    uint64_t wait_ms, *at = h->share_log[key];
    unsigned n = 0;
    if (keys[key].closed || !atomic_load(&h->page.limits_share))
        return; /* a fleet cannot count hosts that it has never seen */
    const struct fleet_terms terms = {keys[key].window_ms, keys[key].requests, keys[key].algorithm};
    const uint32_t max = fleet_share_of(h->shared.fleet_grants, &terms, clock_mono_ms(), &wait_ms);
    for (unsigned i = 0; i < h->n_share[key]; i++)
        if (at[i] + keys[key].window_ms > now)
            at[n++] = at[i];
    if (n + cost <= max) {
        admit(h, key, cost);
        while (cost--)
            at[n++] = now;
    }
    h->n_share[key] = n;
}

/* Used in the window by all, as the store counted it so long ago. */
static unsigned used_in_window(unsigned key, uint64_t ago)
{
    const uint64_t window = keys[key].window_ms,
                   at = now - BEGIN + (uint64_t)store_offset + 100000 - ago, zero = BEGIN - 100000;
    const uint64_t sub = keys[key].algorithm == RUNTIME_FIXED ? window : window / 5,
                   span = keys[key].algorithm == RUNTIME_FIXED ? 1 : 6;
    const uint64_t from = ((at + zero) / sub - span + 1) * sub - zero;
    unsigned n = 0;
    for (unsigned i = n_admissions; i-- > 0 && admissions[i].store_at >= from;)
        n += admissions[i].key == key;
    return n;
}

#define LATE_MS                                                                                    \
    15 /* a refusal may end so late, and that a request was used so long ago not be known */

static double used_of(unsigned key, uint64_t ago)
{
    if (keys[key].algorithm != RUNTIME_GCRA)
        return used_in_window(key, ago);
    return bucket_level(key) + (double)(ago * keys[key].requests) / (double)keys[key].window_ms;
}

/* What a host may hold: polder-limits(7). */
static uint32_t lease_of(unsigned key)
{
    const uint32_t dear = keys[key].dear * (keys[key].algorithm == RUNTIME_GCRA ? 2 : 1),
                   of = fleet_lease_of(hosts[0].shared.fleet_grants, keys[key].requests,
                                       keys[key].algorithm);
    return of > dear ? of : dear;
}

static void assert_used_up(unsigned key)
{
    const uint32_t lease = lease_of(key);
    double used = used_of(key, 0);
    if (healed && keys[key].window_ms > 1000)
        return;
    refusals++;
    if (used + HOSTS * lease < keys[key].requests)
        used = used_of(key, LATE_MS);
    if (used + HOSTS * lease < keys[key].requests)
        fail_msg("%s: refused at %" PRIu64 " ms though %.1f of %u were used", keys[key].name,
                 now - BEGIN, used, keys[key].requests);
}

static void request(struct host *h, unsigned key, uint32_t cost, bool last)
{
    struct fleet_grants *g = h->shared.fleet_grants;
    const uint64_t mono_ms = clock_mono_ms();
    struct fleet_want ask = ask_of(key, cost);
    const struct fleet_took took = fleet_grant_take(g, ask.key, ask.cost, mono_ms);
    if (took.result == FLEET_TAKE_DONE || took.result == FLEET_TAKE_LOW)
        admit(h, key, ask.cost);
    else if (took.result == FLEET_TAKE_REFUSED && calm)
        assert_used_up(key);
    const bool asks = took.result == FLEET_TAKE_LOW || (took.result == FLEET_TAKE_NONE && !last);
    if (fleet_grants_come(g, mono_ms) && asks) {
        h->woken |= fleet_grant_ask(g, (unsigned)rnd(2), &ask, mono_ms);
        if (took.result == FLEET_TAKE_NONE) {
            h->waiting_dear[key] += cost > 1;
            if (!h->waiting[key]++)
                h->waiting_for[key] = now + TIMEOUT_MS;
        }
    } else if (took.result == FLEET_TAKE_NONE) {
        decide_alone(h, key, ask.cost);
    }
}

static void retry_waiting(struct host *h, unsigned key)
{
    struct fleet_grants *g = h->shared.fleet_grants;
    const uint64_t mono_ms = clock_mono_ms();
    const bool over = now >= h->waiting_for[key] || !fleet_grants_come(g, mono_ms);
    uint32_t n = h->waiting[key], dear = h->waiting_dear[key];
    if (!n || !(over || fleet_grant_is_known(g, key + 77, dear < n ? 1 : keys[key].dear, mono_ms)))
        return;
    const uint64_t till = h->waiting_for[key];
    h->waiting[key] = h->waiting_dear[key] = 0;
    for (; n; n--) {
        request(h, key, dear ? keys[key].dear : 1, over);
        dear -= dear > 0;
    }
    if (h->waiting[key])
        h->waiting_for[key] = till;
}

/* ---- time ---- */

static void deliver(struct host *h)
{
    struct message *m;
    STAILQ_FOREACH (m, &h->fleet.messages, entry)
        if (!m->reply && m->arrives <= now)
            store_run(m);
    while ((m = STAILQ_FIRST(&h->fleet.messages)) && m->reply && m->returns <= now) {
        STAILQ_REMOVE_HEAD(&h->fleet.messages, entry);
        m->done(m->arg, m->reply);
        message_free(m);
    }
}

static void host_step(struct host *h)
{
    active = (unsigned)(h - hosts);
    if (h->control_at && now >= h->control_at) {
        h->dead = false;
        control_start(h);
    }
    if (h->limits) {
        deliver(h);
        if (now >= h->fleet.looks_at) {
            h->fleet.looks_at = now + 300 + rnd(300);
            enter(h);
        }
        if (now >= h->look_at) {
            h->look_at = now + 50;
            fleet_limits_look(h->limits);
        }
        if (h->woken)
            fleet_limits_take(h->limits);
        h->woken = false;
    }
    for (unsigned k = 0; k < KEYS && !h->dead; k++) {
        retry_waiting(h, k);
        for (unsigned at = (unsigned)rnd(1000); at < h->rate[k]; at += 1000) {
            offered[k]++;
            request(h, k, cost_of(k), false);
        }
    }
}

static void step(void)
{
    const unsigned first = (unsigned)rnd(HOSTS);
    for (unsigned i = 0; i < HOSTS; i++)
        host_step(&hosts[(first + i) % HOSTS]);
    for (unsigned i = 0; i < n_losses; i++) {
        struct loss *l = &losses[i];
        if (l->done || now < l->at + FLEET_LEASE_MS)
            continue;
        l->done = true;
        const uint64_t epoch = strtoull(store_epoch(), NULL, 10);
        for (unsigned k = 0; k < HOSTS; k++)
            l->late[k] = atomic_load(&hosts[k].shared.fleet_grants->epoch) != epoch || !epoch ||
                         (hosts[k].lost_at && hosts[k].lost_at + 21000 > l->at);
    }
    now++;
}

static void demand_changes(void)
{
    static const unsigned rates[] = {0, 2, 20, 150, 1000, 3000};
    struct host *h = &hosts[rnd(HOSTS)];
    const unsigned key = (unsigned)rnd(KEYS);
    h->rate[key] = rates[rnd(sizeof rates / sizeof *rates)];
    if (keys[key].window_ms > 1000 && h->rate[key] > 150)
        h->rate[key] = 150;
}

static void links_change(struct host *h)
{
    h->cut = !h->cut;
    if (h->cut)
        cut_off(h);
}

static void store_changes(bool loses)
{
    if (store_dead) {
        store_dead = false;
        return;
    }
    const bool data = loses && (only_store || rnd(3));
    end_history(data);
    if (data && !only_store && rnd(2)) {
        store_offset += rnd(2) ? 2000 : -2000;
        store_changed_clock = true;
    }
    if (rnd(3)) {
        store_dead = true;
        for (unsigned i = 0; i < HOSTS; i++)
            cut_off(&hosts[i]);
    }
}

static void mischief(bool loses)
{
    struct host *h = &hosts[rnd(HOSTS)];
    switch (only_store ? 3 : rnd(10)) {
    case 0:
    case 1:
        control_kill(h);
        break;
    case 2:
        host_kill(h);
        break;
    case 3:
    case 4:
        store_changes(loses);
        break;
    default:
        links_change(h);
    }
}

/* ---- what must hold ---- */

/* How much the sum of one key may be in [from, from + ms) of true time or, fixed, of the store's. */
static unsigned max_of(unsigned key, uint64_t ms)
{
    const uint32_t n = keys[key].requests;
    return keys[key].algorithm == RUNTIME_GCRA ? (unsigned)(n + n * ms / keys[key].window_ms) : n;
}

static bool counts(const struct admission *a, unsigned key, uint64_t from, uint64_t to)
{
    if (a->key != key)
        return false;
    for (unsigned i = 0; i < n_losses; i++) {
        const uint64_t at = losses[i].at - BEGIN;
        if (losses[i].late[a->host] && to > at && from <= at + keys[key].window_ms / 5 + 10)
            return false;
    }
    return true;
}

static void check_span(unsigned key, unsigned first, uint64_t from, uint64_t ms, bool by_store)
{
    unsigned n = 0;
    for (unsigned i = first; i < n_admissions; i++) {
        const struct admission *a = &admissions[i];
        const uint64_t at = by_store ? a->store_at : a->at;
        if (at >= from + ms)
            break;
        n += at >= from && counts(a, key, a->at - (at - from), a->at - (at - from) + ms);
    }
    if (n > max_of(key, ms))
        fail_msg("%s: %u in %" PRIu64 " ms from %" PRIu64 " ms on", keys[key].name, n, ms, from);
}

static void check_sums(unsigned key)
{
    const uint64_t ms = keys[key].window_ms;
    const bool fixed = keys[key].algorithm == RUNTIME_FIXED;
    if (fixed && store_changed_clock)
        return; /* there is no such window */
    uint64_t last = UINT64_MAX;
    for (unsigned i = 0; i < n_admissions; i++) {
        if (admissions[i].key != key)
            continue;
        uint64_t from = admissions[i].at;
        if (fixed)
            from = (admissions[i].store_at + BEGIN - 100000) / ms * ms - (BEGIN - 100000);
        if (from != last)
            check_span(key, i, from, ms, fixed);
        if (from != last && keys[key].algorithm == RUNTIME_GCRA)
            for (uint64_t span = ms / 50; span < 4 * ms; span *= 2)
                check_span(key, i, from, span, false);
        last = from;
    }
}

static void begin(unsigned seed)
{
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    now = BEGIN + rnd(1000000);
    store_offset = 0;
    n_admissions = n_losses = refusals = 0;
    store_dead = store_changed_clock = false;
    memset(offered, 0, sizeof offered);
    memset(bucket, 0, sizeof bucket);
    end_history(true);
    n_losses = 0;
    for (unsigned i = 0; i < HOSTS; i++) {
        struct host *h = &hosts[i];
        *h = (struct host){.clock = i * 2003 + rnd(4), .config = {.name = "sim"}};
        static const char *const names[] = {"amber", "birch", "cedar"};
        h->config.host = names[i];
        h->fleet.host = i;
        STAILQ_INIT(&h->fleet.messages);
        h->shared.fleet = &h->page;
        atomic_store(&h->page.instance, rnd(UINT64_MAX) | 1);
        host_forgets(h);
        control_start(h);
    }
}

static void end(void)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        control_kill(&hosts[i]);
        munmap(hosts[i].shared.fleet_grants, sizeof(struct fleet_grants));
    }
    for (unsigned key = 0; key < KEYS; key++)
        check_sums(key);
}

static void demand_ends(void)
{
    for (unsigned i = 0; i < HOSTS; i++)
        memset(hosts[i].rate, 0, sizeof hosts[i].rate);
}

/* Whatever was broken, all of a limit can be used again when its windows are over. */
static void heal(void)
{
    store_dead = false;
    for (unsigned i = 0; i < HOSTS; i++)
        hosts[i].cut = false;
    demand_ends();
    for (const uint64_t until = now + 9000; now < until;)
        step();
    calm = healed = true;
    for (const uint64_t until = now + 4000; now < until;) {
        if (now % 100 == 0)
            demand_changes();
        step();
    }
    demand_ends();
    calm = healed = false;
}

static void play(unsigned seed, uint64_t ms, bool breaks, bool loses)
{
    uint64_t next_demand = 0, next_mischief;
    begin(seed);
    /* First all become members: a fleet of which no host has come back cannot be told from a new one. */
    next_mischief = now + 8000;
    calm = false;
    for (const uint64_t until = now + ms; now < until;) {
        if (now >= next_demand) {
            demand_changes();
            next_demand = now + rnd(200);
        }
        if (breaks && now >= next_mischief) {
            mischief(loses);
            next_mischief = now +
                            (store_dead   ? 700
                             : only_store ? 7000
                                          : 0) +
                            rnd(rnd(4) ? 1500 : 8000);
        }
        if (!breaks && now > until - ms + 8000)
            calm = true; /* all are members, and have their shares */
        step();
    }
    if (breaks)
        heal();
    end();
}

static unsigned seeds(unsigned brief, unsigned full)
{
    return getenv("POLDER_LONG") ? full : brief;
}

/* ---- stories ---- */

static void nobody_is_refused_while_more_than_a_lease_of_each_host_is_left(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= seeds(2, 40); seed++) {
        play(seed, 30000, false, false);
        print_message("seed %u: %u admitted, %u refusals\n", seed, n_admissions, refusals);
        assert_true(refusals > 1000);
    }
}

static void no_window_has_more_than_the_limit_whatever_breaks(void **state)
{
    (void)state;
    for (unsigned seed = 1001; seed <= 1000 + seeds(4, 100); seed++) {
        print_message("seed %u", seed);
        play(seed, 48000, true, false);
        print_message(": %u admitted\n", n_admissions);
    }
}

static void after_a_loss_those_that_are_there_have_no_more_than_the_limit(void **state)
{
    (void)state;
    for (unsigned seed = 2001; seed <= 2000 + seeds(4, 100); seed++) {
        print_message("seed %u", seed);
        play(seed, 48000, true, true);
        print_message(": %u admitted, %u losses\n", n_admissions, n_losses);
    }
}

/* All come back in time, and know what was taken; the windows that have begun before go on. */
static void nothing_is_forgotten_where_only_the_store_has_lost_its_data(void **state)
{
    (void)state;
    only_store = true;
    for (unsigned seed = 3001; seed <= 3000 + seeds(4, 60); seed++) {
        print_message("seed %u", seed);
        play(seed, 60000, true, true);
        unsigned late = 0;
        for (unsigned i = 0; i < n_losses; i++)
            for (unsigned k = 0; k < HOSTS; k++)
                late += losses[i].done && losses[i].late[k];
        print_message(": %u admitted, %u losses, %u hosts were late\n", n_admissions, n_losses,
                      late);
    }
    only_store = false;
}

/* Of a start that finds no store: the part that it had last, or a tenth. */
static void a_host_that_starts_has_the_part_that_it_had_last(void **state)
{
    (void)state;
    static const struct fleet_terms second = {1000, 600, RUNTIME_SLIDING};
    struct host *h = &hosts[0];
    struct fleet_grants *g;
    uint64_t wait_ms;
    begin(1);
    for (unsigned i = 0; i < 2; i++) {
        g = h->shared.fleet_grants;
        assert_false(fleet_grants_come(g, clock_mono_ms()));
        active = 0;
        /* that of an earlier run may have a lease yet */
        const uint64_t from_ms = clock_mono_ms() + (i ? 2000 : 0);
        assert_int_equal(fleet_share_of(g, &second, from_ms + 1200, &wait_ms), 0);
        assert_in_range(wait_ms, 1, 20);
        assert_int_equal(fleet_share_of(g, &second, from_ms + 1210, &wait_ms), i ? 199 : 60);
        if (i)
            break;
        for (unsigned ms = 0; ms < 10000; ms++)
            step(); /* all become members */
        host_kill(h);
        store_dead = true;
        while (h->dead)
            step();
    }
    end();
}

static int set_up(void **state)
{
    (void)state;
    redis_start(&redis);
    link_to_redis = redisConnectUnix(redis.sock);
    loop = ev_loop_new(0);
    admissions = calloc(LOG_MAX, sizeof *admissions);
    store_load(FLEET_SCRIPT_LIMIT_SHARE, fleet_script_limit_share);
    store_load(FLEET_SCRIPT_LIMIT_REPORT, fleet_script_limit_report);
    store_load(FLEET_SCRIPT_LIMIT_TAKE, fleet_script_limit_take);
    return !admissions;
}

static int tear_down(void **state)
{
    (void)state;
    redisFree(link_to_redis);
    redis_remove(&redis);
    ev_loop_destroy(loop);
    free(admissions);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_that_starts_has_the_part_that_it_had_last),
        cmocka_unit_test(nobody_is_refused_while_more_than_a_lease_of_each_host_is_left),
        cmocka_unit_test(no_window_has_more_than_the_limit_whatever_breaks),
        cmocka_unit_test(nothing_is_forgotten_where_only_the_store_has_lost_its_data),
        cmocka_unit_test(after_a_loss_those_that_are_there_have_no_more_than_the_limit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
