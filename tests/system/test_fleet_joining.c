/* SPDX-License-Identifier: BSD-2-Clause */
/* A host that joins a fleet takes what the others have shared before it came, and nothing that was
 * invalidated since, whoever has put it back. */
#include "fleet_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static struct fleet fleet = {.sharing = "shared = true shared_timeout = 10s"};
static _Atomic unsigned version = 1;

static bool answers(struct asked *ask)
{
    char body[32];
    if (!strcmp(ask->method, "POST"))
        return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
    snprintf(body, sizeof body, "%u", atomic_load(&version));
    if (strstr(ask->target, "tagged"))
        return reply_ok(ask, "Cache-Control: max-age=300\r\nCache-Tag: t\r\n", body);
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", body);
}

static unsigned see(int host, const char *path)
{
    struct message m;
    assert_int_equal(fleet_get(&fleet.host[host], path, "", &m), 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

/* Fetched by that host, and in the store. */
static void share(int host, const char *path)
{
    const unsigned puts = fleet_number(&fleet.host[host], "puts");
    see(host, path);
    wait_until(fleet_number(&fleet.host[host], "puts") == puts + 1, 5000);
}

static void invalidate(int host, const char *what)
{
    const char *out;
    assert_int_equal(ctl(&fleet.host[host], &out, "cache invalidate %s", what), 0);
}

/* So many entries in the log; for those nobody waits. */
static void note(int host, unsigned n)
{
    const unsigned sent = fleet_number(&fleet.host[host], "sent");
    for (unsigned i = 0; i < n; i++)
        fleet_post(&fleet.host[host], "/changed");
    for (int i = 0; i < FLEET_HOSTS; i++) {
        wait_until(fleet_number(&fleet.host[host], "sent") == sent + n, 5000);
        wait_until(fleet_number(&fleet.host[i], "applied") ==
                       fleet_number(&fleet.host[host], "applied"),
                   5000);
    }
}

static void replace(int host)
{
    if (fleet.host[host].pid)
        house_remove(&fleet.host[host]);
    fleet.host[host] = (struct house){0};
    fleet.names_from += FLEET_HOSTS;
    fleet_start_host(&fleet, host, FLEET_SECRET);
    wait_until(fleet_says(&fleet.host[host], "cache     in use"), 8000);
}

static bool is_shared(int host, const char *path)
{
    return fleet_answers(&fleet.host[host], path, "", 200, "detail=fleet");
}

#define EACH(keys) "EVAL for\t_,k\tin\tipairs(redis.call('KEYS','" keys "'))\tdo\t"

/* As whoever can write to the store may put back what was there. */
static void save_objects(void)
{
    redis_do(&fleet.redis, EACH("polder:{test}:o:*") "redis.call('SET','saved:'..k,"
                                                     "redis.call('GET',k))\tend 0");
}

static void put_back_objects(void)
{
    redis_do(&fleet.redis, EACH("saved:*") "redis.call('SET',string.sub(k,7),"
                                           "redis.call('GET',k))\tend 0");
}

static void a_new_host_takes_what_is_older_than_itself(void **state)
{
    (void)state;
    static const char *const gone[] = {"/url", "/tagged", "/path", "/soft"},
                             *const by[] = {"http://example.org/url", "--tag t", "/path",
                                            "http://example.org/soft --soft"};
    share(0, "/kept");
    for (int i = 0; i < 4; i++)
        share(i % 2, gone[i]);
    save_objects();
    for (int i = 0; i < 4; i++)
        invalidate(i % 2, by[i]);
    share(1, "/later");
    put_back_objects();
    atomic_fetch_add(&version, 1);
    replace(2);
    assert_true(is_shared(2, "/kept"));
    assert_true(is_shared(2, "/later"));
    for (int i = 0; i < 4; i++)
        assert_int_equal(see(2, gone[i]), atomic_load(&version));
    for (int i = 0; i < 4; i++) /* nor do those that were there all the time */
        assert_int_equal(see(0, gone[i]), atomic_load(&version));
    assert_false(house_logged(&fleet.host[2], "died"));
}

static void what_is_older_than_the_log_is_not_taken(void **state)
{
    (void)state;
    share(0, "/before");
    note(1, 2);
    share(0, "/between");
    note(1, 1);
    redis_do(&fleet.redis, "XTRIM polder:{test}:log MAXLEN = 1");
    share(0, "/after");
    replace(2);
    assert_false(is_shared(2, "/before")); /* who knows what has been invalidated since */
    assert_true(is_shared(2, "/between"));
    assert_true(is_shared(2, "/after"));
    redis_do(&fleet.redis, "XTRIM polder:{test}:log MAXLEN = 0");
    share(0, "/last");
    replace(2);
    assert_false(is_shared(2, "/between"));
    assert_true(is_shared(2, "/last")); /* nothing can have been */
}

/* All from before belongs to another history. */
static void an_emptied_store_ends_what_was_shared(void **state)
{
    (void)state;
    share(0, "/lost");
    save_objects();
    redis_do(&fleet.redis, EACH("polder:*") "redis.call('DEL',k)\tend 0");
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(house_logged(&fleet.host[i], "everything was invalidated: the store"), 8000);
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(fleet_says(&fleet.host[i], "cache     in use"), 8000);
    put_back_objects();
    atomic_fetch_add(&version, 1);
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_int_equal(see(i, "/lost"), atomic_load(&version));
}

/* The numbers begin anew, and nothing else says so. */
static void a_log_that_begins_anew_is_noticed_by_members(void **state)
{
    (void)state;
    const char *out;
    note(0, 5);
    for (int i = 0; i < FLEET_HOSTS; i++)
        see(i, "/anew");
    redis_do(&fleet.redis, "DEL polder:{test}:log polder:{test}:count");
    for (int k = 0; k < 10; k++) {
        const int by = k % FLEET_HOSTS;
        atomic_fetch_add(&version, 1);
        assert_int_equal(ctl(&fleet.host[by], &out, "cache invalidate /anew"), 0);
        for (int i = 0; strstr(out, "hosts        2") && i < FLEET_HOSTS; i++)
            assert_int_equal(see(i, "/anew"), atomic_load(&version));
    }
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(fleet_number(&fleet.host[i], "gaps") >= 3, 8000);
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(fleet_says(&fleet.host[i], "cache     in use"), 8000);
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_int_equal(see(i, "/anew"), atomic_load(&version));
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(what_is_older_than_the_log_is_not_taken),
        cmocka_unit_test(a_new_host_takes_what_is_older_than_itself),
        cmocka_unit_test(an_emptied_store_ends_what_was_shared),
        cmocka_unit_test(a_log_that_begins_anew_is_noticed_by_members),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, NULL);
}
