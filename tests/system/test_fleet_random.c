/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Three hosts with a shared cache, and whatever comes in random order: requests of all kinds for all kinds
 * of answers, changes, invalidations, and a store and processes that fail. No answer is older than what
 * its host was told, none has a wrong byte, none is another client's, and what is cold is fetched once.
 * Each world is made of a number, its seed: POLDER_LONG: 60 of them; FLEET_SEED, FLEET_WORLDS: those.
 */
#include "fleet_rig.h"
#include "things.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNDER_WAY 10
#define SLACK_MS  1500

struct asking {
    int fd; /* 0: none */
    struct thing_asked what;
    unsigned least, said; /* least: the oldest version that is good, said: how it was asked */
    bool may_be_lost;
};

static struct fleet fleet;
static struct things things;
static unsigned least[FLEET_HOSTS][THINGS]; /* versions that a host has been told of */
static unsigned posted[THINGS];             /* and of which all will soon know */
static uint64_t bumped_ms[THINGS];          /* a version ended then, of which nobody was told */
static unsigned bumped[THINGS];
static struct asking asking[UNDER_WAY];
static unsigned next_cold, ops;
static uint64_t seed;

static unsigned any(unsigned n)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (unsigned)(seed >> 11) % n;
}

#define wrong(...)                                                                                 \
    do {                                                                                           \
        fleet_show(&fleet);                                                                        \
        print_error("world %u, step %u: ", things.world, ops);                                     \
        fail_msg(__VA_ARGS__);                                                                     \
    } while (0)

static unsigned version_of(unsigned number)
{
    return number < THINGS ? atomic_load(&things.version[number]) : 1;
}

/* ---- requests ---- */

static bool may_be_stale(unsigned number)
{
    return thing_kind(number) == REFRESHED || thing_kind(number) == FORGIVING;
}

/* The oldest version that it may get from now on. */
static unsigned least_of(unsigned host, unsigned number)
{
    const enum thing_kind kind = thing_kind(number);
    const uint64_t said_ms = number < THINGS ? atomic_load(&things.said_ms[number]) : 0;
    if (number >= THINGS)
        return 1;
    if (kind == ASKED || kind == PRIVATE || kind == UNSTORED || kind == ALWAYS)
        return version_of(number);
    const uint64_t last_ms = said_ms > bumped_ms[number] ? said_ms : bumped_ms[number];
    if (kind == SHORT && bumped[number] > least[host][number] &&
        mono_ms() > last_ms + 1000 + SLACK_MS)
        return bumped[number];
    return least[host][number];
}

static const char *method_of(const struct asking *a)
{
    return a->what.is_head ? "HEAD" : "GET";
}

static void put_fields(const struct asking *a, char out[300])
{
    int n = 0;
    *out = 0;
    if (strcmp(a->what.lang, "-") != 0)
        n += snprintf(out + n, 300 - (size_t)n, "X-Lang: %s\r\n", a->what.lang);
    if (a->what.identity)
        n += snprintf(out + n, 300 - (size_t)n,
                      a->what.identity % 2 ? "Authorization: Bearer u%u\r\n"
                                           : "Cookie: session=u%u\r\n",
                      a->what.identity);
    if (a->what.is_range)
        n += snprintf(out + n, 300 - (size_t)n,
                      any(3) ? "Range: bytes=0-99\r\n" : "Range: bytes=1000-\r\n");
    if (a->what.is_conditional)
        snprintf(out + n, 300 - (size_t)n, "If-None-Match: \"%u-%u-%u\"\r\n", a->what.number,
                 version_of(a->what.number) - any(2), a->what.identity);
}

static void begin(struct asking *a)
{
    char path[64], fields[300];
    thing_path(&things, a->what.number, path);
    put_fields(a, fields);
    a->least = least_of(a->what.host, a->what.number);
    a->fd = client_connect(fleet.host[a->what.host].port);
    if (a->fd < 0)
        wrong("host %u takes no connection", a->what.host);
    client_send(a->fd, "%s %s HTTP/1.1\r\nHost: example.org\r\n%sConnection: close\r\n\r\n",
                method_of(a), path, fields);
}

/* The version that it shows; 0: none. */
static unsigned finish(struct asking *a)
{
    struct message m;
    unsigned version = 0;
    client_read(a->fd, &m, a->what.is_head);
    close(a->fd);
    a->fd = 0;
    const bool is_lost = a->may_be_lost && (!m.status || !m.complete || m.status / 100 == 5);
    const bool fails = thing_kind(a->what.number) == FORGIVING && m.status == 503;
    const char *flaw = is_lost || fails ? NULL : thing_judge(&things, &a->what, &m, &version);
    if (!flaw && version && version < a->least)
        flaw = "too old";
    if (flaw)
        wrong("%s of thing %u (kind %u) by %u at host %u, version %u, at least %u, now %u: %s\n%s",
              method_of(a), a->what.number, thing_kind(a->what.number), a->what.identity,
              a->what.host, version, a->least, version_of(a->what.number), flaw,
              m.head_len < 3000 ? m.head : "");
    message_free(&m);
    return version;
}

