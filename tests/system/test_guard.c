/* SPDX-License-Identifier: BSD-2-Clause */
/* Content that depends on who asks, and is shared all the same: noticed, stopped, named. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static atomic_uint anonymous; /* requests without a cookie that /count/ has seen */
static atomic_uint version;
static atomic_bool right; /* the backend has learned what to say */
static atomic_uint slow_ms;

static const char *value(const struct asked *a, const char *name)
{
    const char *v = field_of(&a->m, name);
    return v ? v : "nobody";
}

static bool answers(struct asked *a)
{
    const char *t = a->target;
    char body[512], lines[256] = "Cache-Control: public, max-age=60\r\n";
    if (atomic_load(&slow_ms))
        nap_ms(atomic_load(&slow_ms));
    if (!strncmp(t, "/cookie", 7) || !strncmp(t, "/off", 4) || !strncmp(t, "/part", 5)) {
        snprintf(body, sizeof body, "content of %.200s", value(a, "Cookie"));
        if (atomic_load(&right))
            strcat(lines, "Vary: Cookie\r\n");
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/site/", 6) && strstr(t, "/me")) {
        snprintf(body, sizeof body, "content of %.200s", value(a, "Cookie"));
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/auth", 5)) {
        if (!field_of(&a->m, "Authorization"))
            return reply(a, "HTTP/1.1 401 Unauthorized\r\nContent-Length: %u\r\n\r\n%.*s",
                         a->number % 7, (int)(a->number % 7), "who are");
        return reply_ok(a, lines, "for all who have a token");
    }
    if (!strncmp(t, "/strict", 7)) { /* public, but who says who he is must be right */
        if (strstr(value(a, "Authorization"), "wrong"))
            return reply(a, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        if (strstr(value(a, "Cookie"), "over"))
            return reply(a, "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n");
        return reply_ok(a, lines, "for all");
    }
    if (!strncmp(t, "/key", 4)) {
        snprintf(body, sizeof body, "shop of %.200s",
                 atomic_load(&right) ? "all" : value(a, "X-Api-Key"));
        return reply_ok(a, "", body); /* the route's ttl */
    }
    if (!strncmp(t, "/own", 4)) {
        snprintf(body, sizeof body, "desk of %.200s", value(a, "X-Desk-Number"));
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/cart", 5)) {
        const char *cart = strstr(value(a, "Cookie"), "cart=");
        snprintf(body, sizeof body, "cart %.1s", cart ? cart + 5 : "-");
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/lang/gone", 10)) { /* an error page for each */
        snprintf(body, sizeof body, "not here, %.200s", value(a, "Cookie"));
        return reply(a, "HTTP/1.1 404 Not Found\r\n%sContent-Length: %zu\r\n\r\n%s", lines,
                     strlen(body), body);
    }
    if (!strncmp(t, "/lang", 5))
        return reply_ok(a, lines, !strncmp(value(a, "Accept-Language"), "fr", 2) ? "oui" : "yes");
    if (!strncmp(t, "/words", 6)) { /* another one with each answer */
        snprintf(body, sizeof body, "%c%c", 'a' + a->number / 26 % 26, 'a' + a->number % 26);
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/quote", 6)) {
        snprintf(body, sizeof body, "the word %c%c of the day for %.200s",
                 'a' + a->number / 26 % 26, 'a' + a->number % 26,
                 strstr(t, "all") ? "all" : value(a, "Cookie"));
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/stamp", 6)) {
        snprintf(body, sizeof body, "answer %u to %.200s", a->number, value(a, "Cookie"));
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/posted", 7)) { /* somebody changes it with every third look at it */
        snprintf(body, sizeof body, "version %u", atomic_fetch_add(&version, 1) / 3);
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/vary", 5)) {
        snprintf(body, sizeof body, "content of %.200s", value(a, "Cookie"));
        return reply_ok(a, "Cache-Control: max-age=60\r\nVary: Cookie\r\n", body);
    }
    if (!strncmp(t, "/count", 6) && !field_of(&a->m, "Cookie"))
        atomic_fetch_add(&anonymous, 1);
    return reply_ok(a, lines, "the same for all");
}

static bool answers_otherwise(struct asked *a)
{
    return reply_ok(a, "Cache-Control: public, max-age=60\r\n", "another version");
}

static void start(struct house *h, unsigned workers, const char *guard)
{
    house_start(
        h, workers,
        "cache { share = \"rfc\" ttl = \"5m\" leak_guard = %s }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/off\" { upstream = \"u\" cache { leak_guard = 0 } }\n"
        "route \"/own\" { upstream = \"u\" cache { leak_guard_headers = {\"X-Desk-*\"} } }\n"
        "route \"/part/*\" { upstream = \"u\" cache { partition = \"cookie:sid\" } }\n"
        "route \"/poll\" { upstream = \"u\" cache { } poll { min_interval = \"60s\" } }\n"
        "route \"/cookie/*\" { upstream = \"u\" cache { } }\n"
        "route \"/site/*\" { upstream = \"u\" cache { } }\n"
        "route \"/auth\" { upstream = \"u\" cache { } }\n"
        "route \"/cart\" { upstream = \"u\" cache { } }\n"
        "route \"/key\" { upstream = \"u\" cache { } }\n"
        "route \"/lang\" { upstream = \"u\" cache { } }\n"
        "route \"/stamp\" { upstream = \"u\" cache { } }\n"
        "route \"/posted\" { upstream = \"u\" cache { } }\n"
        "route \"/words\" { upstream = \"u\" cache { } }\n"
        "route \"/vary\" { upstream = \"u\" cache { } }\n"
        "route \"/*\" { upstream = \"u\" cache { } }\n",
        guard, backend_port(backend));
    backend_forget(backend);
    atomic_store(&anonymous, 0);
    atomic_store(&version, 0);
    atomic_store(&right, false);
    atomic_store(&slow_ms, 0);
}

/* ---- what is seen from outside ---- */

static unsigned long metric(const struct house *h, const char *name)
{
    struct message m;
    char line[128];
    unsigned long n = 0;
    snprintf(line, sizeof line, "\npolder_%s ", name);
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    const char *at = strstr(m.body, line);
    if (at)
        n = strtoul(at + strlen(line), NULL, 10);
    message_free(&m);
    return n;
}

static unsigned long checks(const struct house *h, const char *result)
{
    char name[96];
    snprintf(name, sizeof name, "cache_guard_checks_total{result=\"%s\"}", result);
    return metric(h, name);
}

static bool cache_says(const struct house *h, const char *target, const char *lines,
                       const char *what)
{
    struct message m;
    get_with(h->port, target, lines, &m);
    const char *status = m.status ? field_of(&m, "Cache-Status") : NULL;
    const bool said = status && strstr(status, what);
    message_free(&m);
    return said;
}

static bool body_is(const struct house *h, const char *target, const char *lines, const char *want)
{
    struct message m;
    get_with(h->port, target, lines, &m);
    const bool same = m.body && !strcmp(m.body, want);
    message_free(&m);
    return same;
}

/* Somebody fetches it, and somebody else asks until the guard has found out. */
static void provoke(struct house *h, const char *target, const char *first, const char *second,
                    const char *found)
{
    assert_int_equal(get_with(h->port, target, first, NULL), 200);
    wait_until(cache_says(h, target, first, "hit"), 5000);
    wait_until(cache_says(h, target, second, "quarantined"), 20000);
    wait_until(cache_says(h, target, second, found), 5000);
}

static void shown(struct house *h, const char *route, const char *state)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "cache guard"), 0);
    const char *row = strstr(out, route);
    assert_non_null(row);
    char line[512];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(row, "\n"), row);
    if (!strstr(line, state))
        fail_msg("no \"%s\" in: %s", state, line);
}

