/* SPDX-License-Identifier: BSD-2-Clause */
/* Stores that answer nonsense, too much, too slowly, what was not asked for, or errors, at each command:
 * the host says what is wrong, serves on, and is a member as soon as the store is well. */
#include "fake_store.h"
#include "harness.h"
#include "redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PASSWORD "let-me-in-please"

static struct backend *backend;

static bool answers(struct asked *ask)
{
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", "x");
}

static void start(struct house *h, const char *store)
{
    house_start(h, 1,
                "fleet { store = {\"%s\"} host = \"amber\" secret = \"sixteen characters\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                store, backend_port(backend));
}

static bool says(struct house *h, const char *text)
{
    const char *out;
    return ctl(h, &out, "fleet") == 0 && strstr(out, text);
}

static bool is_member(struct house *h)
{
    return says(h, "state     member");
}

static void assert_serves(struct house *h)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n");
    client_read(fd, &m, false);
    close(fd);
    assert_int_equal(m.status, 200);
    message_free(&m);
}

static pid_t control_of(struct house *h)
{
    pid_t pid;
    assert_int_equal(house_children(h, "polderd: control", &pid, 1), 1);
    return pid;
}

#define B64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct {
    struct fake_fault fault;
    const char *why;
} faults[] = {
    /* what no Redis says */
    {{"ROLE", FAKE_SAYS, "*1000000000\r\n"}, "a reply is too long"},
    {{"ROLE", FAKE_SAYS, "%1\r\n+role\r\n+master\r\n"}, "Protocol error"},
    {{"INFO", FAKE_REPEATS, "*65000\r\n"}, "nested multi bulk"},
    {{"INFO", FAKE_FLOODS, "$256\r\n" B64 B64 B64 B64 "\r\n"}, "a reply is too long"},
    {{"INFO", FAKE_REPEATS, "*1\r\n:1\r\n"}, "it answers INFO as no Redis does"},
    {{"PING", FAKE_REPEATS, "+PONG\r\n"}, "it sends what it was not asked for"},
    {{"RENEW", FAKE_SAYS, ":1\r\n"}, "it answers a script with something else"},
    {{"RENEW", FAKE_SAYS, "*1\r\n$-1\r\n"}, "the store has lost its data"},
    {{"ENTER", FAKE_SAYS, "*4\r\n$1\r\n1\r\n$2\r\n-1\r\n$0\r\n\r\n$1\r\n1\r\n"},
     "its keys of this fleet hold something else"},
    {{"ENTER", FAKE_SAYS, "*1\r\n$5\r\ntaken\r\n"}, "another host of the fleet is called amber"},
    {{"ENTER", FAKE_SAYS, "*2\r\n$6\r\nfenced\r\n$5\r\nother\r\n"}, "follow another master, other"},
    {{"XREAD", FAKE_SAYS, "*1\r\n*2\r\n$1\r\nx\r\n*1\r\n*1\r\n:1\r\n"},
     "it answers XREAD as no Redis does"},
    {{"XREAD", FAKE_REPEATS, "*-1\r\n"}, "it sends what it was not asked for"},
    /* errors */
    {{"AUTH", FAKE_SAYS,
      "-ERR unknown command `AUTH`, with args beginning with: `" PASSWORD "`, \r\n"},
     "ERR unknown command"},
    {{"AUTH", FAKE_SAYS, "-WRONGPASS invalid username-password pair: " PASSWORD "\r\n"},
     "WRONGPASS"},
    {{"SELECT", FAKE_SAYS, "-ERR DB index is out of range\r\n"}, "DB index is out of range"},
    {{"ROLE", FAKE_SAYS, "-LOADING Redis is loading the dataset in memory\r\n"}, "LOADING"},
    {{"SCRIPT", FAKE_SAYS, "-NOPERM this user has no permissions\r\n"}, "NOPERM"},
    {{"ENTER", FAKE_SAYS, "-MOVED 3999 127.0.0.1:6381\r\n"}, "MOVED 3999"},
    {{"RENEW", FAKE_SAYS, "-READONLY You can't write against a read only replica.\r\n"},
     "READONLY"},
    {{"RENEW", FAKE_SAYS, "-OOM command not allowed when used memory > 'maxmemory'.\r\n"}, "OOM"},
    {{"RENEW", FAKE_SAYS, "-BUSY Redis is busy running a script.\r\n"}, "BUSY"},
    {{"RENEW", FAKE_SAYS, "-NOSCRIPT No matching script.\r\n"}, "NOSCRIPT"},
    {{"XREAD", FAKE_SAYS, "-UNBLOCKED force unblock, instance state changed\r\n"}, "UNBLOCKED"},
    /* too slow */
    {{"RENEW", FAKE_SAYS, ""}, "it does not answer"},
    {{"RENEW", FAKE_DRIBBLES, "*3\r\n$19\r\n1700000000000000001\r\n"}, "it does not answer"},
};

