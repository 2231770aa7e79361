/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the cache: shared by all workers, invalidated at once, warm after a restart, never a
 * wrong byte. */
#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_uint version;
static struct backend *backend;

static char *pattern(size_t size)
{
    char *s = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        s[i] = (char)('a' + (i * 7 + i / 251) % 26);
    s[size] = 0;
    return s;
}

static atomic_bool heard, changed; /* a change that takes its time */

static void await_change(void)
{
    const uint64_t end = mono_ms() + harness_patience(10000);
    while (!atomic_load(&changed) && mono_ms() < end)
        nap_ms(5);
}

static bool answers(struct asked *a)
{
    const char *t = a->target;
    char body[256], lines[512];
    size_t size = 0;
    if (sscanf(t, "/size/%zu", &size) == 1) {
        char *s = pattern(size);
        bool ok =
            reply(a, "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %zu\r\n\r\n",
                  size) &&
            reply_bytes(a, s, size);
        free(s);
        return ok;
    }
    if (sscanf(t, "/chunked/%zu", &size) == 1) {
        char *s = pattern(size);
        bool ok = reply(
            a,
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t i = 0; ok && i < size; i += 5000) {
            size_t n = size - i < 5000 ? size - i : 5000;
            ok = reply(a, "%zx\r\n", n) && reply_bytes(a, s + i, n) && reply(a, "\r\n");
        }
        free(s);
        return ok && reply(a, "0\r\n\r\n");
    }
    unsigned v = atomic_load(&version);
    snprintf(body, sizeof body, "<version %u>", v);
    if (!strncmp(t, "/held", 5) && !atomic_exchange(&heard, true))
        await_change();
    if (!strncmp(t, "/hot", 4))
        return reply_ok(a, "Cache-Control: max-age=3\r\n", body);
    if (!strncmp(t, "/private", 8))
        return reply_ok(a, "Cache-Control: private, max-age=600\r\n", body);
    if (!strncmp(t, "/cookie", 7))
        return reply_ok(a, "Cache-Control: max-age=600\r\nSet-Cookie: a=b\r\n", body);
    if (!strncmp(t, "/no-store", 9))
        return reply_ok(a, "Cache-Control: no-store\r\n", body);
    if (!strncmp(t, "/vary", 5)) {
        const char *l = field_of(&a->m, "Accept-Language");
        snprintf(body, sizeof body, "language %s", l ? l : "none");
        return reply_ok(a, "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n", body);
    }
    if (!strncmp(t, "/etag", 5)) {
        const char *inm = field_of(&a->m, "If-None-Match");
        snprintf(lines, sizeof lines, "Cache-Control: max-age=0\r\nETag: \"v%u\"\r\n", v);
        char want[32];
        snprintf(want, sizeof want, "\"v%u\"", v);
        if (inm && !strcmp(inm, want))
            return reply(a, "HTTP/1.1 304 Not Modified\r\n%s\r\n", lines);
        return reply_ok(a, lines, body);
    }
    if (!strcmp(a->method, "POST") && strstr(t, "slow")) {
        atomic_store(&heard, true);
        await_change();
    }
    if (!strcmp(a->method, "POST"))
        return reply_ok(a, strstr(t, "groups") ? "Cache-Group-Invalidation: \"red\"\r\n" : "",
                        "done");
    snprintf(
        lines, sizeof lines,
        "Cache-Control: max-age=600\r\nCache-Groups: \"red\", \"item%.200s\"\r\nSurrogate-Key: "
        "blue green\r\n",
        t);
    return reply_ok(a, lines, body);
}

static void start(struct house *h, unsigned workers, const char *cache)
{
    backend_forget(backend); /* before: what is to be warm is fetched at the start */
    atomic_store(&version, 1);
    house_start(h, workers,
                "cache { ttl = \"5m\" stale_while_revalidate = \"0s\" %s }\nupstream \"u\" { "
                "server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                cache, backend_port(backend));
}

static void warm_urls_are_there_before_anybody_asks(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, "warm = {\"test.example/w/1\", \"test.example/w/2\"}");
    wait_until(backend_calls(backend) == 2, 5000);
    wait_until(served_from_store(h.port, "/w/1"), 2000);
    wait_until(served_from_store(h.port, "/w/2"), 2000);
    assert_int_equal(backend_calls(backend), 2);
    /* what is invalidated is fetched again, and nobody had to wait for it */
    atomic_store(&version, 2);
    assert_int_equal(ctl(&h, &out, "cache invalidate test.example/w/1"), 0);
    assert_non_null(strstr(out, "host         test.example\n"));
    assert_int_equal(ctl(&h, &out, "cache invalidate --prefix w/2"), 0); /* no host that there is */
    assert_non_null(strstr(out, "host         w\n"));
    assert_int_equal(ctl(&h, &out, "cache invalidate /w/none"), 0);
    assert_null(strstr(out, "host"));
    wait_until(backend_calls(backend) == 3, 10000); /* looked at again 5 s after the last time */
    wait_until(served_from_store(h.port, "/w/1"), 2000);
    assert_int_equal(backend_calls(backend), 3);
    house_remove(&h);
}