/* ---- stories ---- */

static void content_by_cookie_is_found_and_stopped(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, "1");
    provoke(&h, "/cookie/cart?q=secret", "Cookie: sid=ann\r\n", "Cookie: sid=bob\r\n",
            "fwd=bypass; fwd-status=200; detail=\"quarantined: differs by cookie:sid (this URL)\"");
    /* from now on everybody gets his own, whatever the query */
    for (int i = 0; i < 20; i++) {
        assert_true(
            body_is(&h, "/cookie/cart?q=secret", "Cookie: sid=ann\r\n", "content of sid=ann"));
        assert_true(
            body_is(&h, "/cookie/cart?q=secret", "Cookie: sid=bob\r\n", "content of sid=bob"));
        assert_true(body_is(&h, "/cookie/cart", i % 2 ? "Cookie: sid=cid\r\n" : "",
                            i % 2 ? "content of sid=cid" : "content of nobody"));
    }
    wait_until(house_logged(&h,
                            "URL test.example/cookie/cart of route \"/cookie/*\" is quarantined: "
                            "its responses differ by cookie:sid (seen at "),
               3000);
    assert_false(house_logged(&h, "secret"));
    assert_false(house_logged(&h, "sid=bob"));
    wait_until(metric(&h, "cache_quarantined_routes") == 1, 3000);
    assert_int_equal(checks(&h, "differs"), 1);
    assert_true(metric(&h, "cache_quarantine_bypass_total") >= 60);
    shown(&h, "/cookie/*", "partly quarantined");
    shown(&h, "test.example/cookie/cart", "cookie:sid");
    assert_int_equal(ctl(&h, &out, "status"), 0);
    assert_non_null(strstr(out, "/cookie/*: test.example/cookie/cart (differs by cookie:sid)"));
    assert_int_equal(ctl(&h, &out, "cache why http://test.example/cookie/cart"), 0);
    assert_non_null(strstr(out, "quarantined"));
    assert_int_equal(ctl(&h, &out, "cache why http://test.example/cookie/other"), 0);
    assert_null(strstr(out, "quarantined"));
    house_remove(&h);
}

