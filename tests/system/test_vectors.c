/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every hostile input of tests/unit/data/h1-vectors.json through the real daemon: what is to be
 * refused reaches no backend, what is to be forwarded arrives once, and nothing hangs or kills a
 * worker.
 */
#include "harness.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the backend got last, and what it shall say. */
static struct {
    char body[65536], target[8400], head[65536];
    atomic_uint smuggled;
    char *response; /* NULL: a plain 200 */
    size_t response_len;
    bool then_close;
} stage;

static void note(char *to, size_t size, const char *from, size_t len)
{
    size_t n = len < size - 1 ? len : size - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

static bool answers(struct asked *a)
{
    note(stage.target, sizeof stage.target, a->target, strlen(a->target));
    note(stage.head, sizeof stage.head, a->m.head, a->m.head_len);
    note(stage.body, sizeof stage.body, a->m.body, a->m.body_len);
    if (strstr(a->target, "smug"))
        atomic_fetch_add(&stage.smuggled, 1);
    if (!stage.response)
        return reply_ok(a, "", "ok");
    return reply_bytes(a, stage.response, stage.response_len) && !stage.then_close;
}

/* JSON strings carry bytes as code points below 256, and long runs as {{c*N}}. */
static char *raw_bytes(json_t *text, size_t *out_len)
{
    const char *utf8 = json_string_value(text);
    size_t len = json_string_length(text), n = 0;
    char *out = malloc(len + 500000), c;
    for (size_t i = 0; i < len; i++) {
        unsigned char u = (unsigned char)utf8[i];
        unsigned times;
        int used = 0;
        if (u == '{' && sscanf(utf8 + i, "{{%c*%u}}%n", &c, &times, &used) == 2 && used) {
            memset(out + n, c, times);
            n += times;
            i += (size_t)used - 1;
        } else if (u >= 0xc2 && u <= 0xc3 && i + 1 < len) {
            out[n++] = (char)((u & 3) << 6 | (utf8[++i] & 0x3f));
        } else {
            out[n++] = (char)u;
        }
    }
    *out_len = n;
    return out;
}

struct outcome {
    int first, last;    /* status of the first and the last final response, 0: none */
    unsigned responses; /* final ones */
    bool closed, hang;
    char text[1 << 16]; /* all that came back (its beginning) */
    size_t len;
};

static void read_statuses(struct outcome *o)
{
    for (char *at = o->text; (at = strstr(at, "HTTP/1.1 ")); at += 9) {
        int status = atoi(at + 9);
        if (status < 200)
            continue;
        if (!o->responses++)
            o->first = status;
        o->last = status;
    }
}

/* Sends, then reads until the peer closes or is silent for a while. */
static void provoke(unsigned port, const char *bytes, size_t len, bool drip, bool shut,
                    struct outcome *o)
{
    memset(o, 0, sizeof *o);
    int fd = client_connect(port);
    if (drip)
        for (size_t i = 0; i < len; i++)
            client_send_bytes(fd, bytes + i, 1);
    else
        client_send_bytes(fd, bytes, len);
    if (shut)
        shutdown(fd, SHUT_WR);
    while (o->len < sizeof o->text - 1) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, (int)harness_patience(o->len ? 150 : 1500)) <= 0) {
            o->hang = o->len == 0;
            break;
        }
        ssize_t got = recv(fd, o->text + o->len, sizeof o->text - 1 - o->len, 0);
        if (got <= 0) {
            o->closed = true;
            break;
        }
        o->len += (size_t)got;
    }
    close(fd);
    read_statuses(o);
}

static bool listed(json_t *list, int status)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        if (json_integer_value(v) == status)
            return true;
    }
    return false;
}

static bool contains_forbidden(json_t *absent)
{
    size_t i;
    json_t *v;
    json_array_foreach(absent, i, v)
    {
        if (strcasestr(stage.head, json_string_value(v)))
            return true;
    }
    return false;
}