static void parameters_that_do_not_matter_reach_nobody(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "only_query = {\"id\", \"page\"} sort_query = true");
    assert_int_equal(get(h.port, "/q?page=2&evil=1&id=7", NULL), 200);
    wait_until(served_from_store(h.port, "/q?id=7&page=2&other"), 2000);
    assert_false(served_from_store(h.port, "/q?id=8&page=2"));
    char *asked = backend_transcript(backend);
    assert_non_null(strstr(asked, "GET /q?id=7&page=2\n"));
    assert_null(strstr(asked, "evil"));
    free(asked);
    house_remove(&h);
}

static void what_is_read_often_never_gets_stale(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    get(h.port, "/hot", NULL);
    wait_until(served_from_store(h.port, "/hot"), 2000);
    const uint64_t until = mono_ms() + 7000;
    while (mono_ms() < until) {
        assert_true(served_from_store(h.port, "/hot"));
        nap_ms(10);
    }
    /* three seconds each, less the last part of them */
    assert_in_range(backend_calls(backend), 3, 5);
    house_remove(&h);
}

static void what_one_worker_fetched_is_a_hit_on_all(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 4, "");
    assert_int_equal(get(h.port, "/x", &m), 200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "polder; fwd=uri-miss"));
    message_free(&m);
    wait_until(served_from_store(h.port, "/x"), 2000);
    backend_forget(backend);
    for (int i = 0; i < 64; i++) { /* 64 connections spread over all four */
        assert_int_equal(get(h.port, "/x", &m), 200);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "polder; hit; ttl="));
        assert_non_null(field_of(&m, "Age"));
        assert_string_equal(m.body, "<version 1>");
        message_free(&m);
    }
    assert_int_equal(backend_calls(backend), 0);
    house_remove(&h);
}

/* Asks twice: is it announced as stored, and is it then? */
static void expect_kept(struct house *h, const char *target, bool kept, const char *detail)
{
    struct message m;
    get(h->port, target, &m);
    const char *status = field_of(&m, "Cache-Status");
    if (kept != (strstr(status, "; stored") != NULL) || (detail && !strstr(status, detail)))
        fail_msg("%s: %s", target, status);
    message_free(&m);
    if (kept)
        wait_until(served_from_store(h->port, target), 5000);
    else
        assert_false(served_from_store(h->port, target));
}

static void what_is_called_stored_is_stored(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 1, "max_bytes = \"16M\"");
    expect_kept(&h, "/size/4194304", true, NULL); /* a quarter */
    expect_kept(&h, "/size/4194305", false, "larger than max_body");
    assert_int_equal(ctl(&h, &out, "cache set max_body=5M"), 2);
    assert_non_null(strstr(out, "a quarter of max_bytes"));
    assert_int_equal(ctl(&h, &out, "cache set max_body=20M max_bytes=80M"), 0);
    expect_kept(&h, "/size/20000000", true, NULL);
    assert_int_equal(ctl(&h, &out, "cache set max_body=1M max_bytes=16M"), 0);
    expect_kept(&h, "/size/2000000", false, "larger than max_body");
    house_remove(&h);
}

static void a_route_may_take_what_the_store_takes(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { max_body = \"20M\" } }\n",
                backend_port(backend));
    expect_kept(&h, "/size/9000000", true, NULL);
    assert_int_equal(ctl(&h, &out, "cache set max_bytes=16M max_body=1M"), 0);
    wait_until(house_logged(&h, "data.mdb"), 5000);
    expect_kept(&h, "/size/9000001", false, "larger than the store takes");
    house_remove(&h);
}