static void hit_soon(struct house *h, const char *target, const char *lines)
{
    assert_int_equal(get_with(h->port, target, lines, NULL), 200);
    wait_until(cache_says(h, target, lines, "hit"), 5000);
}

/* One page that greets must not end the caching of a whole site. */
static void a_finding_closes_its_url_and_further_ones_what_is_beside(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, "1");
    hit_soon(&h, "/site/a/plain", "");
    hit_soon(&h, "/site/plain", "");
    hit_soon(&h, "/site/b/plain", "");
    provoke(&h, "/site/a/me1", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "cookie:a (this URL)");
    assert_true(cache_says(&h, "/site/a/plain", "", "hit"));
    assert_int_equal(get_with(h.port, "/site/a/me1/below", "", NULL), 200);
    assert_false(cache_says(&h, "/site/a/me1/below", "", "quarantined"));
    provoke(&h, "/site/a/me2", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "cookie:a (this URL)");
    assert_true(cache_says(&h, "/site/a/plain", "", "hit"));
    provoke(&h, "/site/a/me3", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "cookie:a (this directory)");
    assert_true(cache_says(&h, "/site/a/plain", "", "quarantined"));
    assert_true(cache_says(&h, "/site/a/me1", "Cookie: a=1\r\n", "(this directory)"));
    assert_true(cache_says(&h, "/site/plain", "", "hit"));
    assert_true(cache_says(&h, "/site/b/plain", "", "hit"));
    shown(&h, "test.example/site/a/*", "cookie:a");
    shown(&h, "/site/*", "partly quarantined");
    wait_until(metric(&h, "cache_quarantined_routes") == 1, 3000);
    /* over a restart it is the same */
    house_kill(&h);
    house_run(&h);
    hit_soon(&h, "/site/b/plain", "");
    assert_true(cache_says(&h, "/site/a/plain", "", "quarantined: differs by cookie:a"));
    assert_int_equal(ctl(&h, &out, "cache guard --release test.example/site/b/"), 2);
    assert_int_equal(ctl(&h, &out, "cache guard --release test.example/site/a/"), 0);
    assert_true(body_is(&h, "/site/a/me1", "Cookie: a=7\r\n", "content of a=7"));
    assert_true(cache_says(&h, "/site/b/plain", "", "hit"));
    assert_false(cache_says(&h, "/site/a/plain", "", "quarantined"));
    wait_until(metric(&h, "cache_quarantined_routes") == 0, 3000);
    house_remove(&h);
}

