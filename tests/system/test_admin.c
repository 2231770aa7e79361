/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the admin socket, polderctl and the ops pages; bad input on them costs its own
 * connection only. */
#include "harness.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct house h;
static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "Cache-Control: max-age=60\r\n", a->target);
}

static int set_up(void **state)
{
    (void)state;
    backend = backend_start(answers, NULL);
    house_start(&h, 2,
                "telemetry { path = \"/api/telemetry\" allow = {\"127.0.0.0/8\"} }\ncache { }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { weight = 100 } }\nlimit \"l\" { "
                "requests = 1000 window = \"60s\" key = \"client\" }\n"
                "route \"/c/*\" { upstream = \"u\" cache { } limits = {\"l\"} }\nroute \"/*\" { "
                "upstream = \"u\" }\n",
                backend_port(backend));
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    house_remove(&h);
    backend_stop(backend);
    return 0;
}

static json_t *ctl_json(const char *command)
{
    const char *out;
    json_error_t e;
    assert_int_equal(ctl(&h, &out, "--json %s", command), 0);
    json_t *j = json_loads(out, 0, &e);
    if (!j)
        fail_msg("%s: no JSON document: %s: %s", command, e.text, out);
    return j;
}

static void every_command_answers_in_both_forms(void **state)
{
    (void)state;
    static const char *const command[] = {"status",     "cache stats",  "cache list",
                                          "limit list", "limit show l", "upstream list",
                                          "poll top"};
    get(h.port, "/c/1", NULL);
    for (size_t i = 0; i < sizeof command / sizeof *command; i++) {
        const char *out;
        assert_int_equal(ctl(&h, &out, "%s", command[i]), 0);
        assert_true(strlen(out) > 10);
        json_decref(ctl_json(command[i]));
    }
}

static void mistakes_are_told_with_what_would_be_right(void **state)
{
    (void)state;
    const char *out;
    assert_int_equal(ctl(&h, &out, "cahce stats"), 2);
    assert_non_null(strstr(out, "cache"));
    assert_int_equal(ctl(&h, &out, "limit set nobody requests=1"), 1);
    assert_non_null(strstr(out, "nobody"));
    assert_true(ctl(&h, &out, "limit set l requests=many") != 0);
    assert_true(ctl(&h, &out, "limit set l colour=red") != 0);
    assert_non_null(strstr(out, "colour"));
    assert_true(ctl(&h, &out, "limit set l window=0s") != 0);
    assert_true(ctl(&h, &out, "upstream weight u 127.0.0.1:1 5") != 0);
    assert_true(ctl(&h, &out, "cache set ttl=soon") != 0);
    assert_int_equal(ctl(&h, &out, "cache invalidate"), 2);
    assert_int_equal(ctl(&h, &out, "--help"), 0);
    assert_non_null(strstr(out, "invalidate"));
    assert_int_equal(ctl(&h, &out, "limit --help"), 0);
    assert_non_null(strstr(out, "reset"));
}

static ssize_t answer(int fd, uint8_t *buf, size_t size)
{
    struct pollfd p = {fd, POLLIN, 0};
    if (poll(&p, 1, (int)harness_patience(3000)) <= 0)
        return -ETIMEDOUT;
    return recv(fd, buf, size, 0);
}

static void malformed_messages_get_an_error_and_cost_their_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\xc1", 1},                             /* no msgpack */
        {"\xdd\x08\x00\x00\x00", 5},             /* 2^27 elements announced */
        {"\xdf\xff\xff\xff\xff", 5},             /* a map of 2^32 */
        {"\x94\x00\x01\xdb\x7f\xff\xff\xff", 8}, /* a string of 2 GiB */
        {"\x93\x00\x01\xa6status", 10},          /* three elements */
        {"\x94\x05\x01\xa6status\x80", 11},      /* unknown type */
        {"\x94\x00\xa1x\xa6status\x80", 12},     /* msgid is a string */
        {"GET / HTTP/1.1\r\n\r\n", 18},
        {"\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91"
         "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0",
         33},
    };
    uint8_t buf[4096];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = house_admin_connect(&h);
        send(fd, bad[i].bytes, bad[i].len, MSG_NOSIGNAL);
        ssize_t n = answer(fd, buf, sizeof buf);
        if (n < 4 || buf[0] != 0x94 || buf[1] != 1)
            fail_msg("bad message %zu: no error answer (%zd)", i, n);
        close(fd);
        assert_int_equal(ctl(&h, NULL, "status"), 0);
    }
}