static void bodies_of_all_sizes_come_back_byte_for_byte(void **state)
{
    (void)state;
    struct house h;
    static const size_t sizes[] = {0,     1,     1000,   16000,   32000,  32752,
                                   32753, 65504, 100000, 1000000, 8000000};
    start(&h, 2, "max_bytes = \"1G\"");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < 2; kind++) {
            struct message m;
            char target[64], *want = pattern(sizes[i]);
            snprintf(target, sizeof target, "/%s/%zu", kind ? "chunked" : "size", sizes[i]);
            for (int n = 0; n < 3; n++) {
                assert_int_equal(get(h.port, target, &m), 200);
                assert_true(m.complete);
                assert_int_equal(m.body_len, sizes[i]);
                assert_memory_equal(m.body, want, sizes[i]);
                message_free(&m);
                if (n == 0 && (!kind || sizes[i] <= 1000000))
                    wait_until(served_from_store(h.port, target), 3000);
            }
            free(want);
        }
    house_remove(&h);
}

static void what_must_not_be_shared_is_not(void **state)
{
    (void)state;
    struct house h;
    static const char *const target[] = {"/private", "/cookie", "/no-store"};
    start(&h, 2, "");
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < 3; n++)
            assert_false(served_from_store(h.port, target[i]));
    struct message m;
    for (int n = 0; n < 3; n++) {
        assert_int_equal(get_with(h.port, "/auth", "Authorization: Bearer a\r\n", &m), 200);
        assert_null(strstr(field_of(&m, "Cache-Status"), "hit"));
        message_free(&m);
    }
    house_remove(&h);
}

static bool has_variant(struct house *h, const char *language)
{
    struct message m;
    char lines[64], want[64];
    snprintf(lines, sizeof lines, "Accept-Language: %s\r\n", language);
    snprintf(want, sizeof want, "language %s", language);
    get_with(h->port, "/vary", lines, &m);
    assert_string_equal(m.body, want);
    const bool hit = strstr(field_of(&m, "Cache-Status"), "polder; hit") != NULL;
    message_free(&m);
    return hit;
}

static void variants_are_kept_apart(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    wait_until(has_variant(&h, "nl"), 5000);
    wait_until(has_variant(&h, "fr"), 5000);
    for (int n = 0; n < 6; n++)
        assert_true(has_variant(&h, n % 2 ? "nl" : "fr"));
    assert_int_equal(backend_calls(backend), 2);
    house_remove(&h);
}

static void a_stale_response_is_validated(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2, "");
    assert_int_equal(get(h.port, "/etag", NULL), 200);
    wait_until(
        (get(h.port, "/etag", &m), strstr(field_of(&m, "Cache-Status"), "fwd-status=304") != NULL),
        3000);
    assert_string_equal(m.body, "<version 1>");
    message_free(&m);
    atomic_store(&version, 2);
    get(h.port, "/etag", &m);
    assert_string_equal(m.body, "<version 2>");
    message_free(&m);
    house_remove(&h);
}

static void a_client_with_the_same_validator_gets_304(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char line[256];
    start(&h, 2, "");
    get(h.port, "/x", NULL);
    wait_until(served_from_store(h.port, "/x"), 2000);
    get(h.port, "/x", &m);
    assert_non_null(field_of(&m, "ETag"));
    snprintf(line, sizeof line, "If-None-Match: %s\r\n", field_of(&m, "ETag"));
    message_free(&m);
    assert_int_equal(get_with(h.port, "/x", line, NULL), 304);
    assert_int_equal(get_with(h.port, "/x", "Range: bytes=1-7\r\n", &m), 206);
    assert_string_equal(m.body, "version");
    message_free(&m);
    assert_int_equal(get_with(h.port, "/x", "Range: bytes=100-\r\n", NULL), 416);
    house_remove(&h);
}

