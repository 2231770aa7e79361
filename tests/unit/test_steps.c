/* SPDX-License-Identifier: BSD-2-Clause */
/* The steps of a request (request/steps.c) over connections in memory: which of them answers, which
 * hands the request on, and which lets it wait. */
#include "memory_house.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/request/repeat.h"
#include "polder/inval.h"
#include "polder/leak_guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WAITS_MS 20000 /* for the keeper, at most */

#define HOST "Host: h\r\n"
#define KEY  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define UPGRADE                                                                                    \
    HOST "Connection: upgrade\r\nUpgrade: websocket\r\n" KEY "Sec-WebSocket-Version: 13\r\n"

static const char config[] =
    "cache { max_bytes = \"16M\" compress = {\"off\"} }\n"
    "limit \"none\" { requests = 1 window = \"1h\" key = \"global\" }\n"
    "upstream \"b\" { server \"127.0.0.1:9\" { } park = \"0s\" }\n"
    "route \"/c/*\" { upstream = \"b\" cache { } }\n"
    "route \"/poll/*\" { upstream = \"b\" cache { } poll { min_interval = \"60s\" } }\n"
    "route \"/limited\" { upstream = \"b\" limits = {\"none\"} }\n"
    "route \"/ws/*\" { websocket { } }\n"
    "route \"/both/*\" { upstream = \"b\" websocket { } }\n"
    "route \"/plain/*\" { upstream = \"b\" }\n";

static struct memory_house *house;

/* ---- what is asked, and what is seen ---- */

static const char *text_of(struct memory_peer *p)
{
    p->out[p->out_len] = 0;
    return p->out;
}

static bool has(struct memory_peer *p, const char *text)
{
    return strstr(text_of(p), text) != NULL;
}

static void put(struct memory_peer *p, const char *text)
{
    memory_put(p, text, strlen(text));
    memory_settle(house);
}

/* The backend that has a request and has not answered; NULL: none. */
static struct memory_peer *asked(void)
{
    for (unsigned i = 0; i < house->n_backends; i++)
        if (house->backend[i]->transport && house->backend[i]->out_len > house->backend[i]->seen)
            return house->backend[i];
    return NULL;
}

static void backend_says(const char *answer)
{
    struct memory_peer *p = asked();
    assert_non_null(p);
    p->seen = p->out_len;
    put(p, answer);
}

/* The bytes of one more answer; what waits for the keeper is waited for. */
static void expect_answer(struct memory_peer *client, const char *begins)
{
    for (unsigned i = 0; !client->out_len; i++) {
        if (i == WAITS_MS)
            fail_msg("no answer that begins with %s", begins);
        memory_settle(house);
        usleep(1000);
    }
    if (strncmp(text_of(client), begins, strlen(begins)))
        fail_msg("wanted %s, got %s", begins, text_of(client));
}

static void forget(struct memory_peer *client)
{
    memory_free(house, client);
    memory_settle(house);
    memory_forget_closed(house);
}

/* ---- the table ---- */

struct stop {
    const char *step;
    const char *request;
    const char *answer; /* begins so, without a word to a backend; NULL: it waits for one */
    const char *says;   /* the answer has this in it; NULL */
    bool closes;
};

