/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of RFC 9111's finer rules, through the real daemon: what each answer of a backend does to
 * what is stored. */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

static void start(struct house *h, backend_fn fn, void *arg, const char *cache)
{
    backend = backend_start(fn, arg);
    house_start(h, 2,
                "cache { ttl = \"heuristic\" stale_while_revalidate = \"0s\" %s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                cache, backend_port(backend));
    backend_forget(backend);
}

static void stop(struct house *h)
{
    house_remove(h);
    backend_stop(backend);
}

/* ---- answers to POST ---- */

static bool posts(struct asked *a)
{
    char lines[128];
    if (!strncmp(a->target, "/other", 6))
        return reply_ok(a, "", "done");
    snprintf(lines, sizeof lines, "Cache-Control: max-age=600\r\nContent-Location: %.60s\r\n",
             a->target);
    atomic_uint *others = a->arg;
    const unsigned before = atomic_load(others);
    if (!strcmp(a->method, "POST")) /* it takes its time, and others are at work meanwhile */
        wait_until(atomic_load(others) > before + 2, 5000);
    return reply_ok(a, lines, a->method);
}

struct bystander {
    unsigned port;
    atomic_uint *others;
    atomic_bool stop;
};

static void *post_elsewhere(void *arg)
{
    struct bystander *b = arg;
    while (!atomic_load(&b->stop)) {
        request(b->port, "POST", "/other", "", "x", NULL);
        atomic_fetch_add(b->others, 1);
        nap_ms(2);
    }
    return NULL;
}

static void answers_to_post_are_kept_while_others_invalidate_other_things(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    static atomic_uint others;
    pthread_t thread;
    start(&h, posts, &others, "");
    struct bystander b = {.port = h.port, .others = &others};
    pthread_create(&thread, NULL, post_elsewhere, &b);
    unsigned hits = 0;
    for (unsigned i = 0; i < 20; i++) {
        char target[32];
        snprintf(target, sizeof target, "/thing/%u", i);
        assert_int_equal(request(h.port, "POST", target, "", "x", NULL), 200);
        assert_int_equal(get(h.port, target, &m), 200);
        hits += !strcmp(m.body, "POST");
        message_free(&m);
    }
    atomic_store(&b.stop, true);
    pthread_join(thread, NULL);
    /* an invalidation in the very microseconds of the answer costs it its reuse: rare */
    assert_true(hits >= 15);
    stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_to_post_are_kept_while_others_invalidate_other_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