static void stale_content_stands_in_for_a_dead_backend(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct backend *own = backend_start(answers, NULL);
    house_start(&h, 2,
                "cache { ttl = \"1s\" stale_while_revalidate = \"0s\" stale_if_error = \"1h\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } connect_timeout = \"300ms\" }\nroute "
                "\"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(own));
    atomic_store(&version, 1);
    assert_int_equal(get(h.port, "/etag", NULL), 200);
    wait_until((get(h.port, "/etag", &m), strstr(field_of(&m, "Cache-Status"), "304") != NULL),
               3000);
    message_free(&m);
    backend_stop(own);
    assert_int_equal(get(h.port, "/etag", &m), 200);
    assert_string_equal(m.body, "<version 1>");
    message_free(&m);
    house_remove(&h);
}

/* ---- invalidation ---- */

static void nobody_sees_the_old(struct house *h, const char *target, const char *command)
{
    unsigned counts[1000] = {0}, old = atomic_load(&version);
    char forbidden[32];
    snprintf(forbidden, sizeof forbidden, "<version %u>", old);
    wait_until((get(h->port, target, NULL), served_from_store(h->port, target)), 3000);
    atomic_store(&version, old + 1);
    assert_int_equal(ctl(h, NULL, "%s", command), 0);
    storm(h->port, target, 10000, 16, counts, forbidden);
    assert_int_equal(counts[200], 10000);
    assert_int_equal(counts[999], 0);
}

static void after_an_invalidation_returns_nobody_sees_the_old(void **state)
{
    (void)state;
    struct house h;
    start(&h, 4, "");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate 'http://test.example/a/b?c=1'");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate '/a/b?c=1'");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate --prefix /a/");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate --prefix test.example/a/");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate --tag red");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate --tag green");
    nobody_sees_the_old(&h, "/a/b?c=1", "cache invalidate --all");
    /* and what was not meant stays */
    wait_until((get(h.port, "/other", NULL), served_from_store(h.port, "/other")), 3000);
    assert_int_equal(ctl(&h, NULL, "cache invalidate --prefix /a/"), 0);
    assert_int_equal(ctl(&h, NULL, "cache invalidate --tag nothing-has-this"), 0);
    assert_true(served_from_store(h.port, "/other"));
    house_remove(&h);
}

/* What an invalidation overtakes is given to the client that asked before it, and to nobody else. */
static void a_fetch_under_way_is_not_served_as_fresh(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2, "");
    for (unsigned i = 0; i < 30; i++) {
        char target[32], old[32];
        unsigned counts[1000] = {0};
        snprintf(target, sizeof target, "/held%u", i);
        snprintf(old, sizeof old, "<version %u>", atomic_load(&version));
        atomic_store(&heard, false);
        atomic_store(&changed, false);
        const int fd = client_connect(h.port);
        client_send(fd, "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n", target);
        wait_until(atomic_load(&heard), 10000);
        atomic_fetch_add(&version, 1);
        assert_int_equal(ctl(&h, NULL, "cache invalidate %s", i % 2 ? "--tag red" : "--all"), 0);
        atomic_store(&changed, true);
        client_read(fd, &m, false);
        assert_string_equal(m.body, old);
        message_free(&m);
        close(fd);
        storm(h.port, target, 20, 4, counts, old);
        assert_int_equal(counts[200], 20);
        assert_int_equal(counts[999], 0);
    }
    house_remove(&h);
}

static void an_unsafe_method_cleans_up_after_itself(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 4, "");
    for (int groups = 0; groups < 2; groups++) {
        wait_until((get(h.port, "/thing", NULL), served_from_store(h.port, "/thing")), 3000);
        unsigned now = atomic_fetch_add(&version, 1) + 1;
        char want[32];
        snprintf(want, sizeof want, "<version %u>", now);
        assert_int_equal(request(h.port, "POST", groups ? "/groups" : "/thing", "", "x", NULL),
                         200);
        get(h.port, "/thing", &m);
        assert_string_equal(m.body, want);
        message_free(&m);
    }
    house_remove(&h);
}

static void a_change_counts_whether_its_client_waits_or_not(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char want[32];
    const struct linger reset = {.l_onoff = 1};
    start(&h, 1, "");
    atomic_store(&heard, false);
    atomic_store(&changed, false);
    wait_until((get(h.port, "/slow", NULL), served_from_store(h.port, "/slow")), 3000);
    const int fd = client_connect(h.port);
    client_send(fd, "POST /slow HTTP/1.1\r\nHost: test.example\r\nContent-Length: 1\r\n\r\nx");
    wait_until(atomic_load(&heard), 3000);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    for (int i = 0; i < 3; i++) /* the worker has seen it by then */
        assert_int_equal(get(h.port, "/thing", NULL), 200);
    snprintf(want, sizeof want, "<version %u>", atomic_fetch_add(&version, 1) + 1);
    atomic_store(&changed, true);
    wait_until((get(h.port, "/slow", &m), strcmp(m.body, want) == 0 || (message_free(&m), false)),
               3000);
    message_free(&m);
    house_remove(&h);
}

