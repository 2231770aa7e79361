/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of a 304 that changes more than times: what it says of tags and of sharing counts. */
#include "harness.h"

#include <stdio.h>
#include <string.h>

static struct backend *backend;

/* As a server that was configured anew in between. */
static bool finds_out_that_it_varies(struct asked *a)
{
    char body[64], language[16];
    const char *said = field_of(&a->m, "Accept-Language");
    snprintf(language, sizeof language, "%s", said ? said : "none");
    const bool english = !strcmp(language, "en");
    if (english && field_of(&a->m, "If-None-Match"))
        return reply(a, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nVary: Accept-Language\r\n"
                        "Cache-Control: max-age=600\r\n\r\n");
    if (a->number == 1)
        return reply_ok(a, "ETag: \"a\"\r\nCache-Control: max-age=0\r\n", "language en");
    snprintf(body, sizeof body, "language %s", language);
    return reply_ok(a, "Vary: Accept-Language\r\nCache-Control: max-age=600\r\n", body);
}

/* Stale at once; a 304 says something else than the 200 did. */
static bool changes_its_mind(struct asked *a)
{
    if (!strncmp(a->target, "/vary", 5))
        return finds_out_that_it_varies(a);
    if (!field_of(&a->m, "If-None-Match"))
        return reply_ok(a, "ETag: \"a\"\r\nCache-Control: max-age=0\r\nSurrogate-Key: before\r\n",
                        "content");
    if (!strncmp(a->target, "/private", 8))
        return reply(a,
                     "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: private\r\n\r\n");
    if (!strncmp(a->target, "/many", 5)) {
        char tags[400] = "";
        for (unsigned i = 0; i < 33; i++)
            snprintf(tags + strlen(tags), sizeof tags - strlen(tags), "tag%u ", i);
        return reply(a,
                     "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n"
                     "Surrogate-Key: %s\r\n\r\n",
                     tags);
    }
    return reply(a, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n"
                    "Surrogate-Key: after\r\n\r\n");
}

static void start(struct house *h, unsigned swr_s)
{
    backend = backend_start(changes_its_mind, NULL);
    house_start(h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" "
                "cache { stale_while_revalidate = \"%us\" } }\n",
                backend_port(backend), swr_s);
}

static void stop(struct house *h)
{
    house_remove(h);
    backend_stop(backend);
}

static bool is_fresh(unsigned port, const char *target)
{
    struct message m;
    get(port, target, &m);
    const char *status = field_of(&m, "Cache-Status");
    const bool fresh = status && !strncmp(status, "polder; hit", 11);
    message_free(&m);
    return fresh;
}

static void the_tags_of_a_304_are_those_that_invalidate(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 0);
    wait_until(is_fresh(h.port, "/x"), 5000);
    assert_int_equal(ctl(&h, &out, "cache invalidate --tag before"), 0);
    assert_true(is_fresh(h.port, "/x"));
    assert_int_equal(ctl(&h, &out, "cache invalidate --tag after"), 0);
    assert_false(is_fresh(h.port, "/x"));
    stop(&h);
}

/* Is it kept, fresh or stale? */
static bool is_stored(struct house *h, const char *target)
{
    const char *out;
    return ctl(h, &out, "cache show %s", target) == 0;
}

static void what_a_304_takes_back_is_not_given_stale_to_anybody(void **state)
{
    (void)state;
    struct house h;
    static const char *const targets[] = {"/private", "/many"};
    start(&h, 600);
    for (size_t i = 0; i < 2; i++) {
        get(h.port, targets[i], NULL);
        wait_until(is_stored(&h, targets[i]), 5000);
        get(h.port, targets[i], NULL); /* it is asked again, behind */
        wait_until(!is_stored(&h, targets[i]), 5000);
        assert_false(is_fresh(h.port, targets[i]));
    }
    stop(&h);
}

static bool is_in(unsigned port, const char *language)
{
    char line[64], body[64];
    struct message m;
    snprintf(line, sizeof line, "Accept-Language: %s\r\n", language);
    snprintf(body, sizeof body, "language %s", language);
    get_with(port, "/vary", line, &m);
    const bool right = !strcmp(m.body, body);
    message_free(&m);
    return right;
}

static void what_varies_since_a_304_is_not_given_to_others(void **state)
{
    (void)state;
    struct house h;
    start(&h, 0);
    assert_true(is_in(h.port, "en"));
    wait_until(is_stored(&h, "/vary"), 5000);
    assert_true(is_in(h.port, "en")); /* the 304 */
    for (unsigned i = 0; i < 20; i++) {
        assert_true(is_in(h.port, "de"));
        assert_true(is_in(h.port, "en"));
    }
    stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tags_of_a_304_are_those_that_invalidate),
        cmocka_unit_test(what_a_304_takes_back_is_not_given_stale_to_anybody),
        cmocka_unit_test(what_varies_since_a_304_is_not_given_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
