/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stories of backends that lie, on a route with a cache: what is not whole is not passed as whole,
 * what is not clear is not stored, and what was said too much is nobody's answer. Framing alone is
 * in test_vectors.c, floods of hints in test_poison.c.
 */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRESH "Cache-Control: max-age=600\r\n"
#define EVIL                                                                                       \
    "HTTP/1.1 200 OK\r\n" FRESH "Content-Length: 4\r\n\r\nEVIL" /* an answer nobody asked for */

enum stored { STORED, NOT_STORED };

struct lie {
    const char *name;
    const char *raw;   /* what the backend says */
    bool then_close;   /* and then hangs up */
    const char *lines; /* of the client's request */
    int status;        /* what the client sees of it */
    bool whole;
    const char *body; /* NULL: of no interest */
    enum stored stored;
};

static const struct lie lies[] = {
    {"shorter than its length", "HTTP/1.1 200 OK\r\n" FRESH "Content-Length: 100\r\n\r\nonly this",
     true, "", 200, false, NULL, NOT_STORED},
    {"longer than its length", "HTTP/1.1 200 OK\r\n" FRESH "Content-Length: 5\r\n\r\nhello" EVIL,
     false, "", 200, true, "hello", STORED},
    {"chunks that end early",
     "HTTP/1.1 200 OK\r\n" FRESH "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true, "", 200,
     false, NULL, NOT_STORED},
    {"chunks that end in the middle of one",
     "HTTP/1.1 200 OK\r\n" FRESH "Transfer-Encoding: chunked\r\n\r\n50\r\nhello", true, "", 200,
     false, NULL, NOT_STORED},
    {"a chunk of no size",
     "HTTP/1.1 200 OK\r\n" FRESH
     "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nhello\r\n0\r\n\r\n",
     false, "", 200, false, NULL, NOT_STORED},
    {"chunks and a length",
     "HTTP/1.1 200 OK\r\n" FRESH
     "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     false, "", 502, true, NULL, NOT_STORED},
    {"two lengths",
     "HTTP/1.1 200 OK\r\n" FRESH "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", false, "",
     502, true, NULL, NOT_STORED},
    {"a coding that is no transfer coding",
     "HTTP/1.1 200 OK\r\n" FRESH "Transfer-Encoding: gzip\r\n\r\nhello", true, "", 502, true, NULL,
     NOT_STORED},
    {"dates that are none",
     "HTTP/1.1 200 OK\r\nDate: the day before yesterday\r\nExpires: soon\r\nLast-Modified: 0\r\n"
     "Content-Length: 5\r\n\r\nhello",
     false, "", 200, true, "hello", NOT_STORED},
    {"an age that is none",
     "HTTP/1.1 200 OK\r\n" FRESH "Age: -1, banana\r\nContent-Length: 5\r\n\r\nhello", false, "",
     200, true, "hello", STORED},
    {"304 to what was no question", "HTTP/1.1 304 Not Modified\r\n" FRESH "ETag: \"a\"\r\n\r\n",
     false, "", 502, true, NULL, NOT_STORED},
    {"304 to what only the client had asked",
     "HTTP/1.1 304 Not Modified\r\n" FRESH "ETag: \"a\"\r\n\r\n", false, "If-None-Match: \"a\"\r\n",
     502, true, NULL, NOT_STORED},
    {"304 with a body", "HTTP/1.1 304 Not Modified\r\n" FRESH "Content-Length: 86\r\n\r\n" EVIL,
     false, "", 502, true, NULL, NOT_STORED},
    {"206 without a range asked for",
     "HTTP/1.1 206 Partial Content\r\n" FRESH
     "Content-Range: bytes 0-4/10\r\nContent-Length: 5\r\n\r\nhello",
     false, "", 502, true, NULL, NOT_STORED},
    {"206 of another range",
     "HTTP/1.1 206 Partial Content\r\n" FRESH
     "Content-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nworld",
     false, "Range: bytes=0-4\r\n", 206, true, "world", NOT_STORED},
    {"206 of more than there is",
     "HTTP/1.1 206 Partial Content\r\n" FRESH
     "Content-Range: bytes 0-9/5\r\nContent-Length: 5\r\n\r\nhello",
     false, "Range: bytes=0-4\r\n", 206, true, NULL, NOT_STORED},
    {"206 that does not say of what",
     "HTTP/1.1 206 Partial Content\r\n" FRESH "Content-Length: 5\r\n\r\nhello", false,
     "Range: bytes=0-4\r\n", 206, true, NULL, NOT_STORED},
    {"416 without a range asked for",
     "HTTP/1.1 416 Range Not Satisfiable\r\n" FRESH "Content-Length: 0\r\n\r\n", false, "", 416,
     true, NULL, NOT_STORED},
    {"a coding that there is not",
     "HTTP/1.1 200 OK\r\n" FRESH "Content-Encoding: zipped-twice\r\nContent-Length: 5\r\n\r\nhello",
     false, "Accept-Encoding: gzip\r\n", 200, true, "hello", STORED},
    {"gzip that is none",
     "HTTP/1.1 200 OK\r\n" FRESH "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", false,
     "Accept-Encoding: gzip\r\n", 200, true, "hello", STORED},
    {"204 with a body", "HTTP/1.1 204 No Content\r\n" FRESH "Content-Length: 86\r\n\r\n" EVIL,
     false, "", 204, true, "", STORED},
    {"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\n\r\n" EVIL, false, "",
     502, true, NULL, NOT_STORED},
    {"a status that is none", "HTTP/1.1 99 Odd\r\n" FRESH "Content-Length: 5\r\n\r\nhello", false,
     "", 502, true, NULL, NOT_STORED},
    {"no status line", "HTTP/1.1 200 OK\r\n" FRESH "Content-Length 5\r\n\r\nhello", false, "", 502,
     true, NULL, NOT_STORED},
    {"two answers at once", "HTTP/1.1 200 OK\r\n" FRESH "Content-Length: 0\r\n\r\n" EVIL, false, "",
     200, true, "", STORED},
};
#define LIES (sizeof lies / sizeof *lies)

static atomic_uint asked[LIES];

static atomic_uint said_more; /* times that something came behind an answer */

static bool answers(struct asked *a)
{
    unsigned n;
    char body[128];
    if (sscanf(a->target, "/lie/%u", &n) == 1 && n < LIES) {
        atomic_fetch_add(&asked[n], 1);
        return reply_bytes(a, lies[n].raw, strlen(lies[n].raw)) && !lies[n].then_close;
    }
    if (!strncmp(a->target, "/endless", 8)) {
        bool ok = reply(a, "HTTP/1.1 200 OK\r\n" FRESH);
        for (int i = 0; ok && i < 1000000; i++)
            ok = reply(a, "X-%d: and on it goes\r\n", i);
        return false;
    }
    if (!strncmp(a->target, "/afterwards", 11)) {
        const bool ok = reply_ok(a, FRESH, "first");
        nap_ms(50); /* the connection is back in the pool by now */
        const bool more = ok && reply(a, EVIL);
        atomic_fetch_add(&said_more, 1);
        return more;
    }
    snprintf(body, sizeof body, "ok %.100s", a->target);
    return reply_ok(a, "Cache-Control: no-store\r\n", body);
}

struct town {
    struct house house;
    struct backend *backend;
};

static int set_up(void **state)
{
    struct town *t = calloc(1, sizeof *t);
    t->backend = backend_start(answers, NULL);
    house_start(&t->house, 2,
                "cache { ttl = \"5m\" stale_while_revalidate = \"0s\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"2s\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(t->backend));
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

/* Whoever comes next, over whatever connection of the pool, gets what he asked for. */
static void others_are_answered(struct town *t, const char *name)
{
    for (unsigned i = 0; i < 12; i++) {
        struct message m;
        char target[32], want[64];
        snprintf(target, sizeof target, "/ok/%u", i);
        snprintf(want, sizeof want, "ok %s", target);
        const int status = get(t->house.port, target, &m);
        if (status != 200 || !m.complete || strcmp(m.body, want) != 0)
            fail_msg("%s: the next one got %d '%s' for %s", name, status, m.body, target);
        message_free(&m);
    }
}

static void look_at(struct town *t, unsigned n)
{
    const struct lie *l = &lies[n];
    struct message m;
    char target[32];
    bool hit = false;
    snprintf(target, sizeof target, "/lie/%u", n);
    for (unsigned i = 0; i < 6; i++) {
        const int status = get_with(t->house.port, target, l->lines, &m);
        const char *cache = status ? field_of(&m, "Cache-Status") : NULL;
        hit = hit || (cache && strstr(cache, "polder; hit"));
        if (status != l->status || m.complete != l->whole ||
            (l->body && strcmp(m.body, l->body) != 0))
            fail_msg("%s: %d, %s, '%s'", l->name, status, m.complete ? "whole" : "not whole",
                     m.body);
        if (m.body && strstr(m.body, "EVIL"))
            fail_msg("%s: more was passed than was asked for", l->name);
        message_free(&m);
        others_are_answered(t, l->name);
    }
    if (hit != (l->stored == STORED))
        fail_msg("%s: it was %s", l->name, hit ? "stored" : "not stored");
    if (l->stored == NOT_STORED && atomic_load(&asked[n]) < 6)
        fail_msg("%s: the backend was asked only %u times", l->name, atomic_load(&asked[n]));
}

static void no_lie_is_stored_or_passed_as_the_whole_truth(void **state)
{
    struct town *t = *state;
    const char *only = getenv("POLDER_LIE");
    for (unsigned n = 0; n < LIES; n++)
        if (!only || strstr(lies[n].name, only))
            look_at(t, n);
}

static void heads_without_end_are_given_up(void **state)
{
    struct town *t = *state;
    assert_int_equal(get(t->house.port, "/endless", NULL), 502);
    others_are_answered(t, "heads without end");
}

static void what_is_said_after_the_answer_is_heard_by_nobody(void **state)
{
    struct town *t = *state;
    struct message m;
    for (unsigned i = 0; i < 20; i++) {
        char target[32];
        const unsigned before = atomic_load(&said_more);
        snprintf(target, sizeof target, "/afterwards/%u", i);
        assert_int_equal(get(t->house.port, target, &m), 200);
        assert_string_equal(m.body, "first");
        message_free(&m);
        /* it has come; what comes after the next question nobody can tell */
        wait_until(atomic_load(&said_more) == before + 1, 5000);
        others_are_answered(t, "afterwards");
    }
}

/* The worker finds both at once, what was said too much and the next question. */
static void what_came_before_the_question_is_no_answer_to_it(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    pid_t worker;
    struct backend *b = backend_start(answers, NULL);
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" "
                "}\n",
                backend_port(b));
    assert_int_equal(house_children(&h, "polderd: worker", &worker, 1), 1);
    for (unsigned i = 0; i < 20; i++) {
        int fd = client_connect(h.port);
        client_send(fd, "GET /ok/%u HTTP/1.1\r\nHost: test.example\r\n\r\n", i);
        client_read(fd, &m, false);
        message_free(&m);
        const unsigned before = atomic_load(&said_more);
        assert_int_equal(get(h.port, "/afterwards", NULL), 200);
        kill(worker, SIGSTOP);
        wait_until(atomic_load(&said_more) == before + 1, 5000);
        client_send(fd, "GET /ok/%u HTTP/1.1\r\nHost: test.example\r\n\r\n", 100 + i);
        nap_ms(10);
        kill(worker, SIGCONT);
        client_read(fd, &m, false);
        assert_memory_equal(m.body, "ok /ok/1", 8);
        message_free(&m);
        close(fd);
    }
    house_remove(&h);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_lie_is_stored_or_passed_as_the_whole_truth),
        cmocka_unit_test(heads_without_end_are_given_up),
        cmocka_unit_test(what_is_said_after_the_answer_is_heard_by_nobody),
        cmocka_unit_test(what_came_before_the_question_is_no_answer_to_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