static const struct stop stops[] = {
    {"parse", "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", "HTTP/1.1 400 ", NULL, true},
    {"parse", "G\001T / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", NULL, true},
    {"parse", "TRACE /c/a HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 501 ", NULL, true},
    {"identify", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 204 ", "Allow: ", false},
    {"identify", "GET /c/a HTTP/1.1\r\n" HOST "Via: 1.1 here\r\n\r\n", "HTTP/1.1 508 ", NULL,
     false},
    {"route", "GET /nowhere HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 ", NULL, false},
    {"route", "GET /c/%2 HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 400 ", "an escape", false},
    {"websocket", "GET /ws/a HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 426 ", "WebSocket only", false},
    {"websocket",
     "GET /ws/a HTTP/1.1\r\n" HOST "Connection: upgrade\r\nUpgrade: websocket\r\n" KEY
     "Sec-WebSocket-Version: 12\r\n\r\n",
     "HTTP/1.1 426 ", "Sec-WebSocket-Version: 13", false},
    {"websocket",
     "GET /ws/a HTTP/1.1\r\n" HOST "Connection: upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n",
     "HTTP/1.1 400 ", "16 bytes", true},
    {"hand over", "GET /ws/a HTTP/1.1\r\n" UPGRADE "\r\n", "HTTP/1.1 503 ", "Retry-After", true},
    {"hand over", "GET /both/a HTTP/1.1\r\n" UPGRADE "\r\n", "HTTP/1.1 503 ", NULL, true},
    {"fetch", "GET /both/a HTTP/1.1\r\n" HOST "\r\n", NULL, "HTTP/1.1 200 ", false},
    {"fetch", "GET /plain/a HTTP/1.1\r\n" UPGRADE "\r\n", NULL, "HTTP/1.1 200 ", false},
    {"fetch", "GET /c/none HTTP/1.1\r\n" HOST "Cache-Control: only-if-cached\r\n\r\n",
     "HTTP/1.1 504 ", NULL, false},
    {"fetch", "GET /c/new HTTP/1.1\r\n" HOST "\r\n", NULL, "fwd=uri-miss", false},
    {"fetch", "POST /c/new HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", NULL, "fwd=method",
     false},
};

static void expect_stop(const struct stop *s)
{
    struct memory_peer *client = memory_client(house);
    put(client, s->request);
    if ((s->answer == NULL) != (asked() != NULL))
        fail_msg("%s: %s: a backend was%s asked", s->step, s->request, s->answer ? "" : " not");
    if (!s->answer) {
        assert_int_equal(client->out_len, 0);
        backend_says("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nhi");
    }
    expect_answer(client, s->answer ? s->answer : "HTTP/1.1 200 ");
    if (s->says && !has(client, s->says))
        fail_msg("%s: %s: no %s in %s", s->step, s->request, s->says, text_of(client));
    if ((client->transport == NULL || client->finished) != s->closes)
        fail_msg("%s: %s: it is%s closed", s->step, s->request, s->closes ? " not" : "");
    forget(client);
}

static void each_step_answers_or_goes_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        expect_stop(&stops[i]);
}

/* ---- those that take more than one request ---- */

static void a_head_in_pieces_waits_for_the_rest(void **state)
{
    (void)state;
    struct memory_peer *client = memory_client(house);
    put(client, "\r\n");
    put(client, "GET /nowhere HTTP/1.1\r\nHo");
    assert_int_equal(client->out_len, 0);
    put(client, "st: h\r\n\r\n");
    expect_answer(client, "HTTP/1.1 404 ");
    forget(client);
}

static void what_is_over_a_limit_goes_no_further(void **state)
{
    static const char request[] = "GET /limited HTTP/1.1\r\n" HOST "\r\n";
    (void)state;
    struct memory_peer *client = memory_client(house);
    put(client, request);
    backend_says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect_answer(client, "HTTP/1.1 200 ");
    client->out_len = 0;
    put(client, request);
    assert_null(asked());
    expect_answer(client, "HTTP/1.1 429 ");
    assert_true(has(client, "\"violated-policies\":[\"none\"]"));
    forget(client);
}

/* Asks until the store answers; what the backend is asked meanwhile it answers so. */
static struct memory_peer *ask_until_stored(const char *request, const char *answer,
                                            const char *shows)
{
    struct memory_peer *client = memory_client(house);
    for (unsigned i = 0; i < WAITS_MS; i++) {
        client->out_len = client->in_at = client->in_len = 0;
        put(client, request);
        if (asked())
            backend_says(answer);
        expect_answer(client, "HTTP/1.1 20");
        if (has(client, shows))
            return client;
        usleep(1000);
    }
    fail_msg("the keeper stores nothing");
    return NULL;
}