static void a_soft_invalidation_only_ends_freshness(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "stale_if_error = \"1h\"");
    wait_until((get(h.port, "/x", NULL), served_from_store(h.port, "/x")), 3000);
    atomic_fetch_add(&version, 1);
    assert_int_equal(ctl(&h, NULL, "cache invalidate --soft --tag red"), 0);
    assert_false(served_from_store(h.port, "/x"));
    house_remove(&h);
}

/* ---- restarts ---- */

static void a_restart_finds_the_cache_warm(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    wait_until((get(h.port, "/x", NULL), served_from_store(h.port, "/x")), 3000);
    wait_until((get(h.port, "/size/100000", NULL), served_from_store(h.port, "/size/100000")),
               3000);
    wait_until((get(h.port, "/gone", NULL), served_from_store(h.port, "/gone")), 3000);
    assert_int_equal(ctl(&h, NULL, "cache invalidate http://test.example/gone"), 0);
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    backend_forget(backend);
    assert_true(served_from_store(h.port, "/x"));
    assert_true(served_from_store(h.port, "/size/100000"));
    assert_int_equal(backend_calls(backend), 0);
    assert_false(served_from_store(h.port, "/gone"));
    house_kill(&h); /* kill -9 of everything: what is there is sound, or wiped */
    house_run(&h);
    struct message m;
    assert_int_equal(get(h.port, "/x", &m), 200);
    assert_string_equal(m.body, "<version 1>");
    message_free(&m);
    house_remove(&h);
}

static bool find_data(const char *dir, char *path, size_t size)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    bool found = false;
    while (d && !found && (e = readdir(d))) {
        struct stat st;
        snprintf(path, size, "%s/%.200s/data.mdb", dir, e->d_name);
        found = !strncmp(e->d_name, "cache.", 6) && !stat(path, &st);
    }
    if (d)
        closedir(d);
    return found;
}

static void damage(const char *path, int kind)
{
    struct stat st;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && !fstat(fd, &st));
    char noise[4096];
    unsigned seed = 12345u + (unsigned)kind;
    off_t span = 64 * 4096; /* where the pages in use are */
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)rand_r(&seed);
    if (kind == 0)
        assert_int_equal(ftruncate(fd, 8192), 0);
    else if (kind == 1)
        assert_int_equal(pwrite(fd, noise, sizeof noise, 0), (ssize_t)sizeof noise);
    else if (kind == 2)
        assert_int_equal(ftruncate(fd, 0), 0);
    else
        for (int i = 0; i < 400; i++) {
            off_t at = (off_t)((unsigned long)rand_r(&seed) % (unsigned long)span);
            assert_int_equal(pwrite(fd, noise + i, 1, at), 1);
        }
    close(fd);
}

static void a_damaged_database_never_serves_a_wrong_byte(void **state)
{
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        struct house h;
        char path[1024], state_dir[256], target[64];
        start(&h, 2, "");
        for (int i = 0; i < 40; i++) {
            snprintf(target, sizeof target, "/size/%d", 100 + i * 300);
            assert_int_equal(get(h.port, target, NULL), 200);
        }
        wait_until(served_from_store(h.port, target), 3000);
        assert_int_equal(house_stop(&h), 0);
        snprintf(state_dir, sizeof state_dir, "%s/state", h.dir);
        assert_true(find_data(state_dir, path, sizeof path));
        damage(path, kind);
        house_run(&h);
        for (int round = 0; round < 2; round++)
            for (int i = 0; i < 40; i++) {
                struct message m;
                size_t size = (size_t)(100 + i * 300);
                char *want = pattern(size);
                snprintf(target, sizeof target, "/size/%zu", size);
                assert_int_equal(get(h.port, target, &m), 200);
                assert_int_equal(m.body_len, size);
                assert_memory_equal(m.body, want, size);
                message_free(&m);
                free(want);
            }
        wait_until((get(h.port, "/after", NULL), served_from_store(h.port, "/after")), 5000);
        if (kind < 3)
            assert_true(house_logged(&h, "failed its checks"));
        house_remove(&h);
    }
}

