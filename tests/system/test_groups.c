/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of cache groups (RFC 9875): a change through one origin leaves the others alone, the
 * operator's command means all of them. */
#include "harness.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

static const char *const fields[] = {"Cache-Groups: \"red\", \"g;,=\"", "Surrogate-Key: red blue",
                                     "xkey: red", "Cache-Tag: red,green"};

/* /FIELD/…: tagged by that one. A POST ends the group that its path ends with. */
static bool answers(struct asked *a)
{
    char lines[256];
    if (!strcmp(a->method, "POST")) {
        snprintf(lines, sizeof lines, "Cache-Group-Invalidation: \"%.100s\"\r\n",
                 strrchr(a->target, '/') + 1);
        return reply_ok(a, lines, "done");
    }
    const unsigned field = (unsigned)(a->target[1] - '0') % 4;
    snprintf(lines, sizeof lines, "Cache-Control: max-age=600\r\n%s\r\n", fields[field]);
    return reply_ok(a, lines, "member");
}

static void start(struct house *h)
{
    house_start(h, 2,
                "trusted_proxies = {\"127.0.0.0/8\"}\n"
                "cache { ttl = \"5m\" stale_while_revalidate = \"0s\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
}

static void ask(unsigned port, const char *method, const char *host, const char *path,
                const char *lines, struct message *m)
{
    const int fd = client_connect(port);
    client_send(fd,
                "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n%s\r\n",
                method, path, host, lines);
    client_read(fd, m, false);
    close(fd);
}

static bool hits(unsigned port, const char *host, const char *path, const char *lines)
{
    struct message m;
    ask(port, "GET", host, path, lines, &m);
    const char *status = field_of(&m, "Cache-Status");
    const bool hit = status && strstr(status, "polder; hit");
    message_free(&m);
    return hit;
}

static void change(unsigned port, const char *host, const char *path, const char *lines)
{
    struct message m;
    ask(port, "POST", host, path, lines, &m);
    assert_int_equal(m.status, 200);
    message_free(&m);
}

static void store(unsigned port, const char *host, const char *path, const char *lines)
{
    wait_until(hits(port, host, path, lines), 3000);
}

/* One in 4095 hosts has the number of another one by chance: never both of two. */
static const char *const others[] = {"b.example", "c.example:8080"};

static void store_all(struct house *h, const char *path)
{
    store(h->port, "a.example", path, "");
    for (unsigned i = 0; i < 2; i++)
        store(h->port, others[i], path, "");
}

static unsigned hits_of_others(struct house *h, const char *path)
{
    return (unsigned)hits(h->port, others[0], path, "") + hits(h->port, others[1], path, "");
}

static void a_change_ends_the_groups_of_its_own_host_alone(void **state)
{
    (void)state;
    struct house h;
    start(&h);
    for (unsigned field = 0; field < 4; field++) {
        char path[8];
        snprintf(path, sizeof path, "/%u/x", field);
        store_all(&h, path);
        change(h.port, "a.example", "/change/Red", ""); /* another one */
        assert_true(hits(h.port, "a.example", path, ""));
        change(h.port, "A.Example:80", "/change/red", "");
        assert_false(hits(h.port, "a.example", path, ""));
        assert_true(hits_of_others(&h, path) > 0);
    }
    house_remove(&h);
}

static void the_operator_ends_a_tag_on_all_hosts(void **state)
{
    (void)state;
    struct house h;
    start(&h);
    for (unsigned field = 0; field < 4; field++) {
        char path[8];
        snprintf(path, sizeof path, "/%u/x", field);
        store_all(&h, path);
        assert_int_equal(ctl(&h, NULL, "cache invalidate --tag red"), 0);
        assert_false(hits(h.port, "a.example", path, ""));
        assert_int_equal(hits_of_others(&h, path), 0);
        store_all(&h, path);
        assert_int_equal(ctl(&h, NULL, "cache invalidate --soft --tag red"), 0);
        assert_false(hits(h.port, "a.example", path, ""));
        assert_int_equal(hits_of_others(&h, path), 0);
    }
    house_remove(&h);
}

static void both_hold_over_restarts(void **state)
{
    (void)state;
    struct house h;
    start(&h);
    store_all(&h, "/0/old");
    store_all(&h, "/0/new");
    change(h.port, "a.example", "/change/red", "");
    store(h.port, "a.example", "/0/new", "");
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_true(hits(h.port, "a.example", "/0/new", ""));
    assert_false(hits(h.port, "a.example", "/0/old", ""));
    assert_true(hits_of_others(&h, "/0/old") > 0);
    store_all(&h, "/0/new");
    change(h.port, "a.example", "/change/red", ""); /* of what was stored before */
    assert_false(hits(h.port, "a.example", "/0/new", ""));
    assert_true(hits_of_others(&h, "/0/new") > 0);
    store_all(&h, "/0/new");
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_int_equal(ctl(&h, NULL, "cache invalidate --tag red"), 0);
    assert_false(hits(h.port, "a.example", "/0/new", ""));
    assert_int_equal(hits_of_others(&h, "/0/new"), 0);
    house_remove(&h);
}

/* The origin is what a trusted proxy says it is, in whichever field. */
static void schemes_and_hosts_behind_a_proxy_are_told_apart(void **state)
{
    (void)state;
    struct house h;
    static const char secure[] = "X-Forwarded-Proto: https\r\n",
                      other[] = "X-Forwarded-Host: b.example\r\n",
                      same[] = "Forwarded: for=192.0.2.1;proto=https;host=\"a.example:443\"\r\n";
    start(&h);
    store(h.port, "a.example", "/0/x", "");
    store(h.port, "a.example", "/0/x", secure);
    store(h.port, "a.example", "/0/x", other);
    store(h.port, "a.example", "/0/x", same);
    change(h.port, "a.example", "/change/red", secure);
    assert_false(hits(h.port, "a.example", "/0/x", secure));
    assert_false(hits(h.port, "a.example", "/0/x", same));
    assert_true((unsigned)hits(h.port, "a.example", "/0/x", "") +
                    hits(h.port, "a.example", "/0/x", other) >
                0);
    house_remove(&h);
}

static void cache_why_names_the_group(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h);
    store(h.port, "a.example", "/0/x", "");
    change(h.port, "a.example", "/change/g;,=", "");
    assert_int_equal(ctl(&h, &out, "cache why http://a.example/0/x"), 0);
    assert_non_null(strstr(out, "invalidated by group g;,="));
    store(h.port, "a.example", "/0/x", "");
    assert_int_equal(ctl(&h, NULL, "cache invalidate --tag 'g;,='"), 0);
    assert_int_equal(ctl(&h, &out, "cache why http://a.example/0/x"), 0);
    assert_non_null(strstr(out, "invalidated by tag g;,="));
    house_remove(&h);
}

static int set_up(void **state)
{
    (void)state;
    backend = backend_start(answers, NULL);
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    backend_stop(backend);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_ends_the_groups_of_its_own_host_alone),
        cmocka_unit_test(the_operator_ends_a_tag_on_all_hosts),
        cmocka_unit_test(both_hold_over_restarts),
        cmocka_unit_test(schemes_and_hosts_behind_a_proxy_are_told_apart),
        cmocka_unit_test(cache_why_names_the_group),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