static void a_fresh_copy_answers_without_a_backend(void **state)
{
    (void)state;
    struct memory_peer *client = ask_until_stored(
        "GET /c/hit HTTP/1.1\r\n" HOST "\r\n",
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nhi", "; hit");
    assert_true(has(client, "\r\n\r\nhi"));
    forget(client);
}

static void a_part_that_is_stored_answers_for_its_range(void **state)
{
    (void)state;
    struct memory_peer *client =
        ask_until_stored("GET /c/part HTTP/1.1\r\n" HOST "Range: bytes=0-1\r\n\r\n",
                         "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=600\r\n"
                         "ETag: \"p\"\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nhi",
                         "; hit");
    expect_answer(client, "HTTP/1.1 206 ");
    assert_true(has(client, "Content-Range: bytes 0-1/9\r\n"));
    forget(client);
}

static struct guard_route *guard_of(const char *pattern)
{
    const struct config *c = house->w->config;
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (!strcmp(c->routes[i].pattern, pattern))
            return house->w->routes[c->routes[i].index].guard;
    fail_msg("no route %s", pattern);
    return NULL;
}

static void a_quarantined_url_passes_by_its_fresh_copy(void **state)
{
    static const char request[] = "GET /c/leaks HTTP/1.1\r\n" HOST "\r\n",
                      answer[] = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"
                                 "Content-Length: 2\r\n\r\nhi";
    (void)state;
    struct memory_peer *client = ask_until_stored(request, answer, "; hit");
    assert_non_null(guard_close(guard_of("/c/*"), "h/c/leaks", 9, house->w->real_ms));
    client->out_len = 0;
    put(client, request);
    assert_non_null(asked());
    backend_says(answer);
    expect_answer(client, "HTTP/1.1 200 ");
    assert_true(has(client, "fwd=bypass"));
    forget(client);
}

static void a_poll_waits_until_there_is_something_new(void **state)
{
    (void)state;
    struct memory_peer *client =
        ask_until_stored("GET /poll/a HTTP/1.1\r\n" HOST "\r\n",
                         "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 3\r\n\r\none", "; hit");
    client->out_len = 0;
    put(client, "GET /poll/a HTTP/1.1\r\n" HOST "If-None-Match: \"1\"\r\nPrefer: wait=60\r\n\r\n");
    assert_null(asked());
    assert_int_equal(client->out_len, 0);
    assert_non_null(TRANSPORT_OWNER(client->transport, struct client, transport)->held);
    inval_mark_url(house->w->shared->inval, "h/poll/a", 8, false);
    for (unsigned i = 0; !asked() && i < WAITS_MS; i++) { /* its watch is looked at each second */
        memory_settle(house);
        usleep(1000);
    }
    backend_says("HTTP/1.1 200 OK\r\nETag: \"2\"\r\nContent-Length: 3\r\n\r\ntwo");
    expect_answer(client, "HTTP/1.1 200 ");
    assert_true(has(client, "\r\n\r\ntwo"));
    assert_true(has(client, "Preference-Applied: wait=60"));
    forget(client);
}

/* One fetches, the others look again when its answer is stored, and enter at the lookup. */
static void those_who_want_the_same_wait_and_look_again(void **state)
{
    static const char request[] = "GET /c/same HTTP/1.1\r\n" HOST "\r\n";
    struct memory_peer *client[3];
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        client[i] = memory_client(house);
        put(client[i], request);
    }
    backend_says("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nhi");
    assert_null(asked());
    for (unsigned i = 0; i < 3; i++) {
        expect_answer(client[i], "HTTP/1.1 200 ");
        assert_true(has(client[i], "\r\n\r\nhi"));
        assert_true(has(client[i], i ? "fwd=uri-miss; collapsed" : "fwd=uri-miss; "));
    }
    assert_null(asked());
    for (unsigned i = 0; i < 3; i++)
        forget(client[i]);
}

/* What is not stored is of no use to those who have waited: each of them asks. */
static void those_who_waited_in_vain_ask_themselves(void **state)
{
    static const char
        request[] = "GET /c/vain HTTP/1.1\r\n" HOST "\r\n",
        answer[] = "HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nhi";
    struct memory_peer *client[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        client[i] = memory_client(house);
        put(client[i], request);
    }
    backend_says(answer);
    for (unsigned i = 0; !asked() && i < WAITS_MS; i++) {
        memory_settle(house);
        usleep(1000);
    }
    backend_says(answer);
    for (unsigned i = 0; i < 2; i++) {
        expect_answer(client[i], "HTTP/1.1 200 ");
        forget(client[i]);
    }
}

