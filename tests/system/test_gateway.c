/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of proxying: what passes, what is re-framed, what a broken backend or client leads to. */
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct town {
    struct house house;
    struct backend *backend, *second;
};

static bool talks(struct asked *a)
{
    const char *t = a->target;
    if (!strcmp(t, "/echo"))
        return reply(a, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", a->m.body_len) &&
               reply_bytes(a, a->m.body, a->m.body_len);
    if (!strcmp(t, "/head"))
        return reply_ok(
            a, "X-End: to-end\r\nConnection: X-Hop\r\nX-Hop: gone\r\nKeep-Alive: timeout=5\r\n",
            a->m.head);
    if (!strcmp(t, "/chunks"))
        return reply(a, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: "
                        "X-Sum\r\n\r\n5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n");
    if (!strcmp(t, "/to-close")) {
        reply(a, "HTTP/1.0 200 OK\r\n\r\nuntil the end");
        return false;
    }
    if (!strcmp(t, "/early"))
        return reply(a, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n") &&
               reply_ok(a, "", "final");
    if (!strcmp(t, "/short")) {
        reply(a, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
        return false;
    }
    if (!strcmp(t, "/short-chunk")) {
        reply(a, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        return false;
    }
    if (!strcmp(t, "/never-ends")) {
        reply(a, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        for (int i = 0; i < 3000 && recv(a->fd, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) != 0; i++)
            nap_ms(10);
        return false;
    }
    if (!strcmp(t, "/garbage")) {
        reply(a, "SMTP ready\r\n\r\n");
        return false;
    }
    if (!strcmp(t, "/both"))
        return reply(a, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: "
                        "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    if (!strcmp(t, "/no-content"))
        return reply(a, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
    if (!strcmp(t, "/never")) {
        for (int i = 0; i < 300 && recv(a->fd, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) != 0; i++)
            nap_ms(10);
        return false;
    }
    return reply_ok(a, "", t);
}

static int set_up(void **state)
{
    struct town *t = calloc(1, sizeof *t);
    t->backend = backend_start(talks, t);
    house_start(&t->house, 2,
                "upstream \"api\" { server \"127.0.0.1:%u\" { weight = 100 } timeout = \"1s\" }\n"
                "upstream \"gone\" { server \"127.0.0.1:%u\" { weight = 100 } connect_timeout = "
                "\"500ms\" }\n"
                "route \"/gone/*\" { upstream = \"gone\" }\n"
                "route \"/*\" { upstream = \"api\" }\n"
                "client_timeout = \"2s\"\n",
                backend_port(t->backend), free_port());
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct town *t = *state;
    house_remove(&t->house);
    backend_stop(t->backend);
    free(t);
    return 0;
}

static void one_connection_carries_many_requests(void **state)
{
    struct town *t = *state;
    struct message m;
    unsigned before = backend_connections(t->backend);
    int fd = client_connect(t->house.port);
    for (int i = 0; i < 50; i++) {
        client_send(fd, "GET /n%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        client_read(fd, &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
    }
    close(fd);
    assert_true(backend_connections(t->backend) - before <= 2);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct town *t = *state;
    struct message m;
    char want[16];
    int fd = client_connect(t->house.port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /echo HTTP/1.1\r\nHost: "
                    "h\r\nContent-Length: 3\r\n\r\nxyz"
                    "GET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        client_read(fd, &m, false);
        assert_int_equal(m.status, 200);
        snprintf(want, sizeof want, "%s", i == 0 ? "/a" : i == 1 ? "xyz" : "/b");
        assert_string_equal(m.body, want);
        message_free(&m);
    }
    close(fd);
}

static void bodies_pass_in_both_framings(void **state)
{
    struct town *t = *state;
    struct message m;
    assert_int_equal(request(t->house.port, "POST", "/echo", "", "hello", &m), 200);
    assert_string_equal(m.body, "hello");
    message_free(&m);
    int fd = client_connect(t->house.port);
    client_send(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                    "chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    client_read(fd, &m, false);
    assert_string_equal(m.body, "hello world");
    message_free(&m);
    close(fd);
    assert_int_equal(get(t->house.port, "/chunks", &m), 200);
    assert_true(m.complete);
    assert_true(m.chunked);
    assert_string_equal(m.body, "hello world");
    message_free(&m);
    assert_int_equal(get(t->house.port, "/to-close", &m), 200);
    assert_true(m.complete);
    assert_string_equal(m.body, "until the end");
    message_free(&m);
}

static void trailers_pass_to_the_client(void **state)
{
    struct town *t = *state;
    char all[4096] = "";
    size_t n = 0;
    int fd = client_connect(t->house.port);
    client_send(fd,
                "GET /chunks HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n");
    for (ssize_t got; n < sizeof all - 1 && (got = recv(fd, all + n, sizeof all - 1 - n, 0)) > 0;
         n += (size_t)got)
        ;
    assert_non_null(strstr(all, "X-Sum: 11\r\n\r\n"));
    close(fd);
}

static void an_http10_client_gets_no_chunks(void **state)
{
    struct town *t = *state;
    struct message m;
    int fd = client_connect(t->house.port);
    client_send(fd, "GET /chunks HTTP/1.0\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_false(m.chunked);
    assert_true(m.closed);
    assert_string_equal(m.body, "hello world");
    message_free(&m);
    close(fd);
}

/* Proxies that speak HTTP/1.0 would keep it as the whole. */
static void what_is_cut_by_a_death_does_not_look_whole(void **state)
{
    (void)state;
    struct house h;
    pid_t pids[8];
    char got[1024] = "";
    size_t n = 0;
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = "
                "\"u\" }\n",
                backend_port(((struct town *)*state)->backend));
    const int fd = client_connect(h.port);
    client_send(fd, "GET /never-ends HTTP/1.0\r\n\r\n");
    for (ssize_t some; !strstr(got, "hello") && n < sizeof got - 1; n += (size_t)some) {
        some = recv(fd, got + n, sizeof got - 1 - n, 0);
        assert_true(some > 0);
    }
    const size_t workers = house_children(&h, "polderd: worker", pids, 8);
    for (size_t i = 0; i < workers; i++)
        kill(pids[i], SIGKILL);
    assert_int_equal(recv(fd, got, sizeof got, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
    house_remove(&h);
}

static void head_and_204_have_no_body(void **state)
{
    struct town *t = *state;
    struct message m;
    int fd = client_connect(t->house.port);
    client_send(fd, "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\nGET /no-content HTTP/1.1\r\nHost: "
                    "h\r\n\r\nGET /last HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(fd, &m, true);
    assert_int_equal(m.status, 200);
    assert_string_equal(field_of(&m, "Content-Length"), "2");
    message_free(&m);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 204);
    assert_null(field_of(&m, "Content-Length"));
    message_free(&m);
    client_read(fd, &m, false);
    assert_string_equal(m.body, "/last");
    message_free(&m);
    close(fd);
}

static void interim_responses_pass(void **state)
{
    struct town *t = *state;
    struct message m;
    int fd = client_connect(t->house.port);
    client_send(fd, "GET /early HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 103);
    assert_string_equal(field_of(&m, "Link"), "</a.css>");
    message_free(&m);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "final");
    message_free(&m);
    close(fd);
}

static void a_client_that_expects_100_is_told_to_go_on(void **state)
{
    struct town *t = *state;
    struct message m;
    int fd = client_connect(t->house.port);
    client_send(
        fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 100);
    message_free(&m);
    client_send(fd, "hello");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "hello");
    message_free(&m);
    close(fd);
}

static void forwarding_fields_are_right_and_hop_by_hop_ones_gone(void **state)
{
    struct town *t = *state;
    struct message m;
    assert_int_equal(get_with(t->house.port, "/head?q=1",
                              "X-Own: kept\r\nX-Secret: hop\r\nKeep-Alive: 1\r\nX-Forwarded-For: "
                              "192.0.2.7\r\nProxy-Connection: x\r\n",
                              &m),
                     200);
    message_free(&m);
    assert_int_equal(get_with(t->house.port, "/head",
                              "X-Own: kept\r\nX-Drop: hop\r\nConnection: X-Drop\r\nKeep-Alive: "
                              "1\r\nProxy-Connection: x\r\n",
                              &m),
                     200);
    assert_non_null(strstr(m.body, "X-Own: kept"));
    assert_null(strstr(m.body, "X-Drop"));
    assert_null(strstr(m.body, "Keep-Alive"));
    assert_null(strstr(m.body, "Proxy-Connection"));
    assert_non_null(strcasestr(m.body, "X-Forwarded-For: 127.0.0.1"));
    assert_non_null(strcasestr(m.body, "X-Forwarded-Proto: http"));
    assert_non_null(strcasestr(m.body, "X-Forwarded-Host: test.example"));
    assert_non_null(strcasestr(m.body, "Via: 1.1 polder"));
    assert_non_null(strcasestr(m.body, "X-Request-Id: "));
    assert_string_equal(field_of(&m, "X-End"), "to-end");
    assert_null(field_of(&m, "X-Hop"));
    assert_null(field_of(&m, "Keep-Alive"));
    message_free(&m);
}

static void a_short_body_is_never_passed_as_a_whole_one(void **state)
{
    struct town *t = *state;
    struct message m;
    get(t->house.port, "/short", &m);
    assert_false(m.complete);
    message_free(&m);
    get(t->house.port, "/short-chunk", &m);
    assert_false(m.complete);
    message_free(&m);
}

static void a_backend_that_talks_nonsense_is_502(void **state)
{
    struct town *t = *state;
    struct message m;
    assert_int_equal(get(t->house.port, "/garbage", &m), 502);
    assert_string_equal(field_of(&m, "Content-Type"), "application/problem+json");
    assert_non_null(strstr(m.body, "\"status\":502"));
    message_free(&m);
    assert_int_equal(get(t->house.port, "/both", NULL), 502);
}

static void an_absent_backend_is_502_or_503_and_a_silent_one_504(void **state)
{
    struct town *t = *state;
    int status = get(t->house.port, "/gone/x", NULL);
    assert_true(status == 502 || status == 503);
    assert_int_equal(get(t->house.port, "/never", NULL), 504);
}

static void a_client_that_leaves_in_mid_body_never_looks_complete(void **state)
{
    struct town *t = *state;
    static char part[100000];
    memset(part, 'x', sizeof part);
    for (unsigned longer = 0; longer < 2; longer++) { /* than what is waited for */
        backend_forget(t->backend);
        int fd = client_connect(t->house.port);
        client_send(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "5\r\nhello\r\n");
        if (longer) {
            client_send(fd, "%zx\r\n", sizeof part);
            client_send_bytes(fd, part, sizeof part);
        }
        nap_ms(100);
        close(fd);
        wait_until(backend_broken(t->backend) == longer, 5000);
        assert_int_equal(backend_calls(t->backend), 0);
    }
}

static void silent_and_slow_clients_are_let_go(void **state)
{
    struct town *t = *state;
    struct message m;
    int fd = client_connect(t->house.port);
    client_send(fd, "GET / HTTP/1.1\r\nHost:");
    client_read(fd, &m, false); /* client_timeout is 2 s here */
    assert_true(m.status == 408 || (m.status == 0 && m.closed));
    message_free(&m);
    assert_true(client_closed(fd, 5000));
    close(fd);
}

static void unknown_paths_are_404_where_no_route_matches(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    house_start(
        &h, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/only\" { upstream = \"u\" }\n",
        free_port());
    assert_int_equal(get(h.port, "/other", &m), 404);
    assert_string_equal(field_of(&m, "Content-Type"), "application/problem+json");
    message_free(&m);
    house_remove(&h);
}

static bool says_its_name(struct asked *a)
{
    return reply_ok(a, "", a->arg);
}

static void weights_share_the_load_and_change_while_running(void **state)
{
    (void)state;
    struct house h;
    struct backend *blue = backend_start(says_its_name, "blue"),
                   *green = backend_start(says_its_name, "green");
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { weight = 75 } server \"127.0.0.1:%u\" "
                "{ weight = 25 } }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(blue), backend_port(green));
    unsigned counts[1000] = {0};
    storm(h.port, "/", 400, 4, counts, NULL);
    assert_int_equal(counts[200], 400);
    assert_in_range(backend_calls(green), 80, 120);
    assert_int_equal(ctl(&h, NULL, "upstream weight u 127.0.0.1:%u 0", backend_port(blue)), 0);
    assert_int_equal(ctl(&h, NULL, "upstream weight u 127.0.0.1:%u 100", backend_port(green)), 0);
    backend_forget(blue);
    backend_forget(green);
    storm(h.port, "/", 100, 4, counts, NULL);
    assert_int_equal(backend_calls(blue), 0);
    assert_int_equal(backend_calls(green), 100);
    house_remove(&h);
    backend_stop(blue);
    backend_stop(green);
}

static void a_dead_server_is_skipped(void **state)
{
    (void)state;
    struct house h;
    struct backend *b = backend_start(says_its_name, "alive");
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { weight = 50 } server \"127.0.0.1:%u\" "
                "{ weight = 50 } }\nroute \"/*\" { upstream = \"u\" }\n",
                free_port(), backend_port(b));
    unsigned counts[1000] = {0};
    storm(h.port, "/", 100, 4, counts, NULL);
    assert_int_equal(counts[200], 100);
    house_remove(&h);
    backend_stop(b);
}

static void proxy_protocol_tells_who_the_client_is(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct backend *b = backend_start(talks, NULL);
    house_start(&h, 1,
                "proxy_protocol = true\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute "
                "\"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    int fd = client_connect(h.port);
    client_send(
        fd, "PROXY TCP4 198.51.100.7 203.0.113.1 4242 80\r\nGET /head HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_non_null(strcasestr(m.body, "X-Forwarded-For: 198.51.100.7"));
    message_free(&m);
    close(fd);
    static const char v2[] =
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x08\xcb\0\x71\x01\x10\x92\0\x50";
    fd = client_connect(h.port);
    client_send_bytes(fd, v2, sizeof v2 - 1);
    client_send(fd, "GET /head HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_non_null(strcasestr(m.body, "X-Forwarded-For: 198.51.100.8"));
    message_free(&m);
    close(fd);
    fd = client_connect(h.port);
    client_send(fd, "GET /head HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_not_equal(m.status, 200);
    message_free(&m);
    close(fd);
    house_remove(&h);
    backend_stop(b);
}

static void too_many_connections_get_503(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct backend *b = backend_start(talks, NULL);
    house_start(&h, 1,
                "max_connections = 10\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute "
                "\"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    int fd[10];
    for (int i = 0; i < 10; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
    }
    int late = client_connect(h.port);
    client_send(late, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(late, &m, false);
    assert_int_equal(m.status, 503);
    message_free(&m);
    close(late);
    close(fd[0]);
    wait_until(get(h.port, "/", NULL) == 200, 5000);
    for (int i = 1; i < 10; i++)
        close(fd[i]);
    house_remove(&h);
    backend_stop(b);
}

/* 127.0.0.1 .. 127.0.0.254 are clients of their own, although they are neighbours. */
static void connections_are_counted_for_each_client(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct backend *b = backend_start(talks, NULL);
    house_start(&h, 2,
                "max_connections_per_client = 3\nproxy_protocol = true\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    int fd[3 * 64], late;
    for (int i = 0; i < 3 * 64; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i],
                    "PROXY TCP4 203.0.113.%d 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
                    i % 64);
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
    }
    for (int i = 0; i < 64; i += 21) {
        late = client_connect(h.port);
        client_send(late,
                    "PROXY TCP4 203.0.113.%d 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", i);
        client_read(late, &m, false);
        assert_int_equal(m.status, 503);
        message_free(&m);
        close(late);
    }
    for (int i = 0; i < 3 * 64; i++)
        close(fd[i]);
    house_remove(&h);
    backend_stop(b);
}

static void the_access_log_has_a_line_a_request(void **state)
{
    (void)state;
    struct house h;
    struct backend *b = backend_start(talks, NULL);
    char path[] = "/tmp/polder-access.XXXXXX", line[4096] = "";
    close(mkstemp(path));
    house_start(&h, 1,
                "access_log = \"json:%s\"\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute "
                "\"/*\" { upstream = \"u\" }\n",
                path, backend_port(b));
    assert_int_equal(get_with(h.port, "/seen", "Authorization: Bearer hidden\r\n", NULL), 200);
    for (uint64_t end = mono_ms() + 5000; !strstr(line, "/seen") && mono_ms() < end; nap_ms(20)) {
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f) && !strstr(line, "/seen"))
            ;
        if (f)
            fclose(f);
    }
    assert_non_null(strstr(line, "/seen"));
    assert_non_null(strstr(line, "200"));
    assert_null(strstr(line, "hidden"));
    assert_int_equal(line[0], '{');
    house_remove(&h);
    backend_stop(b);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_connection_carries_many_requests),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(bodies_pass_in_both_framings),
        cmocka_unit_test(trailers_pass_to_the_client),
        cmocka_unit_test(an_http10_client_gets_no_chunks),
        cmocka_unit_test(what_is_cut_by_a_death_does_not_look_whole),
        cmocka_unit_test(head_and_204_have_no_body),
        cmocka_unit_test(interim_responses_pass),
        cmocka_unit_test(a_client_that_expects_100_is_told_to_go_on),
        cmocka_unit_test(forwarding_fields_are_right_and_hop_by_hop_ones_gone),
        cmocka_unit_test(a_short_body_is_never_passed_as_a_whole_one),
        cmocka_unit_test(a_backend_that_talks_nonsense_is_502),
        cmocka_unit_test(an_absent_backend_is_502_or_503_and_a_silent_one_504),
        cmocka_unit_test(a_client_that_leaves_in_mid_body_never_looks_complete),
        cmocka_unit_test(silent_and_slow_clients_are_let_go),
        cmocka_unit_test(unknown_paths_are_404_where_no_route_matches),
        cmocka_unit_test(weights_share_the_load_and_change_while_running),
        cmocka_unit_test(a_dead_server_is_skipped),
        cmocka_unit_test(proxy_protocol_tells_who_the_client_is),
        cmocka_unit_test(too_many_connections_get_503),
        cmocka_unit_test(connections_are_counted_for_each_client),
        cmocka_unit_test(the_access_log_has_a_line_a_request),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