static void whatever_a_store_answers_is_named_and_survived(void **state)
{
    (void)state;
    struct fake_store *store = fake_store_start();
    struct house h;
    char url[96];
    snprintf(url, sizeof url, "redis://polder:" PASSWORD "@127.0.0.1:%u/1", fake_store_port(store));
    start(&h, url);
    wait_until(is_member(&h), 10000);
    const pid_t control = control_of(&h);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        fake_store_do(store, &faults[i].fault);
        wait_until(says(&h, faults[i].why), 15000);
        fake_store_do(store, NULL);
        wait_until(is_member(&h), 15000);
    }
    assert_serves(&h);
    assert_int_equal(control_of(&h), control);
    if (!harness_sanitized()) /* which keeps what is freed */
        assert_true(resident_kib(control) < 64 * 1024);
    assert_false(house_logged(&h, PASSWORD));
    house_remove(&h);
    fake_store_stop(store);
}

/* What strangers write into its keys, and what an operator forbids; of a real Redis. */
static void nor_what_strangers_do_to_it(void **state)
{
    (void)state;
    static const struct {
        const char *does, *why, *undoes;
    } deeds[] = {
        {"CONFIG SET min-replicas-to-write 1", "NOREPLICAS", "CONFIG SET min-replicas-to-write 0"},
        {"SET polder:{polder}:log x", "WRONGTYPE", "DEL polder:{polder}:log"},
        {"SET polder:{polder}:hosts x", "WRONGTYPE", "DEL polder:{polder}:hosts"},
        {"SET polder:{polder}:epoch x", "hold something else", "DEL polder:{polder}:epoch"},
        {"SET polder:{polder}:count x", "hold something else", "DEL polder:{polder}:count"},
        {"XADD polder:{polder}:log 18446744073709551615-0 e x", "strange   1", NULL},
    };
    struct redis redis = {0};
    struct house h;
    char url[128];
    const char *out;
    redis_start(&redis);
    snprintf(url, sizeof url, "unix:%s", redis.sock);
    start(&h, url);
    wait_until(is_member(&h), 10000);
    const pid_t control = control_of(&h);
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        redis_do(&redis, "%s", deeds[i].does);
        wait_until(says(&h, deeds[i].why), 15000);
        if (deeds[i].undoes)
            redis_do(&redis, "%s", deeds[i].undoes);
        wait_until(is_member(&h), 15000);
    }
    /* the log can take no number after that one: it begins anew */
    assert_int_equal(ctl(&h, &out, "cache invalidate /a --local"), 0);
    wait_until(is_member(&h) && says(&h, "pending   0"), 15000);
    assert_int_equal(strcmp(redis_do(&redis, "GET polder:{polder}:count"), "0") > 0, 1);
    assert_serves(&h);
    assert_int_equal(control_of(&h), control);
    house_remove(&h);
    redis_remove(&redis);
}

/* In a line of CLIENT LIST. */
static bool has_client(struct redis *redis, const char *database, const char *user)
{
    const char *at = redis_do(redis, "CLIENT LIST");
    while ((at = strstr(at, database))) {
        const char *found = strstr(at, user);
        if (found && !memchr(at, '\n', (size_t)(found - at)))
            return true;
        at++;
    }
    return false;
}

static void a_socket_has_users_and_databases_too(void **state)
{
    (void)state;
    struct redis redis = {0};
    struct house h;
    char url[160];
    redis_start(&redis);
    redis_do(&redis, "ACL SETUSER polder on >" PASSWORD " ~polder:* +@all");
    snprintf(url, sizeof url, "unix://polder:" PASSWORD "@%s?db=3", redis.sock);
    start(&h, url);
    wait_until(is_member(&h), 10000);
    assert_string_equal(redis_do(&redis, "EXISTS polder:{polder}:epoch"), "0");
    assert_true(has_client(&redis, " db=3 ", " user=polder"));
    redis_do(&redis, "ACL SETUSER polder resetpass >another");
    redis_do(&redis, "CLIENT KILL USER polder");
    wait_until(says(&h, "WRONGPASS"), 10000);
    assert_false(house_logged(&h, PASSWORD));
    house_remove(&h);
    redis_remove(&redis);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(whatever_a_store_answers_is_named_and_survived),
        cmocka_unit_test(nor_what_strangers_do_to_it),
        cmocka_unit_test(a_socket_has_users_and_databases_too),
    };
    return run_with_backend(stories, &backend, answers);
}