static void finish_all(void)
{
    for (unsigned i = 0; i < UNDER_WAY; i++)
        if (asking[i].fd)
            finish(&asking[i]);
}

static struct thing_asked any_request(void)
{
    static const char *const langs[] = {"de", "en", "fr"};
    struct thing_asked what = {.number = any(THINGS), .host = any(FLEET_HOSTS), .lang = "-"};
    const unsigned how = any(10);
    if (thing_kind(what.number) == VARYING && any(5))
        what.lang = langs[any(3)];
    if (!any(4))
        what.identity = 1 + any(4);
    what.is_head = how == 0;
    what.is_range = how == 1 || how == 2;
    what.is_conditional = how == 3 || how == 4;
    return what;
}

static void do_read(void)
{
    struct asking *a = &asking[any(UNDER_WAY)];
    if (a->fd)
        finish(a);
    *a = (struct asking){.what = any_request()};
    begin(a);
}

/* What it shows now, to a plain GET. */
static unsigned look(unsigned host, unsigned number)
{
    struct asking a = {.what = {.number = number, .host = host, .lang = "-"}};
    begin(&a);
    return finish(&a);
}

/* ---- changes ---- */

static void tell(unsigned host, unsigned number, unsigned version)
{
    if (least[host][number] < version)
        least[host][number] = version;
}

enum way { BY_URL, BY_PATH, BY_PREFIX, BY_TAG, BY_ALL, WAYS };

static bool is_meant(enum way way, unsigned of, unsigned number)
{
    switch (way) {
    case BY_PREFIX:
        return number % 2 == of % 2;
    case BY_TAG:
        return number % 3 == of % 3;
    case BY_ALL:
        return true;
    default:
        return number == of;
    }
}

static void put_way(enum way way, unsigned of, char out[100])
{
    char path[64];
    thing_path(&things, of, path);
    switch (way) {
    case BY_URL:
        snprintf(out, 100, "http://example.org%s", path);
        break;
    case BY_PATH:
        snprintf(out, 100, "%s", path);
        break;
    case BY_PREFIX:
        snprintf(out, 100, "--prefix /w%u/p%u/", things.world, of % 2);
        break;
    case BY_TAG:
        snprintf(out, 100, "--tag w%ut%u", things.world, of % 3);
        break;
    default:
        strcpy(out, "--all");
        break;
    }
}

/* True: it was told to all hosts that hear anything. */
static bool invalidate(unsigned host, const char *what, bool soft)
{
    const char *out;
    return ctl(&fleet.host[host], &out, "--json cache invalidate %s%s", what,
               soft ? " --soft" : "") == 0 &&
           strstr(out, "\"fleet\": \"member\"");
}

static void do_invalidate(void)
{
    const enum way way = any(20) ? any(BY_ALL) : BY_ALL;
    const unsigned of = any(THINGS), host = any(FLEET_HOSTS);
    const bool soft = !any(4);
    unsigned now[THINGS];
    char what[100];
    put_way(way, of, what);
    for (unsigned i = 0; i < THINGS; i++)
        now[i] = is_meant(way, of, i) ? atomic_fetch_add(&things.version[i], 1) + 1 : 0;
    if (!invalidate(host, what, soft)) {
        fleet_wait(&fleet, 30000);
        wait_until(invalidate(host, what, soft), 10000);
    }
    for (unsigned i = 0; i < THINGS; i++)
        for (unsigned k = 0; k < FLEET_HOSTS; k++)
            if (now[i] && !(soft && may_be_stale(i)))
                tell(k, i, now[i]);
}

/* By a request, with what changes beside. */
static void do_change(void)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH"};
    const unsigned number = any(THINGS), host = any(FLEET_HOSTS), also = any(THINGS);
    unsigned before[THINGS];
    char path[64], fields[100] = "";
    struct message m;
    thing_path(&things, number, path);
    if (thing_kind(number) == GROUPED && any(2))
        snprintf(fields, sizeof fields, "X-Group: %u\r\n", any(2));
    else if (any(2))
        snprintf(fields, sizeof fields, "X-Also: %u\r\n", also);
    for (unsigned i = 0; i < THINGS; i++)
        before[i] = version_of(i);
    const int fd = client_connect(fleet.host[host].port);
    client_send(fd,
                "%s %s HTTP/1.1\r\nHost: example.org\r\n%s%sContent-Length: 3\r\n"
                "Connection: close\r\n\r\nabc",
                methods[any(4)], path, fields, any(4) ? "" : "Authorization: Bearer u1\r\n");
    client_read(fd, &m, false);
    close(fd);
    if (m.status / 100 != 2)
        wrong("change of thing %u at host %u: status %d", number, host, m.status);
    message_free(&m);
    for (unsigned i = 0; i < THINGS; i++)
        if (version_of(i) > before[i]) {
            tell(host, i, version_of(i));
            posted[i] = version_of(i);
        }
}