static const char *judge_response(json_t *e, const char *want, const struct outcome *o)
{
    const char *body = json_string_value(json_object_get(e, "body")),
               *end = strstr(o->text, "\r\n\r\n");
    if (strstr(o->text, "SMUGGLED"))
        return "bytes behind the response reached the client";
    if (!strcmp(want, "bad_gateway"))
        return o->first == 502 ? NULL : "not answered with 502";
    if (!strcmp(want, "truncate"))
        return o->first == 502 || (o->closed && !strstr(o->text, "\r\n0\r\n\r\n"))
                   ? NULL
                   : "a cut body looks complete";
    if (!strcmp(want, "either") && o->first == 502)
        return NULL;
    if (json_object_get(e, "status") && !listed(json_object_get(e, "status"), o->last))
        return "another status";
    if (body && (!end || (*body && !strstr(end, body))))
        return o->closed && !strcmp(want, "either") ? NULL : "another body";
    return NULL;
}

static const char *judge_rejection(json_t *e, const struct outcome *o, unsigned calls)
{
    json_t *status = json_object_get(e, "status");
    if (calls)
        return "forwarded what was to be refused";
    if (o->hang)
        return json_is_true(json_object_get(e, "wait_ok")) ? NULL : "hangs";
    if (o->first == 408 && json_is_true(json_object_get(e, "wait_ok")))
        return NULL;
    if (o->first == 0)
        return json_is_true(json_object_get(e, "close_ok")) ? NULL : "closed without an answer";
    if (o->first < 400)
        return "not refused";
    return status && !listed(status, o->first) ? "refused with another status" : NULL;
}

static const char *judge(json_t *v, const struct outcome *o, unsigned calls)
{
    json_t *e = json_object_get(v, "expect"), *n = json_object_get(e, "n"),
           *target = json_object_get(e, "target"), *body = json_object_get(e, "body"),
           *final = json_object_get(e, "final");
    const char *want = json_string_value(json_object_get(e, "outcome"));
    if (json_object_get(v, "response"))
        return judge_response(e, want, o);
    if (atomic_load(&stage.smuggled))
        return "a smuggled request reached the backend";
    if (!strcmp(want, "reject"))
        return judge_rejection(e, o, calls);
    if (!strcmp(want, "either") && calls == 0 && o->first >= 400)
        return NULL;
    if (calls != (n ? (unsigned)json_integer_value(n) : 1))
        return "another number of requests reached the backend";
    if (target && strcmp(json_string_value(target), stage.target))
        return "another target reached the backend";
    if (body && strcmp(json_string_value(body), stage.body))
        return "another body reached the backend";
    if (final && !listed(final, o->last))
        return "the last answer has another status";
    return contains_forbidden(json_object_get(e, "absent"))
               ? "what was to be removed reached the backend"
               : NULL;
}

static const char *run_vector(struct house *h, struct backend *b, json_t *v, struct outcome *o)
{
    json_t *response = json_object_get(v, "response");
    size_t len;
    char *bytes = raw_bytes(json_object_get(v, "request"), &len);
    backend_forget(b);
    memset(&stage, 0, sizeof stage);
    if (response) {
        stage.response = raw_bytes(response, &stage.response_len);
        stage.then_close = json_is_true(json_object_get(v, "backend_close"));
    }
    provoke(h->port, bytes, len, json_is_true(json_object_get(v, "drip")),
            json_is_true(json_object_get(v, "shutdown")), o);
    nap_ms(3);
    unsigned calls = backend_calls(b);
    free(bytes);
    const char *why = judge(v, o, calls);
    if (why)
        printf(
            "%s: %s (answered %d, last %d, %u responses%s; the backend got %u: \"%s\" \"%.80s\")\n",
            json_string_value(json_object_get(v, "id")), why, o->first, o->last, o->responses,
            o->hang ? ", hung" : "", calls, stage.target, stage.body);
    free(stage.response);
    stage.response = NULL;
    return why;
}