static void silent_clients_block_nobody(void **state)
{
    (void)state;
    int fd[20];
    for (int i = 0; i < 20; i++) {
        fd[i] = house_admin_connect(&h);
        send(fd[i], "\x94\x00", 2, MSG_NOSIGNAL);
    }
    assert_int_equal(ctl(&h, NULL, "status"), 0);
    for (int i = 0; i < 20; i++)
        close(fd[i]);
}

static void calls_can_be_pipelined_by_any_client(void **state)
{
    (void)state;
    static const char two[] = "\x94\x00\x01\xab"
                              "cache.stats\x80\x94\x00\x02\xabno.such.one\x90";
    uint8_t buf[8192];
    size_t n = 0;
    int fd = house_admin_connect(&h);
    send(fd, two, sizeof two - 1, MSG_NOSIGNAL);
    bool first = false, second = false;
    while (!(first && second)) {
        ssize_t got = answer(fd, buf + n, sizeof buf - n);
        assert_true(got > 0);
        n += (size_t)got;
        first = first || memmem(buf, n, "\x94\x01\x01\xc0", 4);
        second = second || memmem(buf, n, "\x94\x01\x02\x82", 4);
    }
    close(fd);
}

static void changes_are_logged_with_the_callers_uid(void **state)
{
    (void)state;
    assert_int_equal(ctl(&h, NULL, "limit set l requests=900"), 0);
    assert_true(house_logged(&h, "limit.set"));
    assert_true(house_logged(&h, "uid"));
    assert_int_equal(ctl(&h, NULL, "limit set l requests=1000"), 0);
}

static void ops_pages_tell_the_truth(void **state)
{
    (void)state;
    struct message m;
    json_error_t e;
    unsigned before = backend_calls(backend);
    for (int i = 0; i < 5; i++)
        assert_int_equal(get(h.port, "/c/telemetry", NULL), 200);
    assert_true(backend_calls(backend) > before);
    assert_int_equal(get(h.ops_port, "/healthz", NULL), 200);
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200);
    assert_int_equal(get(h.ops_port, "/nothing", NULL), 404);
    assert_int_equal(request(h.ops_port, "POST", "/metrics", "", "x", NULL), 405);
    for (int via = 0; via < 2; via++) {
        assert_int_equal(get(via ? h.port : h.ops_port, "/api/telemetry/cache-stats", &m), 200);
        json_t *j = json_loads(m.body, 0, &e);
        assert_non_null(j);
        static const char *const key[] = {"hitRate", "missRate",       "hits",      "misses",
                                          "stale",   "collapsed",      "evictions", "items",
                                          "bytes",   "avgResponseTime"};
        for (size_t i = 0; i < sizeof key / sizeof *key; i++)
            assert_true(json_is_number(json_object_get(j, key[i])));
        assert_true(json_integer_value(json_object_get(j, "hits")) >= 1);
        json_decref(j);
        message_free(&m);
    }
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    assert_non_null(strstr(m.body, "# TYPE polder_requests"));
    assert_non_null(strstr(m.body, "_bucket{"));
    assert_non_null(strstr(m.body, "le=\"+Inf\""));
    message_free(&m);
    assert_int_equal(get_with(h.ops_port, "/metrics",
                              "Accept: application/openmetrics-text; version=1.0.0\r\n", &m),
                     200);
    assert_non_null(strstr(field_of(&m, "Content-Type"), "application/openmetrics-text"));
    assert_string_equal(m.body + m.body_len - 6, "# EOF\n");
    message_free(&m);
}