static void the_keeper_may_die_at_any_time(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    for (int i = 0; i < 15; i++) {
        pid_t keeper, again;
        char target[32];
        unsigned counts[1000] = {0};
        assert_int_equal(house_children(&h, "polderd: keeper", &keeper, 1), 1);
        kill(keeper, SIGKILL);
        snprintf(target, sizeof target, "/k%d", i);
        storm(h.port, target, 200, 8, counts, NULL);
        assert_int_equal(counts[200], 200);
        wait_until(house_children(&h, "polderd: keeper", &again, 1) == 1 && again != keeper, 2000);
        if (i % 5 == 4)
            wait_until((get(h.port, target, NULL), served_from_store(h.port, target)), 8000);
        nap_ms(300);
    }
    wait_until((get(h.port, "/end", NULL), served_from_store(h.port, "/end")), 10000);
    house_remove(&h);
}

static void the_cache_is_bounded_by_items(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, "max_items = 100");
    for (int i = 0; i < 400; i++) {
        char target[32];
        snprintf(target, sizeof target, "/n%d", i);
        assert_int_equal(get(h.port, target, NULL), 200);
    }
    struct message m;
    int items = 0;
    wait_until((get(h.ops_port, "/api/telemetry/cache-stats", &m),
                sscanf(strstr(m.body, "\"items\":"), "\"items\":%d", &items) == 1 && items > 50),
               5000);
    assert_in_range(items, 50, 100);
    message_free(&m);
    assert_int_equal(ctl(&h, NULL, "cache set max_items=10"), 0);
    wait_until((get(h.port, "/poke", NULL), get(h.ops_port, "/api/telemetry/cache-stats", &m),
                sscanf(strstr(m.body, "\"items\":"), "\"items\":%d", &items) == 1 && items <= 10),
               5000);
    message_free(&m);
    assert_int_equal(ctl(&h, &out, "cache list"), 0);
    assert_int_equal(ctl(&h, &out, "cache show http://test.example/nowhere"), 1);
    house_remove(&h);
}

static bool slow_answer(struct asked *a)
{
    nap_ms(300);
    return reply_ok(a, "Cache-Control: max-age=60\r\n", "slow");
}

static void a_thousand_misses_are_one_call(void **state)
{
    (void)state;
    struct house h;
    unsigned counts[1000] = {0};
    struct backend *b = backend_start(slow_answer, NULL);
    house_start(&h, 4,
                "cache { }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { "
                "upstream = \"u\" cache { } }\n",
                backend_port(b));
    storm(h.port, "/cold", 400, 200, counts, NULL);
    assert_int_equal(counts[200], 400);
    assert_int_equal(backend_calls(b), 1);
    house_remove(&h);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_urls_are_there_before_anybody_asks),
        cmocka_unit_test(parameters_that_do_not_matter_reach_nobody),
        cmocka_unit_test(what_is_read_often_never_gets_stale),
        cmocka_unit_test(what_one_worker_fetched_is_a_hit_on_all),
        cmocka_unit_test(what_is_called_stored_is_stored),
        cmocka_unit_test(a_route_may_take_what_the_store_takes),
        cmocka_unit_test(bodies_of_all_sizes_come_back_byte_for_byte),
        cmocka_unit_test(what_must_not_be_shared_is_not),
        cmocka_unit_test(variants_are_kept_apart),
        cmocka_unit_test(a_stale_response_is_validated),
        cmocka_unit_test(a_client_with_the_same_validator_gets_304),
        cmocka_unit_test(stale_content_stands_in_for_a_dead_backend),
        cmocka_unit_test(after_an_invalidation_returns_nobody_sees_the_old),
        cmocka_unit_test(a_fetch_under_way_is_not_served_as_fresh),
        cmocka_unit_test(an_unsafe_method_cleans_up_after_itself),
        cmocka_unit_test(a_change_counts_whether_its_client_waits_or_not),
        cmocka_unit_test(a_soft_invalidation_only_ends_freshness),
        cmocka_unit_test(a_restart_finds_the_cache_warm),
        cmocka_unit_test(a_damaged_database_never_serves_a_wrong_byte),
        cmocka_unit_test(the_keeper_may_die_at_any_time),
        cmocka_unit_test(the_cache_is_bounded_by_items),
        cmocka_unit_test(a_thousand_misses_are_one_call),
    };
    return run_with_backend(tests, &backend, answers);
}
