/* SPDX-License-Identifier: BSD-2-Clause */
/* One line of the access log for every answer and for every client that leaves; no line is lost
 * when the file is access_rotated. */
#include "access_lines.h"
#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *b;

/* ---- the backend ---- */

static bool answer(struct asked *ask)
{
    const char *t = ask->target;
    if (!strcmp(t, "/c/fresh"))
        return reply_ok(ask, "Cache-Control: max-age=60\r\n", "fresh");
    if (!strncmp(t, "/c/stale", 8)) {
        if (strstr(ask->m.head, "If-None-Match: \"v1\""))
            return reply(ask, "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n");
        return reply_ok(ask,
                        strstr(t, "swr") ? "Cache-Control: max-age=1, stale-while-revalidate=60\r\n"
                                         : "Cache-Control: max-age=0\r\nETag: \"v1\"\r\n",
                        "stale");
    }
    if (!strcmp(t, "/long"))
        return reply(ask, "HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n") &&
               reply(ask, "begun") && (nap_ms(20), true);
    if (!strcmp(t, "/cut"))
        return reply(ask, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun") && false;
    if (!strcmp(t, "/silent"))
        return reply(ask, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
    if (!strcmp(t, "/never"))
        return true;
    if (!strcmp(t, "/echo-id")) {
        const char *id = field_of(&ask->m, "X-Request-Id");
        char lines[256];
        snprintf(lines, sizeof lines, "X-Request-Id: of-the-backend\r\nSeen: %s\r\n", id ? id : "");
        return reply_ok(ask, lines, "x");
    }
    if (!strncmp(t, "/p/", 3))
        return reply_ok(ask, "ETag: \"p\"\r\n", "polled");
    return reply_ok(ask, "", "hello");
}

/* ---- the log ---- */

static void expect_id(const char *line, const struct message *m)
{
    char id[256];
    access_member(line, "request_id", id);
    const char *said = field_of(m, "X-Request-Id");
    assert_non_null(said);
    assert_true(strlen(id) == 24);
    assert_string_equal(said, id);
}

static void start(struct house *h, unsigned workers, const char *more)
{
    house_start(
        h, workers,
        "access_log = \"json:%s\"\n%s\n%s\n"
        "cache { leak_guard = 0 }\n"
        "limit \"tight\" { requests = 1 window = 1h }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = 1s }\n"
        "upstream \"gone\" { server \"127.0.0.1:%u\" { } park = 0 connect_timeout = 500ms }\n"
        "route \"/c/*\" { upstream = u cache { } }\n"
        "route \"/p/*\" { upstream = u cache { } poll { min_interval = 1m } }\n"
        "route \"/limited\" { upstream = u limits = {tight} }\n"
        "route \"/gone\" { upstream = gone }\nroute \"/events\" { websocket { } }\n"
        "route \"/api/*\" { upstream = u }\nroute \"/never\" { upstream = u }\n"
        "route \"/echo-id\" { upstream = u }\nroute \"/long\" { upstream = u }\n"
        "route \"/cut\" { upstream = u }\nroute \"/silent\" { upstream = u }\n",
        access_path, strstr(more, "client_timeout") ? "" : "client_timeout = 1s", more,
        backend_port(b), free_port());
}

/* ---- stories ---- */

static void what_a_line_says_of_an_answer(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char text[256];
    start(&h, 1, "");
    assert_int_equal(get_with(h.port, "/api/x?q=1",
                              "User-Agent: a \"b\"\r\nReferer: http://r/\r\n"
                              "Authorization: Bearer hidden\r\nCookie: sid=hidden\r\n",
                              &m),
                     200);
    const char *line = the_line("\"target\":\"/api/x?q=1\"");
    expect_id(line, &m);
    assert_non_null(strstr(line, "\"client\":\"127.0.0.1\",\"method\":\"GET\",\"host\":\""));
    assert_non_null(strstr(line, "\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":5,\"us\":"));
    assert_non_null(strstr(line, "\"cache\":\"none\",\"route\":\"/api/*\""));
    assert_non_null(strstr(line, "\"user_agent\":\"a \\\"b\\\"\",\"referer\":\"http://r/\"}"));
    assert_null(strstr(line, "hidden"));
    assert_null(strstr(line, "\"cut\""));
    snprintf(text, sizeof text, "\"upstream\":\"127.0.0.1:%u\"", backend_port(b));
    assert_non_null(strstr(line, text));
    assert_true(access_number(line, "us") >= access_number(line, "upstream_us"));
    assert_true(access_number(line, "upstream_us") > 0);
    message_free(&m);
    assert_int_equal(request(h.port, "HEAD", "/api/head", "", NULL, NULL), 200);
    assert_int_equal(access_number(the_line("/api/head"), "bytes"), 0);
    assert_int_equal(request(h.port, "POST", "/api/post", "", "body", NULL), 200);
    assert_non_null(strstr(the_line("/api/post"), "\"method\":\"POST\""));
    assert_int_equal(access_lines(), 3);
    house_remove(&h);
}

static void polders_own_answers_have_a_line_with_the_size_of_their_body(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    static const struct {
        const char *method, *target;
        int status;
        const char *also;
    } cases[] = {{"GET", "/nothing-here", 404, "\"cache\":\"none\""},
                 {"GET", "/limited", 200, "\"route\":\"/limited\""},
                 {"GET", "/limited", 429, "\"limit\":\"tight\""},
                 {"GET", "/events", 426, "\"route\":\"/events\""},
                 {"TRACE", "/api/trace", 501, "\"method\":\"TRACE\""},
                 {"OPTIONS", "*", 204, "\"target\":\"*\""},
                 {"GET", "/gone", 502, "\"upstream\":\"127.0.0.1:"},
                 {"GET", "/never", 504, "\"upstream_us\":"},
                 {"GET", "/api/%2", 400, "\"target\":\"/api/%2\""}};
    start(&h, 1, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char status[32];
        snprintf(status, sizeof status, "\"status\":%d,", cases[i].status);
        assert_int_equal(request(h.port, cases[i].method, cases[i].target, "", NULL, &m),
                         cases[i].status);
        const char *line = the_line(status, cases[i].also);
        expect_id(line, &m);
        assert_int_equal(access_number(line, "bytes"), (long)m.body_len);
        assert_true(access_number(line, "us") > 0);
        message_free(&m);
        assert_int_equal(access_lines(), i + 1);
    }
    house_remove(&h);
}

static void what_the_parser_refuses_has_a_line(void **state)
{
    (void)state;
    static char uri[9100], wide[20000];
    struct house h;
    struct message m;
    memset(uri, 'u', sizeof uri - 1);
    memset(wide, 'w', sizeof wide - 1);
    const struct {
        const char *before, *middle, *after;
        int status;
        const char *also;
    } cases[] = {
        {"GET /r0 HTTP/1.1\r\nHost: a b\r\n\r\n", "", "", 400, "\"target\":\"/r0\""},
        {"GET /r1 HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "", "", 400, "\"target\":\"/r1\""},
        {"GET /r2", uri, " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "\"target\":\"/r2uuu"},
        {"GET /r3 HTTP/1.1\r\nHost: a\r\nX: ", wide, "\r\n\r\n", 431, "\"target\":\"/r3\""},
        {"GET /r4 HTTP/1.2\r\nHost: a\r\n\r\n", "", "", 505, "\"protocol\":\"HTTP/1.2\""},
        {"GET /api/r5 HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", "", "", 417, "/api/r5\""},
        {"BREW /r6 HTTP/1.1\r\nHost: a\r\n\r\n", "", "", 501, "\"method\":\"BREW\""},
        {"\x16\x03\x01\x02\x01\r\n\r\n", "", "", 400, "\"target\":\"\\u0016\\u0003"},
        {"POST /api/r8 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "", "",
         400, "\"target\":\"/api/r8\""},
        {"GET /r9 HTTP/1.1\r\nHost: ", "", "", 408, "\"target\":\"/r9\""},
        {"POST /api/r10 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", "", "", 408,
         "\"target\":\"/api/r10\""},
    };
    start(&h, 1, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char status[32];
        snprintf(status, sizeof status, "\"status\":%d,", cases[i].status);
        const int fd = client_connect(h.port);
        client_send(fd, "%s", cases[i].before);
        client_send(fd, "%s", cases[i].middle);
        client_send(fd, "%s", cases[i].after);
        client_read(fd, &m, false);
        assert_int_equal(m.status, cases[i].status);
        const char *line = the_line(status, cases[i].also);
        expect_id(line, &m);
        assert_int_equal(access_number(line, "bytes"), (long)m.body_len);
        message_free(&m);
        close(fd);
        assert_int_equal(access_lines(), i + 1);
    }
    house_remove(&h);
}

/* A connection that has been accepted, and stays. */
static int kept_connection(unsigned port)
{
    struct message m;
    const int fd = client_connect(port);
    client_send(fd, "GET /api/kept HTTP/1.1\r\nHost: h\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    message_free(&m);
    return fd;
}

static void refuses_with(struct house *h, const char *limit)
{
    struct message m;
    char name[64];
    snprintf(name, sizeof name, "\"limit\":\"%s\"", limit);
    assert_int_equal(get(h->port, "/api/one", &m), 503);
    const char *line = the_line(name);
    assert_int_equal(access_number(line, "status"), 503);
    assert_int_equal(access_number(line, "bytes"), (long)m.body_len);
    expect_id(line, &m);
    message_free(&m);
}

static void refused_connections_have_a_line(void **state)
{
    (void)state;
    struct house h;
    int fd[2];
    start(&h, 1, "max_connections = 9\nmax_connections_per_client = 2\nclient_timeout = 20s");
    fd[0] = kept_connection(h.port);
    fd[1] = kept_connection(h.port);
    refuses_with(&h, "max_connections_per_client");
    close(fd[0]);
    close(fd[1]);
    house_remove(&h);
    unlink(access_path);
    start(&h, 1, "max_connections = 1\nclient_timeout = 20s");
    fd[0] = kept_connection(h.port);
    refuses_with(&h, "max_connections");
    close(fd[0]);
    house_remove(&h);
}

static void the_store_is_named_as_cache_status_names_it(void **state)
{
    (void)state;
    struct house h;
    static const struct {
        const char *method, *target, *cache;
        unsigned pause_ms;
    } cases[] = {{"GET", "/c/stale", "revalidated", 20},
                 {"GET", "/c/stale-swr", "stale", 1200},
                 {"POST", "/c/post", "bypass", 20}};
    start(&h, 1, "");
    assert_int_equal(get(h.port, "/c/fresh", NULL), 200);
    assert_non_null(strstr(the_line("/c/fresh"), "\"cache\":\"miss\""));
    wait_until(served_from_store(h.port, "/c/fresh"), 5000);
    const char *hit = the_line("/c/fresh", "\"cache\":\"hit\"");
    assert_true(access_number(hit, "us") > 0);
    assert_int_equal(access_number(hit, "bytes"), 5);
    assert_null(strstr(hit, "\"upstream"));
    assert_int_equal(get_with(h.port, "/c/fresh", "Range: bytes=1-2\r\n", NULL), 206);
    assert_int_equal(access_number(the_line("\"status\":206", "\"cache\":\"hit\""), "bytes"), 2);
    assert_int_equal(get_with(h.port, "/c/fresh", "Range: bytes=90-\r\n", NULL), 416);
    the_line("\"status\":416", "\"cache\":\"hit\"");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char target[64], word[64];
        const char *const words[] = {target, word, NULL};
        snprintf(target, sizeof target, "\"target\":\"%s\"", cases[i].target);
        snprintf(word, sizeof word, "\"cache\":\"%s\"", cases[i].cache);
        /* seldom: what is asked for often is refreshed before it is stale */
        wait_until((request(h.port, cases[i].method, cases[i].target, "", NULL, NULL),
                    nap_ms(cases[i].pause_ms), access_lines_with(NULL, words) > 0),
                   30000);
    }
    house_remove(&h);
}

static void a_client_that_leaves_has_a_line_with_what_it_got(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char some[4096];
    start(&h, 1, "client_half_close = answer");
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd = client_connect(h.port); /* half a head */
    client_send(fd, "GET /left-early HTT");
    nap_ms(50);
    close(fd);
    assert_int_equal(access_number(the_line("/left-early", "\"status\":499"), "bytes"), 0);

    fd = client_connect(h.port); /* while the backend thinks */
    client_send(fd, "GET /never HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_until(backend_calls(b) > 0, 5000);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    const char *line = the_line("\"target\":\"/never\"");
    assert_int_equal(access_number(line, "status"), 499);
    assert_int_equal(access_number(line, "bytes"), 0);
    assert_non_null(strstr(line, "\"upstream\":\"127.0.0.1:"));
    assert_null(strstr(line, "\"cut\""));

    fd = client_connect(h.port); /* in the middle of the body */
    client_send(fd, "GET /long HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    line = the_line("\"target\":\"/long\"");
    assert_int_equal(access_number(line, "status"), 499);
    assert_true(access_number(line, "bytes") <= 5);

    get_with(h.port, "/p/x", "", &m); /* held */
    wait_until((message_free(&m), get(h.port, "/p/x", &m),
                field_of(&m, "Cache-Status") && strstr(field_of(&m, "Cache-Status"), "hit")),
               5000);
    message_free(&m);
    fd = client_connect(h.port);
    client_send(fd, "GET /p/x HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"p\"\r\nPrefer: wait=60\r\n"
                    "User-Agent: holder\r\n\r\n");
    nap_ms(100);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    line = the_line("\"user_agent\":\"holder\"");
    assert_int_equal(access_number(line, "status"), 499);
    assert_non_null(strstr(line, "\"route\":\"/p/*\""));
    house_remove(&h);
}

static void an_answer_that_is_cut_short_says_by_what(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    static const char *const words[][2] = {{"/cut", "\"cut\":\"upstream-closed\""},
                                           {"/silent", "\"cut\":\"upstream-timeout\""}};
    start(&h, 1, "");
    for (size_t i = 0; i < 2; i++) {
        const int fd = client_connect(h.port);
        client_send(fd, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", words[i][0]);
        client_read(fd, &m, false);
        assert_false(m.complete);
        message_free(&m);
        close(fd);
        const char *line = the_line(words[i][0], words[i][1]);
        assert_int_equal(access_number(line, "status"), 200);
        assert_int_equal(access_number(line, "bytes"), 5);
    }
    assert_int_equal(access_lines(), 2);
    house_remove(&h);
}

static void a_request_has_one_name_everywhere(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char first[64], seen[64];
    start(&h, 1, "trusted_proxies = {\"127.0.0.0/8\"}");
    assert_int_equal(get(h.port, "/echo-id", &m), 200);
    snprintf(first, sizeof first, "%s", field_of(&m, "X-Request-Id")); /* not the backend's */
    snprintf(seen, sizeof seen, "%s", field_of(&m, "Seen"));
    assert_string_equal(first, seen);
    expect_id(the_line(first), &m);
    message_free(&m);
    assert_int_equal(get_with(h.port, "/echo-id", "X-Request-Id: proxy-7.a\r\n", &m), 200);
    assert_string_equal(field_of(&m, "X-Request-Id"), "proxy-7.a");
    assert_string_equal(field_of(&m, "Seen"), "proxy-7.a");
    the_line("\"request_id\":\"proxy-7.a\"");
    message_free(&m);
    assert_int_equal(get_with(h.port, "/echo-id", "X-Request-Id: no token \"x\"\r\n", &m), 200);
    assert_null(strstr(field_of(&m, "X-Request-Id"), "token"));
    message_free(&m);
    house_remove(&h);
    unlink(access_path);

    start(&h, 1, ""); /* nobody is trusted */
    assert_int_equal(get_with(h.port, "/echo-id", "X-Request-Id: mine\r\n", &m), 200);
    assert_string_not_equal(field_of(&m, "X-Request-Id"), "mine");
    message_free(&m);
    house_remove(&h);
}

static void each_hit_has_a_name_of_its_own(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char last[64] = "";
    house_start(&h, 1,
                "trusted_proxies = {\"127.0.0.0/8\"}\ncache { leak_guard = 0 }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/c/*\" { upstream = u cache { } }\n",
                backend_port(b));
    wait_until((get(h.port, "/c/fresh", NULL), served_from_store(h.port, "/c/fresh")), 5000);
    const int fd = client_connect(h.port);
    for (int i = 0; i < 10; i++) { /* from the second on the shortest way */
        client_send(fd, "GET /c/fresh HTTP/1.1\r\nHost: h\r\n\r\n");
        client_read(fd, &m, false);
        const char *id = field_of(&m, "X-Request-Id");
        assert_non_null(id);
        assert_int_equal(strlen(id), 24);
        assert_string_not_equal(id, last);
        snprintf(last, sizeof last, "%s", id);
        message_free(&m);
    }
    for (int i = 0; i < 3; i++) {
        client_send(fd, "GET /c/fresh HTTP/1.1\r\nHost: h\r\nX-Request-Id: given\r\n\r\n");
        client_read(fd, &m, false);
        assert_string_equal(field_of(&m, "X-Request-Id"), "given");
        message_free(&m);
    }
    close(fd);
    house_write_conf(&h, 1, "request_id = off\n");
    house_remove(&h);

    house_start(&h, 1,
                "request_id = off\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = u }\n",
                backend_port(b));
    assert_int_equal(get(h.port, "/echo-id", &m), 200);
    assert_string_equal(field_of(&m, "X-Request-Id"), "of-the-backend");
    assert_int_equal(strlen(field_of(&m, "Seen")), 24);
    message_free(&m);
    house_remove(&h);
}

static void the_log_names_the_request_that_a_server_has_failed(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char text[128];
    start(&h, 1, "");
    assert_int_equal(get(h.port, "/gone", &m), 502);
    snprintf(text, sizeof text, "(request %s)", field_of(&m, "X-Request-Id"));
    wait_until(house_logged(&h, text), 5000);
    message_free(&m);
    house_remove(&h);
}

static void a_connection_without_its_proxy_header_is_in_the_log(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "proxy_protocol = true");
    for (int i = 0; i < 3; i++) {
        const int fd = client_connect(h.port);
        client_send(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_true(client_closed(fd, 5000));
        close(fd);
    }
    wait_until(house_logged(&h, "proxy_protocol: a connection from 127.0.0.1 was closed"), 5000);
    assert_int_equal(access_lines(), 0); /* nothing was asked */
    house_remove(&h);
}

/* ---- the file ---- */

static unsigned count_lines(const char *file, unsigned *bad)
{
    static char line[65536];
    unsigned n = 0;
    FILE *f = fopen(file, "r");
    while (f && fgets(line, sizeof line, f)) {
        n++;
        *bad +=
            strncmp(line, "{\"time\":\"", 9) != 0 || strcmp(line + strlen(line) - 2, "}\n") != 0;
    }
    if (f)
        fclose(f);
    return n;
}

static void rotation_under_load_loses_no_line(void **state)
{
    (void)state;
    enum { REQUESTS = 6000, ROUNDS = 12 };
    struct house h;
    unsigned counts[1000] = {0}, lines = 0, bad = 0;
    const char *out;
    start(&h, 2, "");
    const pid_t load = fork();
    if (load == 0) {
        storm(h.port, "/c/fresh", REQUESTS, 8, counts, NULL);
        _exit(counts[200] == REQUESTS ? 0 : 1);
    }
    for (int i = 0; i < ROUNDS; i++) {
        if (rename(access_path, access_rotated) == 0) {
            if (i % 2) {
                assert_int_equal(ctl(&h, &out, "log reopen"), 0);
                assert_non_null(strstr(out, access_path));
                struct stat before, after; /* nobody writes to the old one any more */
                assert_int_equal(stat(access_rotated, &before), 0);
                nap_ms(20);
                assert_int_equal(stat(access_rotated, &after), 0);
                assert_int_equal(before.st_size, after.st_size);
            } else {
                kill(h.pid, SIGUSR1);
                wait_until(access(access_path, F_OK) == 0, 10000);
                assert_int_equal(ctl(&h, &out, "log reopen"), 0); /* all have changed over */
            }
            lines += count_lines(access_rotated, &bad);
        }
        nap_ms(20);
    }
    int status;
    assert_int_equal(waitpid(load, &status, 0), load);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(house_stop(&h), 0); /* the last lines are out */
    lines += count_lines(access_path, &bad);
    assert_int_equal(lines, REQUESTS);
    assert_int_equal(bad, 0);
    house_remove(&h);
}

static void a_worker_without_descriptors_takes_the_next_file(void **state)
{
    (void)state;
    struct house h;
    struct rlimit whole, none;
    const char *out;
    pid_t worker;
    start(&h, 1, "");
    assert_int_equal(house_children(&h, "polderd: worker", &worker, 1), 1);
    assert_int_equal(prlimit(worker, RLIMIT_NOFILE, NULL, &whole), 0);
    none = (struct rlimit){0, whole.rlim_max};
    assert_int_equal(prlimit(worker, RLIMIT_NOFILE, &none, NULL), 0);
    kill(h.pid, SIGUSR1);
    wait_until(house_logged(&h, "access log: cannot take the new file"), 10000);
    assert_int_equal(prlimit(worker, RLIMIT_NOFILE, &whole, NULL), 0);
    assert_int_equal(rename(access_path, access_rotated), 0);
    assert_int_equal(ctl(&h, &out, "log reopen"), 0);
    assert_int_equal(get(h.port, "/api/after", NULL), 200);
    the_line("/api/after"); /* in the new one */
    house_remove(&h);
}

static void a_worker_outlives_the_largest_size_of_a_file(void **state)
{
    (void)state;
    enum { LARGEST = 1 << 20 }; /* far more than the log in which it is told grows to */
    struct house h;
    struct rlimit whole, some;
    pid_t worker, now;
    start(&h, 1, "");
    assert_int_equal(house_children(&h, "polderd: worker", &worker, 1), 1);
    assert_int_equal(prlimit(worker, RLIMIT_FSIZE, NULL, &whole), 0);
    some = (struct rlimit){LARGEST, whole.rlim_max};
    assert_int_equal(prlimit(worker, RLIMIT_FSIZE, &some, NULL), 0);
    assert_int_equal(truncate(access_path, LARGEST), 0);
    assert_int_equal(get(h.port, "/api/full", NULL), 200);
    wait_until(house_logged(&h, "File too large"), 10000);
    assert_int_equal(prlimit(worker, RLIMIT_FSIZE, &whole, NULL), 0);
    assert_int_equal(truncate(access_path, 0), 0);
    assert_int_equal(get(h.port, "/api/after", NULL), 200);
    the_line("/api/after");
    assert_int_equal(house_children(&h, "polderd: worker", &now, 1), 1);
    assert_int_equal(now, worker);
    house_remove(&h);
}

static void a_reload_goes_on_with_the_file_that_it_names(void **state)
{
    (void)state;
    struct house h;
    char more[512];
    const char *out;
    start(&h, 1, "");
    assert_int_equal(get(h.port, "/api/before", NULL), 200);
    the_line("/api/before");
    snprintf(more, sizeof more,
             "access_log = \"combined:%s\"\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "route \"/api/*\" { upstream = u }\n",
             access_rotated, backend_port(b));
    house_write_conf(&h, 1, more);
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    /* a worker of before may take a connection or two that had come before it left */
    wait_until(
        (get(h.port, "/api/after", NULL),
         strstr(access_text(access_rotated), "\"GET /api/after HTTP/1.1\" 200 5 \"-\" \"-\"\n")),
        5000);
    house_remove(&h);
}

static void a_log_that_cannot_be_opened_stops_the_start_and_a_reload(void **state)
{
    (void)state;
    struct house h;
    char more[512], closed[128];
    const char *out;
    if (getuid() != 0)
        skip();
    snprintf(closed, sizeof closed, "%s/closed", access_dir);
    assert_int_equal(mkdir(closed, 0700), 0); /* of root alone */
    snprintf(more, sizeof more,
             "user = nobody\naccess_log = \"json:%s/access.log\"\n"
             "route \"/events\" { websocket { } }\n",
             closed);
    house_start(&h, 1, "user = nobody\nroute \"/events\" { websocket { } }\n");
    house_write_conf(&h, 1, more);
    assert_int_equal(ctl(&h, &out, "reload --wait"), 1);
    assert_non_null(strstr(out, "access_log"));
    assert_int_equal(get(h.port, "/none", NULL), 404);
    assert_int_equal(house_stop(&h), 0);

    const pid_t pid = fork();
    if (pid == 0) {
        const int log = open(h.log, O_WRONLY | O_APPEND);
        dup2(log, 2);
        execl(built("polderd"), "polderd", "-c", h.conf, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_in_range(WEXITSTATUS(status), 1, 2);
    assert_true(house_logged(&h, "access_log"));
    assert_true(house_logged(&h, "nobody"));
    assert_true(house_logged(&h, closed));
    house_remove(&h);
    rmdir(closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define STORY(f) cmocka_unit_test_setup_teardown(f, access_set_up, access_tear_down)
        STORY(what_a_line_says_of_an_answer),
        STORY(polders_own_answers_have_a_line_with_the_size_of_their_body),
        STORY(what_the_parser_refuses_has_a_line),
        STORY(refused_connections_have_a_line),
        STORY(the_store_is_named_as_cache_status_names_it),
        STORY(a_client_that_leaves_has_a_line_with_what_it_got),
        STORY(an_answer_that_is_cut_short_says_by_what),
        STORY(a_request_has_one_name_everywhere),
        STORY(each_hit_has_a_name_of_its_own),
        STORY(the_log_names_the_request_that_a_server_has_failed),
        STORY(a_connection_without_its_proxy_header_is_in_the_log),
        STORY(rotation_under_load_loses_no_line),
        STORY(a_worker_without_descriptors_takes_the_next_file),
        STORY(a_worker_outlives_the_largest_size_of_a_file),
        STORY(a_reload_goes_on_with_the_file_that_it_names),
        STORY(a_log_that_cannot_be_opened_stops_the_start_and_a_reload),
    };
    return run_with_backend(tests, &b, answer);
}