static void every_vector_has_its_outcome(void **state)
{
    (void)state;
    struct house h;
    static struct outcome o;
    json_error_t error;
    json_t *all = json_load_file("tests/unit/data/h1-vectors.json", JSON_ALLOW_NUL, &error), *v;
    assert_non_null(all);
    struct backend *b = backend_start(answers, NULL);
    house_start(&h, 2,
                "client_timeout = \"1s\"\nupstream \"u\" { server \"127.0.0.1:%u\" { } timeout = "
                "\"1s\" }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    pid_t before[4], after[4];
    assert_int_equal(house_children(&h, "polderd: worker", before, 4), 2);
    size_t i;
    unsigned wrong = 0;
    json_array_foreach(all, i, v)
    {
        wrong += run_vector(&h, b, v, &o) != NULL;
    }
    assert_int_equal(house_children(&h, "polderd: worker", after, 4), 2);
    assert_memory_equal(before, after, 2 * sizeof *before);
    assert_int_equal(wrong, 0);
    json_decref(all);
    house_remove(&h);
    backend_stop(b);
}

static int answer_to(struct house *h, const char *bytes, size_t len)
{
    static struct outcome o;
    provoke(h->port, bytes, len, false, false, &o);
    return o.first;
}

static void limits_on_heads_and_targets_have_their_status(void **state)
{
    (void)state;
    struct house h;
    static char big[70000];
    struct backend *b = backend_start(answers, NULL);
    house_start(
        &h, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(b));
    int n = snprintf(big, sizeof big, "GET /%0*d HTTP/1.1\r\nHost: h\r\n\r\n", 9000, 0);
    assert_int_equal(answer_to(&h, big, (size_t)n), 414);
    n = snprintf(big, sizeof big, "GET /%0*d HTTP/1.1\r\nHost: h\r\n\r\n", 60000, 0);
    assert_int_equal(answer_to(&h, big, (size_t)n), 414);
    n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: h\r\nX: %0*d\r\n\r\n", 20000, 0);
    assert_int_equal(answer_to(&h, big, (size_t)n), 431);
    n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 600; i++)
        n += snprintf(big + n, sizeof big - (size_t)n, "A: b\r\n");
    n += snprintf(big + n, sizeof big - (size_t)n, "\r\n");
    assert_int_equal(answer_to(&h, big, (size_t)n), 431);
    static const char
        version[] = "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        method[] = "BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
        coding[] =
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        hostless[] = "GET / HTTP/1.1\r\n\r\n";
    assert_int_equal(answer_to(&h, version, sizeof version - 1), 505);
    assert_int_equal(answer_to(&h, method, sizeof method - 1), 501);
    int status = answer_to(&h, coding, sizeof coding - 1);
    assert_true(status == 501 || status == 400);
    assert_int_equal(answer_to(&h, hostless, sizeof hostless - 1), 400);
    assert_int_equal(backend_calls(b), 0);
    house_remove(&h);
    backend_stop(b);
}

static void noise_costs_its_own_connection_only(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct backend *b = backend_start(answers, NULL);
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" "
                "cache { } }\n",
                backend_port(b));
    pid_t before, after;
    house_children(&h, "polderd: worker", &before, 1);
    int good = client_connect(h.port);
    unsigned seed = 7;
    for (int i = 0; i < 300; i++) {
        char noise[600];
        size_t n = (size_t)rand_r(&seed) % sizeof noise;
        int off = i % 3 ? snprintf(noise, sizeof noise, "GET /%d HTTP/1.1\r\nHost: h\r\nX-", i) : 0;
        for (size_t k = (size_t)off; k < n; k++)
            noise[k] = (char)rand_r(&seed);
        int fd = client_connect(h.port);
        client_send_bytes(fd, noise, n);
        close(fd);
        client_send(good, "GET /good HTTP/1.1\r\nHost: h\r\n\r\n");
        client_read(good, &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
    }
    close(good);
    house_children(&h, "polderd: worker", &after, 1);
    assert_int_equal(before, after);
    house_remove(&h);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_has_its_outcome),
        cmocka_unit_test(limits_on_heads_and_targets_have_their_status),
        cmocka_unit_test(noise_costs_its_own_connection_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