static void all_workers_obey_at_once(void **state)
{
    (void)state;
    struct house h;
    start(&h, 4, "0.01"); /* the first hits are looked at all the same */
    provoke(&h, "/cookie/x", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "quarantined");
    for (int i = 0; i < 100; i++) { /* each connection goes to some worker */
        char cookie[64], want[64];
        snprintf(cookie, sizeof cookie, "Cookie: a=%d\r\n", i);
        snprintf(want, sizeof want, "content of a=%d", i);
        assert_true(body_is(&h, "/cookie/x", cookie, want));
    }
    house_remove(&h);
}

static void nobody_waits_for_another_in_quarantine(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[8];
    start(&h, 2, "1");
    provoke(&h, "/cookie/n", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "differs by");
    atomic_store(&slow_ms, 100);
    backend_forget(backend);
    for (int i = 0; i < 8; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /cookie/n HTTP/1.1\r\nHost: test.example\r\nCookie: a=%d\r\n\r\n",
                    i);
    }
    for (int i = 0; i < 8; i++) {
        char want[32];
        snprintf(want, sizeof want, "content of a=%d", i);
        client_read(fd[i], &m, false);
        assert_string_equal(m.body, want);
        assert_null(strstr(field_of(&m, "Cache-Status"), "stored"));
        message_free(&m);
        close(fd[i]);
    }
    assert_int_equal(backend_calls(backend), 8);
    atomic_store(&slow_ms, 0);
    house_remove(&h);
}

static bool asks_again(int fd)
{
    struct message m;
    client_send(fd, "GET /cookie/m HTTP/1.1\r\nHost: test.example\r\nCookie: a=1\r\n\r\n");
    client_read(fd, &m, false);
    const bool hit = m.status == 200 && strstr(field_of(&m, "Cache-Status"), "hit");
    message_free(&m);
    return hit;
}

/* It is the worker's word that counts, for the same bytes on an old connection too. */
static void a_quarantine_needs_no_control_process(void **state)
{
    (void)state;
    struct house h;
    pid_t control;
    start(&h, 1, "1");
    const int fd = client_connect(h.port);
    asks_again(fd);
    wait_until(asks_again(fd), 5000);
    assert_int_equal(house_children(&h, "polderd: control", &control, 1), 1);
    kill(control, SIGSTOP);
    wait_until(cache_says(&h, "/cookie/m", "Cookie: a=2\r\n", "quarantined"), 20000);
    assert_false(asks_again(fd));
    kill(control, SIGKILL);
    wait_until(house_ready(&h), 10000);
    wait_until(metric(&h, "cache_quarantined_routes") == 1, 10000);
    assert_false(asks_again(fd));
    close(fd);
    house_remove(&h);
}

static void what_needs_a_token_and_is_given_to_all_is_found(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    provoke(&h, "/auth", "Authorization: Bearer one\r\n", "Authorization: Bearer two\r\n",
            "quarantined: differs by authorization");
    assert_int_equal(get(h.port, "/auth", NULL), 401);
    house_remove(&h);
}

static void what_is_given_to_those_without_a_token_is_found_too(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    provoke(&h, "/auth", "Authorization: Bearer one\r\n", "", "quarantined");
    assert_true(cache_says(&h, "/auth", "", "quarantined: differs by authorization (this URL)\""));
    assert_int_equal(get_with(h.port, "/auth", "Authorization: Bearer one\r\n", NULL), 200);
    house_remove(&h);
}

static void the_header_is_named_among_several(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    provoke(&h, "/key", "X-Api-Key: k1\r\nCookie: _ga=1\r\nAccept-Language: de\r\n",
            "X-Api-Key: k2\r\nCookie: _ga=2\r\nAccept-Language: nl\r\n",
            "quarantined: differs by x-api-key (this URL)\"");
    provoke(&h, "/cart", "Cookie: _ga=1; cart=7; lang=nl\r\n",
            "Cookie: _ga=2; cart=8; lang=de\r\nX-User: u\r\n",
            "quarantined: differs by cookie:cart (this URL)\"");
    provoke(&h, "/own", "X-Desk-Number: 1\r\n", "X-Desk-Number: 2\r\n",
            "quarantined: differs by x-desk-number (this URL)\"");
    house_remove(&h);
}