/* Of that nobody is told. */
static void do_bump(void)
{
    const unsigned number = any(THINGS / THING_KINDS) * THING_KINDS + (any(2)   ? SHORT
                                                                       : any(2) ? REFRESHED
                                                                                : FORGIVING);
    bumped[number] = atomic_fetch_add(&things.version[number], 1) + 1;
    bumped_ms[number] = mono_ms();
}

/* What was changed by requests is seen everywhere. */
static void settle(void)
{
    fleet_wait(&fleet, 30000);
    for (unsigned i = 0; i < THINGS; i++)
        for (unsigned host = 0; host < FLEET_HOSTS && posted[i]; host++) {
            if (thing_kind(i) != FORGIVING)
                wait_until(look(host, i) >= posted[i], 10000);
            if (thing_kind(i) != FORGIVING)
                tell(host, i, posted[i]);
        }
    memset(posted, 0, sizeof posted);
}

/* ---- what is cold ---- */

static bool is_shared(enum thing_kind kind)
{
    return kind == PLAIN || kind == LONG || kind == VARYING || kind == NEGATIVE || kind == PUBLIC ||
           kind == ENCODED || kind == REFRESHED || kind == CHUNKED || kind == GROUPED;
}

/* How often the store was found too slow, or lost. */
static unsigned troubles(void)
{
    unsigned n = 0;
    for (int i = 0; i < FLEET_HOSTS; i++)
        n += fleet_number(&fleet.host[i], "late") + house_times_logged(&fleet.host[i], "cut off:");
    return n;
}

/* well: it is known that nothing fails. */
static void do_cold(bool well)
{
    struct asking all[2 * FLEET_HOSTS];
    const unsigned number = THINGS + next_cold++ % COLD_THINGS;
    const unsigned before = atomic_load(&things.calls[number]);
    const unsigned before_it = well ? troubles() : 0;
    const bool varies = thing_kind(number) == VARYING;
    for (unsigned i = 0; i < 2 * FLEET_HOSTS; i++) {
        all[i] = (struct asking){
            .what = {.number = number, .host = i % FLEET_HOSTS, .lang = varies ? "en" : "-"}};
        begin(&all[i]);
    }
    for (unsigned i = 0; i < 2 * FLEET_HOSTS; i++)
        finish(&all[i]);
    const unsigned calls = atomic_load(&things.calls[number]) - before;
    if (well && calls != 1 && is_shared(thing_kind(number)) && thing_fits(number) &&
        troubles() == before_it)
        wrong("thing %u (kind %u) was fetched %u times", number, thing_kind(number), calls);
}

/* ---- what fails ---- */

static void read_on(unsigned n)
{
    while (n--)
        do_read();
}

static void may_lose(unsigned host)
{
    for (unsigned i = 0; i < UNDER_WAY; i++)
        if (asking[i].what.host == host)
            asking[i].may_be_lost = true;
}

static void kill_one(unsigned host, const char *title)
{
    pid_t pid[8];
    const size_t n = house_children(&fleet.host[host], title, pid, 8);
    may_lose(host);
    if (n)
        kill(pid[any((unsigned)n)], SIGKILL);
}

static void stop_store(unsigned ms)
{
    const uint64_t end = mono_ms() + ms;
    kill(fleet.redis.pid, SIGSTOP);
    while (mono_ms() < end)
        read_on(1);
    kill(fleet.redis.pid, SIGCONT);
}

static void fill_store(const char *policy)
{
    redis_do(&fleet.redis, "CONFIG SET maxmemory-policy %s", policy);
    redis_do(&fleet.redis, "CONFIG SET maxmemory %s", *policy == 'n' ? "1000" : "2500000");
    read_on(20);
    do_cold(false);
    read_on(20);
    redis_do(&fleet.redis, "CONFIG SET maxmemory 0");
}

static void replace(unsigned host)
{
    finish_all();
    house_kill(&fleet.host[host]);
    house_run(&fleet.host[host]);
}

#define DISTURBANCES 14

