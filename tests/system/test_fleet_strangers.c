/* SPDX-License-Identifier: BSD-2-Clause */
/* Who else can write to the store may take hosts out of its list and entries out of the log, or put others
 * there: an invalidation is not acknowledged before each host that has a lease has it, nothing stands
 * still, and it is told. */
#include "fleet_host.h"
#include "fleet_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

#define MORE                                                                                       \
    "limit \"few\" { requests = 1000 window = 1s key = \"global\" scope = fleet concurrent = 50 "  \
    "}\n"                                                                                          \
    "route \"/limited/*\" { upstream = \"u\" limits = {\"few\"} }\n"

/* Two hosts are enough. */
static void start(struct fleet *f)
{
    *f = (struct fleet){.sharing = "shared = true", .port = backend_port(backend), .routes = MORE};
    redis_start(&f->redis);
    for (int i = 0; i < 2; i++)
        fleet_start_host(f, i, FLEET_SECRET);
    for (int i = 0; i < 2; i++)
        wait_until(fleet_says(&f->host[i], "state     member"), 8000);
}

static unsigned seen(struct house *h)
{
    struct message m;
    assert_int_equal(fleet_get(h, "/a", "", &m), 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

static bool has_condition(struct house *h, const char *text)
{
    const char *out;
    ctl(h, &out, "--json status");
    return strstr(out, text) != NULL;
}

/* Both serve what is there, once it is acknowledged. */
static void expect_told(struct fleet *f, int by)
{
    const char *out;
    for (int i = 0; i < 2; i++)
        wait_until(seen(&f->host[i]) == atomic_load(&backend_version), 8000);
    atomic_fetch_add(&backend_version, 1);
    if (ctl(&f->host[by], &out, "cache invalidate /a") || strstr(out, "cut off"))
        fail_msg("%s", out);
    for (int i = 0; i < 2; i++)
        assert_int_equal(seen(&f->host[i]), atomic_load(&backend_version));
}

static pid_t control_of(struct house *h)
{
    pid_t pid;
    assert_int_equal(house_children(h, "polderd: control", &pid, 1), 1);
    return pid;
}

static void what_was_seen_with_a_lease_is_waited_for(void **state)
{
    (void)state;
    static const struct fleet_host_is sloth = {
        .fleet = "test", .secret = FLEET_SECRET, .host = "sloth", .instance = 0xabc};
    struct fleet f;
    const char *out;
    start(&f);
    wait_until((fleet_host_put(&f.redis, &sloth), fleet_says(&f.host[0], "\nsloth  no    member")),
               8000);
    fleet_host_put(&f.redis, &sloth);
    const uint64_t from_ms = mono_ms();
    nap_ms(700); /* so that it has been seen again */
    redis_do(&f.redis, "HDEL polder:{test}:hosts sloth h1");
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /a"), 0);
    assert_true(mono_ms() >= from_ms + 3000);
    assert_non_null(strstr(out, "sloth"));
    wait_until(has_condition(&f.host[1], "taken out of the list by another program"), 5000);
    /* all of them, as a store does that wants room */
    redis_do(&f.redis, "DEL polder:{test}:hosts");
    expect_told(&f, 0);
    fleet_stop(&f);
}

/* h1 reads one, and while it does not look the next one comes and goes. */
static void what_was_taken_out_of_the_log_is_noticed(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    start(&f);
    wait_until(seen(&f.host[1]) == atomic_load(&backend_version), 8000);
    const pid_t control = control_of(&f.host[1]);
    kill(control, SIGSTOP);
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /x --local"), 0);
    wait_until(atoi(redis_do(&f.redis, "XLEN polder:{test}:log")) >= 1, 3000);
    const int before = atoi(redis_do(&f.redis, "GET polder:{test}:count"));
    atomic_fetch_add(&backend_version, 1);
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /a --local"), 0);
    wait_until(atoi(redis_do(&f.redis, "GET polder:{test}:count")) > before, 3000);
    redis_do(&f.redis, "XTRIM polder:{test}:log MAXLEN 0");
    kill(control, SIGCONT);
    wait_until(seen(&f.host[1]) == atomic_load(&backend_version), 5000);
    wait_until(fleet_says(&f.host[1], "lag       0") && fleet_says(&f.host[1], "state     member"),
               5000);
    redis_do(&f.redis, "DEL polder:{test}:log");
    expect_told(&f, 0);
    expect_told(&f, 1);
    fleet_stop(&f);
}

/* More between two numbers than are read at once. */
static void what_strangers_add_holds_up_nothing(void **state)
{
    (void)state;
    struct fleet f;
    start(&f);
    expect_told(&f, 0);
    redis_do(&f.redis,
             "EVAL \"for i=1,1000 do "
             "redis.call('XADD',KEYS[1],redis.call('GET',KEYS[2])..'-'..i,'e','x') end\" 2 "
             "polder:{test}:log polder:{test}:count");
    expect_told(&f, 0);
    expect_told(&f, 1);
    assert_int_equal(fleet_number(&f.host[0], "strange"), 1000);
    /* hosts, too, and such as nobody has signed */
    redis_do(&f.redis,
             "EVAL \"local t=redis.call('TIME') for i=1,100000 do "
             "redis.call('HSET',KEYS[1],'x'..i,'abc 1 0 '..string.format('%%.0f',t[1]*1000+2000)) "
             "end\" 1 polder:{test}:hosts");
    wait_until(atoi(redis_do(&f.redis, "HLEN polder:{test}:hosts")) <= 256 &&
                   fleet_says(&f.host[0], "state     member") &&
                   fleet_says(&f.host[1], "state     member"),
               20000);
    expect_told(&f, 1);
    for (int i = 0; i < 2; i++)
        assert_false(house_logged(&f.host[i], "died"));
    fleet_stop(&f);
}

/* Of another type than it has, each key of the fleet that is there. */
#define AT_ONCE 3
static void any_key_may_hold_something_else(void **state)
{
    (void)state;
    static const char *const keys[] = {"log",         "count", "epoch",
                                       "hosts",       "run",   "stored",
                                       "shares",      "fence", "slots:%s:holders",
                                       "slots:%s:all"};
    struct fleet f;
    struct message m;
    start(&f);
    const pid_t control = control_of(&f.host[0]);
    const size_t n = sizeof keys / sizeof *keys;
    for (size_t from = 0; from < n; from += AT_ONCE) {
        char epoch[40], name[80];
        snprintf(epoch, sizeof epoch, "%s", redis_do(&f.redis, "GET polder:{test}:epoch"));
        for (int set = 1; set >= 0; set--) {
            for (size_t i = from; i < from + AT_ONCE && i < n; i++) {
                snprintf(name, sizeof name, keys[i], epoch);
                redis_do(&f.redis, "DEL polder:{test}:%s", name);
                if (set)
                    redis_do(&f.redis,
                             i % 2 ? "RPUSH polder:{test}:%s x" : "SET polder:{test}:%s x", name);
            }
            if (set) {
                fleet_get(&f.host[0], "/limited/a", "", &m); /* or its limit refuses it */
                message_free(&m);
                nap_ms(600); /* longer than a renewal */
            }
        }
        for (int h = 0; h < 2; h++)
            wait_until(fleet_says(&f.host[h], "state     member"), 10000);
    }
    expect_told(&f, 0);
    assert_int_equal(control_of(&f.host[0]), control);
    fleet_stop(&f);
}

static void a_host_that_was_taken_away_is_forgotten(void **state)
{
    (void)state;
    struct fleet f;
    struct message m;
    const char *out;
    char holders[100];
    start(&f);
    snprintf(holders, sizeof holders, "polder:{test}:slots:%s:holders",
             redis_do(&f.redis, "GET polder:{test}:epoch"));
    wait_until((fleet_get(&f.host[1], "/limited/a", "", &m), message_free(&m),
                atoi(redis_do(&f.redis, "HLEN %s", holders)) == 2),
               8000);
    assert_int_not_equal(ctl(&f.host[0], &out, "fleet forget h1"), 0);
    if (!strstr(out, "h1 is a member"))
        fail_msg("%s", out);
    assert_int_not_equal(ctl(&f.host[0], &out, "fleet forget h9"), 0);
    assert_non_null(strstr(out, "no host of the fleet is called h9"));
    house_kill(&f.host[1]);
    wait_until(fleet_says(&f.host[0], "\nh1    no    cut off"), 8000);
    assert_int_equal(ctl(&f.host[0], &out, "fleet forget h1"), 0);
    if (!strstr(out, "held places  yes"))
        fail_msg("%s", out);
    wait_until(!fleet_says(&f.host[0], "\nh1 "), 5000);
    wait_until(atoi(redis_do(&f.redis, "HLEN %s", holders)) == 1, 5000);
    house_run(&f.host[1]); /* it was not away for good */
    wait_until(fleet_says(&f.host[1], "state     member") &&
                   fleet_says(&f.host[0], "\nh1    no    member"),
               10000);
    expect_told(&f, 0);
    redis_kill(&f.redis);
    wait_until(fleet_says(&f.host[0], "state     cut off"), 8000);
    assert_int_not_equal(ctl(&f.host[0], &out, "fleet forget h1"), 0);
    assert_non_null(strstr(out, "this host is cut off from its fleet"));
    fleet_stop(&f);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(what_was_seen_with_a_lease_is_waited_for),
        cmocka_unit_test(what_was_taken_out_of_the_log_is_noticed),
        cmocka_unit_test(what_strangers_add_holds_up_nothing),
        cmocka_unit_test(any_key_may_hold_something_else),
        cmocka_unit_test(a_host_that_was_taken_away_is_forgotten),
    };
    return run_with_backend(stories, &backend, backend_tells_version);
}