/* Only requests like that which has closed it can tell that it does not differ any more. */
static void a_quarantine_is_tried_again_and_ends_by_itself(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    provoke(&h, "/key", "X-Api-Key: k1\r\n", "X-Api-Key: k2\r\n",
            "differs by x-api-key (this URL)\"");
    atomic_store(&right, true);
    for (int i = 0; i < 100; i++) {
        house_advance(&h, 100);
        assert_true(cache_says(&h, "/key", "Cookie: a=1\r\n", "quarantined"));
    }
    wait_until(
        (house_advance(&h, 200), !cache_says(&h, "/key", "X-Api-Key: k3\r\n", "quarantined")),
        90000);
    assert_true(house_logged(&h, "released from quarantine: its responses do not differ"));
    wait_until(cache_says(&h, "/key", "X-Api-Key: k3\r\n", "hit"), 5000);
    wait_until(metric(&h, "cache_quarantined_routes") == 0, 5000);
    house_remove(&h);
}

/* Each answer has another number in it, and the name of who has asked. */
static void a_counter_in_each_answer_does_not_hide_whose_it_is(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    provoke(&h, "/stamp", "Cookie: user=alice\r\n", "Cookie: user=bob\r\n",
            "quarantined: differs by cookie:user (this URL)\"");
    house_remove(&h);
}

/* Other letters in each answer, no digits: only what two answers differ by can be left out. */
static void a_changing_text_in_each_answer_does_not_hide_whose_it_is(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    provoke(&h, "/quote", "Cookie: user=alice\r\n", "Cookie: user=bob\r\n",
            "quarantined: differs by cookie:user (this URL)\"");
    hit_soon(&h, "/quote/all", "Cookie: user=alice\r\n");
    wait_until(cache_says(&h, "/quote/all", "Cookie: user=bob\r\n", "hit") &&
                   checks(&h, "same") == 1,
               20000);
    assert_int_equal(checks(&h, "unstable"), 0);
    house_remove(&h);
}

/* Anybody could end the caching of a whole route with one of these. */
static void error_pages_and_languages_quarantine_nothing(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    assert_int_equal(get_with(h.port, "/lang", "Accept-Language: en\r\n", NULL), 200);
    assert_int_equal(get_with(h.port, "/lang/gone", "Cookie: a=1\r\n", NULL), 404);
    wait_until(cache_says(&h, "/lang", "Accept-Language: en\r\n", "hit"), 5000);
    wait_until(cache_says(&h, "/lang/gone", "Cookie: a=1\r\n", "hit"), 5000);
    backend_forget(backend);
    const uint64_t end = mono_ms() + 2500; /* checks of a route are a second apart */
    while (mono_ms() < end) {
        assert_true(cache_says(&h, "/lang", "Accept-Language: fr\r\n", "hit"));
        assert_true(cache_says(&h, "/lang/gone", "Cookie: a=2\r\n", "hit"));
    }
    assert_int_equal(backend_calls(backend), 0);
    house_remove(&h);
}