static void disturb(unsigned which)
{
    const unsigned host = any(FLEET_HOSTS);
    switch (which % DISTURBANCES) {
    case 0:
        redis_do(&fleet.redis, "FLUSHALL");
        break;
    case 1:
        redis_kill(&fleet.redis);
        read_on(10);
        redis_run(&fleet.redis);
        break;
    case 2:
        stop_store(300);
        break;
    case 3:
        stop_store(3500);
        break;
    case 4:
        fill_store("noeviction");
        break;
    case 5:
        fill_store("volatile-random");
        break;
    case 6:
        kill_one(host, "polderd: control");
        break;
    case 7:
        kill_one(host, "polderd: keeper");
        break;
    case 8:
        finish_all();
        kill_one(host, "polderd: worker");
        nap_ms(100);
        break;
    case 9:
        replace(host);
        break;
    case 10:
        ctl(&fleet.host[host], NULL, "reload --wait");
        break;
    case 11:
        ctl(&fleet.host[host], NULL, "upgrade");
        break;
    case 12:
        redis_do(&fleet.redis,
                 "EVAL for\t_,k\tin\tipairs(redis.call('KEYS','*:%s:*'))\tdo\t"
                 "redis.call('DEL',k)\tend 0",
                 any(2) ? "o" : "f");
        break;
    case 13:
        redis_do(&fleet.redis, "SCRIPT FLUSH");
        break;
    }
    read_on(10);
    fleet_wait(&fleet, 30000);
}

/* ---- worlds ---- */

static void take_step(bool calm, unsigned n)
{
    const unsigned what = any(100);
    if (what < 60)
        do_read();
    else if (what < 68)
        do_invalidate();
    else if (what < 80)
        do_change();
    else if (what < 86)
        do_bump();
    else if (what < 90)
        do_cold(calm);
    else if (what < 92)
        atomic_store(&things.fails, any(2));
    else if (what < 96)
        atomic_store(&things.delay_ms, any(2) ? 1 + any(60) : 0);
    else if (what < 97)
        nap_ms(any(1200));
    else if (what < 98)
        settle();
    else if (!calm && n > 10)
        disturb(any(DISTURBANCES));
}

static void run_world(unsigned number, unsigned steps)
{
    things.world = number;
    seed = number * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (unsigned i = 0; i < THINGS; i++)
        for (unsigned host = 0; host < FLEET_HOSTS; host++)
            least[host][i] = 1;
    for (unsigned i = 0; i < THINGS; i++)
        atomic_store(&things.version[i], 1);
    memset(posted, 0, sizeof posted);
    memset(bumped, 0, sizeof bumped);
    atomic_store(&things.fails, false);
    fleet_wait(&fleet, 30000);
    for (ops = 0; ops < steps; ops++)
        take_step(number % 2 == 0, ops);
    finish_all();
    settle();
}

static unsigned count(const char *name, unsigned usual)
{
    const char *text = getenv(name);
    return text ? (unsigned)atoi(text) : usual;
}

static void whatever_comes_answers_are_right(void **state)
{
    (void)state;
    const unsigned first = count("FLEET_SEED", 1);
    const unsigned worlds = count("FLEET_WORLDS", getenv("POLDER_LONG") ? 60 : 2);
    const unsigned steps = count("FLEET_STEPS", getenv("POLDER_LONG") ? 1000 : 150);
    for (unsigned i = 0; i < worlds; i++) {
        const uint64_t began_ms = mono_ms();
        run_world(first + i, steps);
        printf("world %u: %u steps in %u ms\n", first + i, steps, (unsigned)(mono_ms() - began_ms));
    }
    for (int i = 0; i < FLEET_HOSTS; i++)
        printf("host %d: hits %u puts %u waits %u rejected %u\n", i,
               fleet_number(&fleet.host[i], "hits"), fleet_number(&fleet.host[i], "puts"),
               fleet_number(&fleet.host[i], "waits"), fleet_number(&fleet.host[i], "rejected"));
}

static int set_up(void **state)
{
    (void)state;
    things_start(&things);
    fleet = (struct fleet){.sharing = "shared = true shared_timeout = 2s ttl_negative = 60s "
                                      "leak_guard = 0",
                           .section = "cut_off = revalidate"};
    redis_start(&fleet.redis);
    for (int i = 0; i < FLEET_HOSTS; i++) {
        fleet.port = backend_port(things.backend[i]);
        fleet_start_host(&fleet, i, FLEET_SECRET);
    }
    fleet_wait(&fleet, 30000);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fleet_stop(&fleet);
    things_stop(&things);
    return 0;
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(whatever_comes_answers_are_right),
    };
    return cmocka_run_group_tests(stories, set_up, tear_down);
}