static void garbage_on_the_ops_port_harms_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        int fd = client_connect(h.ops_port);
        client_send(fd, i % 2 ? "GET /\x01 HTTP/9\r\n\r\n" : "\xff\xfe\r\n\r\n");
        close(fd);
    }
    assert_int_equal(get(h.ops_port, "/healthz", NULL), 200);
}

static void a_command_without_a_daemon_ends_with_3(void **state)
{
    (void)state;
    char command[512];
    snprintf(command, sizeof command, "%s -s /nonexistent/admin.sock status >/dev/null 2>&1",
             built("polderctl"));
    assert_int_equal(WEXITSTATUS(system(command)), 3);
}

static void a_daemon_that_accepts_nobody_is_not_waited_for_longer_than_asked(void **state)
{
    (void)state;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct house deaf = {.dir = "/tmp/polder-deaf.XXXXXX"};
    const char *out;
    int full[8];
    size_t n = 0;
    assert_non_null(mkdtemp(deaf.dir));
    snprintf(deaf.sock, sizeof deaf.sock, "%s/admin.sock", deaf.dir);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", deaf.sock);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 1), 0);
    do {
        assert_true(n < sizeof full / sizeof *full);
        full[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    } while (connect(full[n++], (struct sockaddr *)&sa, sizeof sa) == 0);
    const uint64_t began = mono_ms();
    assert_int_equal(ctl(&deaf, &out, "-t 300ms status"), 3);
    assert_non_null(strstr(out, "no answer in time"));
    assert_in_range(mono_ms() - began, 250, harness_patience(3000));
    while (n)
        close(full[--n]);
    close(fd);
    unlink(deaf.sock);
    rmdir(deaf.dir);
}

static const char *why(const char *url, const char *member, bool of_variant)
{
    static char text[256];
    char command[300];
    snprintf(command, sizeof command, "cache why %s", url);
    json_t *j = ctl_json(command);
    json_t *from = of_variant ? json_array_get(json_object_get(j, "variants"), 0) : j;
    const char *value = json_string_value(json_object_get(from, member));
    snprintf(text, sizeof text, "%s", value ? value : "(nothing)");
    json_decref(j);
    return text;
}

static void why_tells_what_the_next_request_would_get(void **state)
{
    (void)state;
    const char *out;
    struct message m;
    static const char url[] = "http://test.example/c/why";
    assert_string_equal(why(url, "next", false), "miss: nothing is stored under it");
    assert_string_equal(why(url, "route", false), "/c/*");
    get(h.port, "/c/why", NULL);
    wait_until(!strncmp(why(url, "next", true), "hit; ttl=", 9), 3000);
    assert_int_equal(get(h.port, "/c/why", &m), 200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "hit; ttl="));
    message_free(&m);
    assert_int_equal(strlen(why("/c/why", "key", true)), 32);
    assert_int_equal(ctl(&h, &out, "cache invalidate --soft %s", url), 0);
    assert_non_null(strstr(why(url, "next", true), "softly"));
    assert_int_equal(ctl(&h, &out, "cache invalidate %s", url), 0);
    wait_until(!strncmp(why(url, "next", false), "miss", 4) ||
                   !strncmp(why(url, "next", true), "miss", 4),
               3000);
    assert_non_null(strstr(why("test.example/other", "next", false), "no cache section"));
    assert_int_equal(ctl(&h, &out, "cache why nonsense"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_answers_in_both_forms),
        cmocka_unit_test(why_tells_what_the_next_request_would_get),
        cmocka_unit_test(mistakes_are_told_with_what_would_be_right),
        cmocka_unit_test(malformed_messages_get_an_error_and_cost_their_connection),
        cmocka_unit_test(silent_clients_block_nobody),
        cmocka_unit_test(calls_can_be_pipelined_by_any_client),
        cmocka_unit_test(changes_are_logged_with_the_callers_uid),
        cmocka_unit_test(ops_pages_tell_the_truth),
        cmocka_unit_test(garbage_on_the_ops_port_harms_nobody),
        cmocka_unit_test(a_command_without_a_daemon_ends_with_3),
        cmocka_unit_test(a_daemon_that_accepts_nobody_is_not_waited_for_longer_than_asked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