static void content_that_changes_by_itself_is_left_alone(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 1, "1");
    assert_int_equal(get_with(h.port, "/posted", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/posted", "Cookie: a=2\r\n", "hit") &&
                   checks(&h, "unstable") + checks(&h, "same") >= 2,
               20000);
    assert_int_equal(get_with(h.port, "/words", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/words", "Cookie: a=2\r\n", "hit") &&
                   house_logged(&h, "condition leak_guard_inconclusive /words"),
               30000);
    assert_int_equal(metric(&h, "cache_quarantined_routes"), 0);
    shown(&h, "/words", "inconclusive");
    assert_int_equal(ctl(&h, &out, "cache guard --release /posted"), 1);
    house_remove(&h);
}

static void who_is_refused_cannot_end_the_caching(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    assert_int_equal(get(h.port, "/strict", NULL), 200);
    wait_until(cache_says(&h, "/strict", "", "hit"), 5000);
    wait_until(cache_says(&h, "/strict", "Authorization: Bearer wrong\r\n", "hit") &&
                   checks(&h, "failed") == 1,
               10000);
    wait_until(cache_says(&h, "/strict", "Cookie: session=over\r\n", "hit") &&
                   checks(&h, "failed") == 2,
               10000);
    assert_int_equal(metric(&h, "cache_quarantined_routes"), 0);
    assert_int_equal(checks(&h, "differs"), 0);
    house_remove(&h);
}

static void servers_that_disagree_prove_nothing(void **state)
{
    (void)state;
    struct house h;
    struct backend *other = backend_start(answers_otherwise, NULL);
    house_start(&h, 1,
                "cache { share = \"rfc\" leak_guard = 1 }\nupstream \"u\" { server "
                "\"127.0.0.1:%u\" { } server "
                "\"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend), backend_port(other));
    assert_int_equal(get_with(h.port, "/count/d", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/count/d", "Cookie: a=2\r\n", "hit") && checks(&h, "same") >= 3,
               20000);
    assert_int_equal(metric(&h, "cache_quarantined_routes"), 0);
    assert_int_equal(checks(&h, "unstable"), 0);
    house_remove(&h);
    backend_stop(other);
}

/* Two come at once, and one of them gets what the other has fetched. */
static void who_has_waited_for_anothers_fetch_is_looked_at_too(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[2];
    start(&h, 1, "1");
    atomic_store(&slow_ms, 200);
    for (int i = 0; i < 2; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /cookie/c HTTP/1.1\r\nHost: test.example\r\nCookie: a=%d\r\n\r\n",
                    i);
    }
    for (int i = 0; i < 2; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
    atomic_store(&slow_ms, 0);
    wait_until(checks(&h, "differs") == 1, 10000); /* nobody has asked any more */
    assert_true(cache_says(&h, "/cookie/c", "", "quarantined: differs by cookie:a"));
    house_remove(&h);
}

static void what_is_right_is_never_flagged(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    static const char *const targets[] = {"/vary", "/part/x", "/off"};
    for (int i = 0; i < 60; i++)
        for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) {
            char lines[64];
            snprintf(lines, sizeof lines, "Cookie: sid=%d\r\n", i % 5);
            assert_int_equal(get_with(h.port, targets[k], lines, NULL), 200);
        }
    /* a route that is checked, in the end, and found the same: no check is under way */
    assert_int_equal(get_with(h.port, "/count/a", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/count/a", "Cookie: a=2\r\n", "hit") && checks(&h, "same") == 1,
               5000);
    assert_int_equal(metric(&h, "cache_guard_requests_total"), 2);
    assert_int_equal(metric(&h, "cache_quarantined_routes"), 0);
    assert_true(cache_says(&h, "/off", "Cookie: sid=9\r\n", "hit"));
    house_remove(&h);
}

static void a_released_route_is_shared_again_until_it_leaks_again(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, "1");
    provoke(&h, "/cookie/y", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "quarantined");
    assert_int_equal(ctl(&h, &out, "cache guard --release /nowhere"), 2);
    atomic_store(&right, true);
    assert_int_equal(ctl(&h, &out, "cache guard --release '/cookie/*'"), 0);
    /* nothing of what was stored before comes back */
    assert_false(cache_says(&h, "/cookie/y", "Cookie: a=3\r\n", "hit"));
    assert_true(body_is(&h, "/cookie/y", "Cookie: a=4\r\n", "content of a=4"));
    wait_until(cache_says(&h, "/cookie/y", "Cookie: a=4\r\n", "hit"), 5000);
    wait_until(metric(&h, "cache_quarantined_routes") == 0, 3000);
    atomic_store(&right, false);
    assert_int_equal(ctl(&h, &out, "cache invalidate --all"), 0);
    provoke(&h, "/cookie/y", "Cookie: a=5\r\n", "Cookie: a=6\r\n", "quarantined");
    house_remove(&h);
}

static void a_quarantine_outlives_the_service(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "1");
    provoke(&h, "/cookie/z", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "quarantined");
    house_kill(&h);
    house_run(&h);
    for (int i = 0; i < 4; i++)
        assert_true(body_is(&h, "/cookie/z", i % 2 ? "Cookie: a=1\r\n" : "Cookie: a=2\r\n",
                            i % 2 ? "content of a=1" : "content of a=2"));
    assert_true(cache_says(&h, "/cookie/z", "", "quarantined: differs by cookie"));
    wait_until(metric(&h, "cache_quarantined_routes") == 1, 3000);
    house_remove(&h);
}

static void a_partition_that_holds_the_header_ends_the_quarantine(void **state)
{
    (void)state;
    struct house h;
    char routes[512];
    start(&h, 1, "1");
    provoke(&h, "/cookie/p", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "quarantined");
    snprintf(
        routes, sizeof routes,
        "cache { share = \"rfc\" leak_guard = 1 }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/cookie/*\" { upstream = \"u\" cache { partition = \"cookie:a\" } }\n",
        backend_port(backend));
    house_write_conf(&h, 1, routes);
    assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
    wait_until(cache_says(&h, "/cookie/p", "Cookie: a=1\r\n", "hit"), 20000);
    assert_true(body_is(&h, "/cookie/p", "Cookie: a=2\r\n", "content of a=2"));
    assert_true(house_logged(&h, "is released from quarantine"));
    house_remove(&h);
}

static void a_backend_put_right_meanwhile_costs_one_copy(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "1");
    assert_int_equal(get_with(h.port, "/cookie/r", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/cookie/r", "Cookie: a=1\r\n", "hit"), 5000);
    atomic_store(&right, true);
    assert_true(body_is(&h, "/cookie/r", "Cookie: a=2\r\n", "content of a=1")); /* the old copy */
    wait_until(get_with(h.port, "/cookie/r", "Cookie: a=2\r\n", NULL) == 200 &&
                   checks(&h, "same") == 1,
               10000);
    assert_true(body_is(&h, "/cookie/r", "Cookie: a=2\r\n", "content of a=2"));
    wait_until(cache_says(&h, "/cookie/r", "Cookie: a=2\r\n", "hit"), 5000);
    assert_int_equal(metric(&h, "cache_quarantined_routes"), 0);
    house_remove(&h);
}

static void a_storm_of_hits_costs_a_check_a_second(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "1");
    assert_int_equal(get_with(h.port, "/count/s", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/count/s", "Cookie: a=1\r\n", "hit"), 5000);
    backend_forget(backend);
    const uint64_t began_ms = mono_ms();
    int fd[8];
    for (int i = 0; i < 8; i++)
        fd[i] = client_connect(h.port);
    unsigned asked = 0;
    while (mono_ms() < began_ms + 2500) { /* the same bytes again and again: memos too */
        for (int i = 0; i < 8; i++)
            client_send(fd[i],
                        "GET /count/s HTTP/1.1\r\nHost: test.example\r\nCookie: a=%d\r\n\r\n",
                        i + 2);
        for (int i = 0; i < 8; i++, asked++) {
            struct message m;
            client_read(fd[i], &m, false);
            assert_int_equal(m.status, 200);
            message_free(&m);
        }
    }
    const unsigned seconds = (unsigned)((mono_ms() - began_ms) / 1000) + 1;
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    wait_until(checks(&h, "same") >= 2, 5000);
    assert_true(asked > 100);
    assert_in_range(backend_calls(backend), 4, 2 * (seconds + 1));
    house_remove(&h);
}

static void a_worker_that_dies_in_a_check_leaves_nothing(void **state)
{
    (void)state;
    struct house h;
    pid_t worker, other;
    start(&h, 1, "1");
    assert_int_equal(get_with(h.port, "/cookie/k", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/cookie/k", "Cookie: a=1\r\n", "hit"), 5000);
    atomic_store(&slow_ms, 300);
    wait_until(get_with(h.port, "/cookie/k", "Cookie: a=2\r\n", NULL) == 200 &&
                   metric(&h, "cache_guard_requests_total") > 0,
               5000);
    assert_int_equal(house_children(&h, "polderd: worker", &worker, 1), 1);
    kill(worker, SIGKILL);
    wait_until(house_children(&h, "polderd: worker", &other, 1) == 1 && other != worker, 10000);
    wait_until(cache_says(&h, "/cookie/k", "Cookie: a=1\r\n", "hit"), 10000);
    assert_int_equal(metric(&h, "cache_quarantined_routes"), 0);
    assert_int_equal(checks(&h, "differs"), 0);
    /* another route is checked as ever */
    atomic_store(&slow_ms, 0);
    provoke(&h, "/key", "X-Api-Key: k1\r\n", "X-Api-Key: k2\r\n", "quarantined");
    house_remove(&h);
}

static void who_waits_for_a_change_is_told_when_the_route_is_closed(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64];
    house_start(
        &h, 1,
        "cache { share = \"rfc\" leak_guard = 1 }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/cookie/*\" { upstream = \"u\" cache { } poll { min_interval = \"60s\" } }\n",
        backend_port(backend));
    atomic_store(&right, false);
    assert_int_equal(get_with(h.port, "/cookie/w", "Cookie: a=1\r\n", NULL), 200);
    wait_until(cache_says(&h, "/cookie/w", "Cookie: a=1\r\n", "hit"), 5000);
    assert_int_equal(get_with(h.port, "/cookie/w", "Cookie: a=1\r\n", &m), 200);
    snprintf(etag, sizeof etag, "%.60s", field_of(&m, "ETag"));
    message_free(&m);
    const int fd = client_connect(h.port);
    client_send(fd,
                "GET /cookie/w HTTP/1.1\r\nHost: test.example\r\nCookie: a=3\r\nPrefer: wait=30\r\n"
                "If-None-Match: %s\r\n\r\n",
                etag);
    wait_until(metric(&h, "poll_held") == 1, 5000);
    const uint64_t began_ms = mono_ms();
    wait_until(cache_says(&h, "/cookie/w", "Cookie: a=2\r\n", "quarantined"), 10000);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "content of a=3");
    assert_true(mono_ms() < began_ms + 15000);
    message_free(&m);
    close(fd);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_by_cookie_is_found_and_stopped),
        cmocka_unit_test(a_finding_closes_its_url_and_further_ones_what_is_beside),
        cmocka_unit_test(all_workers_obey_at_once),
        cmocka_unit_test(nobody_waits_for_another_in_quarantine),
        cmocka_unit_test(a_quarantine_needs_no_control_process),
        cmocka_unit_test(what_needs_a_token_and_is_given_to_all_is_found),
        cmocka_unit_test(what_is_given_to_those_without_a_token_is_found_too),
        cmocka_unit_test(the_header_is_named_among_several),
        cmocka_unit_test(a_quarantine_is_tried_again_and_ends_by_itself),
        cmocka_unit_test(a_counter_in_each_answer_does_not_hide_whose_it_is),
        cmocka_unit_test(a_changing_text_in_each_answer_does_not_hide_whose_it_is),
        cmocka_unit_test(error_pages_and_languages_quarantine_nothing),
        cmocka_unit_test(content_that_changes_by_itself_is_left_alone),
        cmocka_unit_test(who_is_refused_cannot_end_the_caching),
        cmocka_unit_test(servers_that_disagree_prove_nothing),
        cmocka_unit_test(who_has_waited_for_anothers_fetch_is_looked_at_too),
        cmocka_unit_test(what_is_right_is_never_flagged),
        cmocka_unit_test(a_released_route_is_shared_again_until_it_leaks_again),
        cmocka_unit_test(a_quarantine_outlives_the_service),
        cmocka_unit_test(a_partition_that_holds_the_header_ends_the_quarantine),
        cmocka_unit_test(a_backend_put_right_meanwhile_costs_one_copy),
        cmocka_unit_test(a_storm_of_hits_costs_a_check_a_second),
        cmocka_unit_test(a_worker_that_dies_in_a_check_leaves_nothing),
        cmocka_unit_test(who_waits_for_a_change_is_told_when_the_route_is_closed),
    };
    return run_with_backend(tests, &backend, answers);
}