/* One of those who wait leaves, and so does the one that fetches. */
static void clients_that_leave_while_they_wait_take_nothing_along(void **state)
{
    static const char request[] = "GET /c/leaves HTTP/1.1\r\n" HOST "\r\n";
    struct memory_peer *client[3];
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        client[i] = memory_client(house);
        put(client[i], request);
    }
    forget(client[1]);
    forget(client[0]);
    backend_says("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nhi");
    expect_answer(client[2], "HTTP/1.1 200 ");
    assert_true(has(client[2], "collapsed"));
    assert_null(asked());
    forget(client[2]);
}

/* While as many connections linger as may, the last answer of another one closes it at once. */
static struct memory_peer *ask_last(const char *last)
{
    struct memory_peer *client = memory_client(house);
    put(client, "GET /plain/first HTTP/1.1\r\n" HOST "\r\n");
    put(client, last);
    house->w->clients->n_lingering = WORKER_LINGERING;
    backend_says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    house->w->clients->n_lingering = 0;
    assert_null(client->transport);
    forget(client);
    return asked();
}

static void what_closes_a_connection_is_renewed_with_its_head(void **state)
{
    static const char stale[] = "HTTP/1.1 200 OK\r\nAge: 9\r\nContent-Length: 2\r\nCache-Control: "
                                "max-age=9, stale-while-revalidate=600\r\n\r\nhi",
                      last[] = "GET /c/old HTTP/1.1\r\n" HOST "Connection: close\r\nX-A: whole\r\n"
                               "\r\n";
    struct memory_peer *p = NULL;
    (void)state;
    forget(ask_until_stored("GET /c/old HTTP/1.1\r\n" HOST "\r\n", stale, "; hit; ttl=-"));
    house->w->buffers.keeps = 0;
    buffer_pool_trim(&house->w->buffers);
    for (unsigned i = 0; !p && i < WAITS_MS; i++) /* the renewal before may not be stored yet */
        if (!(p = ask_last(last)))
            usleep(1000);
    assert_non_null(p);
    assert_memory_equal(text_of(p) + p->seen, "GET /c/old HTTP/1.1\r\n", 21);
    assert_non_null(strstr(text_of(p) + p->seen, "X-A: whole\r\n"));
    backend_says(stale);
}

/* A callback never loses what it works on: what a connection owns goes with it, when the iteration
 * ends. */
static void a_closed_connection_keeps_what_it_owns_for_a_while(void **state)
{
    static const char request[] = "GET /c/kept HTTP/1.1\r\n" HOST "\r\n";
    (void)state;
    struct memory_peer *client = ask_until_stored(
        request, "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nhi",
        "; hit");
    house->w->buffers.keeps = 0;
    buffer_pool_trim(&house->w->buffers);
    put(client, "GET /c/half");
    struct client *c = TRANSPORT_OWNER(client->transport, struct client, transport);
    const struct buffer *in = c->in;
    const struct repeat *repeat = c->repeat;
    assert_non_null(in);
    assert_non_null(repeat);
    client_close(c);
    assert_memory_equal(in->data + in->start, "GET /c/half", 11);
    assert_memory_equal(repeat->bytes, request, sizeof request - 1);
    forget(client);
    assert_int_equal(house->w->buffers.n_used, 0);
    assert_int_equal(house->w->repeats->n, 0);
}

static int set_up(void **state)
{
    (void)state;
    house = memory_house_open(config, true);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    memory_house_close(house);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_answers_or_goes_on),
        cmocka_unit_test(a_head_in_pieces_waits_for_the_rest),
        cmocka_unit_test(what_is_over_a_limit_goes_no_further),
        cmocka_unit_test(a_fresh_copy_answers_without_a_backend),
        cmocka_unit_test(a_part_that_is_stored_answers_for_its_range),
        cmocka_unit_test(a_quarantined_url_passes_by_its_fresh_copy),
        cmocka_unit_test(a_poll_waits_until_there_is_something_new),
        cmocka_unit_test(those_who_want_the_same_wait_and_look_again),
        cmocka_unit_test(those_who_waited_in_vain_ask_themselves),
        cmocka_unit_test(clients_that_leave_while_they_wait_take_nothing_along),
        cmocka_unit_test(what_closes_a_connection_is_renewed_with_its_head),
        cmocka_unit_test(a_closed_connection_keeps_what_it_owns_for_a_while),
    };
    return cmocka_run_group_tests_name("steps", tests, set_up, tear_down);
}
