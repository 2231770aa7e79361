/* SPDX-License-Identifier: BSD-2-Clause */
/* Which route a path takes, and that no spelling of a path escapes from its route. */
#include "polder/route.h"
#include "polder/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ARENA_SIZE (8u << 20)
#define ROUTES     1000

static char *memory;

static void complain(void *arg, const char *line)
{
    (void)arg;
    fail_msg("%s", line);
}

static const struct config *load(const char *const *patterns, size_t n)
{
    char path[] = "/tmp/polder-route.XXXXXX";
    struct config_arena arena;
    FILE *f = fdopen(mkstemp(path), "w");
    assert_non_null(f);
    fputs("upstream \"u\" { server \"127.0.0.1:1\" { } }\n", f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "route \"%s\" { upstream = u }\n", patterns[i]);
    fclose(f);
    config_arena_init(&arena, memory, ARENA_SIZE);
    const struct config *c = config_load(&arena, path, complain, NULL);
    unlink(path);
    return c;
}

/* As a request takes it: spelled, then looked up. */
static const char *taken(const struct config *c, const char *path)
{
    char normal[256];
    const int n = route_path_normal(path, strlen(path), normal, sizeof normal);
    const struct config_route *r = n < 0 ? NULL : route_find(c, normal, (size_t)n);
    return r ? r->pattern : "none";
}

static void expect(const struct config *c, const char *path, const char *pattern)
{
    if (strcmp(taken(c, path), pattern))
        fail_msg("%s takes %s instead of %s", path, taken(c, path), pattern);
}

static void the_most_specific_route_wins(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/*",         "/api/*", "/api/items/*", "/api/items/1",
                                           "/api/item*", "/api",   "/b/*",         "/b/c"};
    static const char *const want[][2] = {{"/", "/*"},
                                          {"/x", "/*"},
                                          {"/ap", "/*"},
                                          {"/api", "/api"},
                                          {"/api/", "/api/*"},
                                          {"/api/ite", "/api/*"},
                                          {"/api/item", "/api/item*"},
                                          {"/api/items", "/api/item*"},
                                          {"/api/items/", "/api/items/*"},
                                          {"/api/items/1", "/api/items/1"},
                                          {"/api/items/1/", "/api/items/*"},
                                          {"/api/items/12", "/api/items/*"},
                                          {"/b", "/*"},
                                          {"/b/c", "/b/c"},
                                          {"/b/cd", "/b/*"}};
    const struct config *c = load(patterns, sizeof patterns / sizeof *patterns);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        expect(c, want[i][0], want[i][1]);
}

static void what_no_pattern_covers_has_no_route(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/only", "/other/*"};
    const struct config *c = load(patterns, 2);
    static const char *const paths[] = {"/", "/onl", "/only/", "/onlya", "/other", "*", "only"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        expect(c, paths[i], "none");
    assert_null(route_find(c, "", 0));
    c = load(NULL, 0);
    expect(c, "/", "none");
}

/* What backends decode, merge and resolve, must not lead around a limit. */
static void no_spelling_escapes_from_its_route(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/*", "/api/quota/status", "/api/items/*", "/a:b/*",
                                           "/caf%C3%A9/*"};
    static const char *const status[] = {
        "/api/quota/status",     "/api/quota%2Fstatus",    "/api/quota%2fstatus",
        "/%61pi/quota/st%61tus", "//api/quota/status",     "/api//quota///status",
        "/api/./quota/status",   "/x/../api/quota/status", "/x%2F..%2Fapi/quota/status",
        "/api/quota/%2E/status", "/api%2F%2Fquota/status", "/x/%2e%2E/api/quota/status"};
    const struct config *c = load(patterns, sizeof patterns / sizeof *patterns);
    for (size_t i = 0; i < sizeof status / sizeof *status; i++)
        expect(c, status[i], "/api/quota/status");
    expect(c, "/api//items/1", "/api/items/*");
    expect(c, "/api/items%2F1", "/api/items/*");
    expect(c, "/api/items/../quota/status", "/api/quota/status");
    expect(c, "/a%3Ab/c", "/a:b/*");
    expect(c, "/caf%c3%a9/x", "/caf%C3%A9/*");
    expect(c, "/api%252Fquota/status", "/*"); /* decoded once, as backends do */
}

/* Backends differ in what an escaped slash is: where that leads to two routes, there is none. */
static void an_escaped_slash_does_not_choose_between_routes(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/*",          "/static/*",    "/account/*",
                                           "/projects/*", "/caf%C3%A9/*", "/api/quota/*"};
    static const char *const two[] = {"/account/..%2fstatic/x.css",
                                      "/account/%2e%2e%2Fstatic/y",
                                      "/account/x%2f..%2f..%2fstatic/y",
                                      "/account%2f..%2fstatic/y",
                                      "/account//..%2Fstatic/x",
                                      "/api/quota/x%2f..%2f..%2f..%2fz",
                                      "/static%2Fx"};
    static const char *const one[] = {"/projects/group%2Fproject",
                                      "/projects/a%2f..%2fb",
                                      "/caf%c3%a9/x%2fy",
                                      "/static/a%252F..",
                                      "/x%2Fy",
                                      "/static/..%3Fx",
                                      "/account/%5C..%5Cstatic"};
    const struct config *c = load(patterns, sizeof patterns / sizeof *patterns);
    for (size_t i = 0; i < sizeof two / sizeof *two + sizeof one / sizeof *one; i++) {
        const bool ambiguous = i < sizeof two / sizeof *two;
        const char *path = ambiguous ? two[i] : one[i - sizeof two / sizeof *two];
        char normal[256];
        const size_t n = (size_t)route_path_normal(path, strlen(path), normal, sizeof normal);
        if (route_is_ambiguous(c, normal, n, route_find(c, normal, n)) != ambiguous)
            fail_msg("%s", path);
    }
}

/* Every path against a search through all routes. */
static const char *slowly(const char *const *patterns, size_t n, const char *path)
{
    const char *best = "none";
    size_t longest = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t len = strlen(patterns[i]);
        if (patterns[i][len - 1] != '*' && !strcmp(patterns[i], path))
            return patterns[i];
        if (patterns[i][len - 1] == '*' && len > longest && !strncmp(patterns[i], path, len - 1)) {
            best = patterns[i];
            longest = len;
        }
    }
    return best;
}

static void a_random_path(char *out, unsigned *seed)
{
    const int len = rand_r(seed) % 12;
    *out++ = '/';
    for (int i = 0; i < len; i++) {
        const char c = "ab/"[rand_r(seed) % 3];
        *out = c == '/' && out[-1] == '/' ? 'c' : c;
        out++;
    }
    *out = 0;
}

static void the_tree_finds_what_a_search_finds(void **state)
{
    (void)state;
    static char text[ROUTES][20];
    const char *patterns[ROUTES];
    unsigned seed = 7;
    size_t n = 0;
    while (n < ROUTES) {
        a_random_path(text[n], &seed);
        if (rand_r(&seed) % 2)
            strcat(text[n], "*");
        bool is_new = true;
        for (size_t i = 0; i < n && is_new; i++)
            is_new = strcmp(text[i], text[n]) != 0;
        patterns[n] = text[n];
        n += is_new;
    }
    const struct config *c = load(patterns, n);
    for (int i = 0; i < 20000; i++) {
        char path[20];
        a_random_path(path, &seed);
        expect(c, path, slowly(patterns, n, path));
    }
}

static void a_path_has_one_spelling(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"/a/b", "/a/b"},
                                           {"/%61/b", "/a/b"},
                                           {"/a/./b", "/a/b"},
                                           {"/a/../b", "/b"},
                                           {"/../../b", "/b"},
                                           {"/a/..", "/"},
                                           {"/a/.", "/a/"},
                                           {"/a//b", "/a//b"},
                                           {"/%2f", "/%2F"},
                                           {"/%2e%2e/b", "/b"},
                                           {"/a/%2e/b", "/a/b"},
                                           {"/%25zz", "/%25zz"},
                                           {"/%2561", "/%2561"},
                                           {"*", "*"},
                                           {"/a/...", "/a/..."},
                                           {"/.a", "/.a"},
                                           {"/", "/"},
                                           {"/a/b/../../c", "/c"},
                                           {"/%7Euser", "/~user"},
                                           {"/a//../b", "/a/b"},
                                           {"/%c3%bc", "/%C3%BC"},
                                           {"/..", "/"},
                                           {"/a/b/..", "/a/"},
                                           {"/%2e", "/"},
                                           {"/a%2F..%2Fb", "/a%2F..%2Fb"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char out[64], again[64];
        const size_t len = strlen(pairs[i][0]), want = strlen(pairs[i][1]);
        const int n = route_path_normal(pairs[i][0], len, out, len);
        if (n != (int)want || memcmp(out, pairs[i][1], want))
            fail_msg("%s became %.*s", pairs[i][0], n < 0 ? 0 : n, out);
        assert_int_equal(route_path_normal(out, want, again, sizeof again), n);
        assert_memory_equal(out, again, want);
    }
}

static void malformed_escapes_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"/%",   "/%4",  "/%zz",  "/%4g",    "/a%",   "/%%361",
                                      "/%00", "/a%0", "/%u00", "/%61%2x", "/%C3%B"};
    char out[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (route_path_normal(bad[i], strlen(bad[i]), out, sizeof out) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(route_path_normal("/a\0b", 4, out, sizeof out), -EINVAL);
    assert_int_equal(route_path_normal("/abc", 4, out, 3), -ENOBUFS);
}

static int set_up(void **state)
{
    (void)state;
    memory = malloc(ARENA_SIZE);
    return !memory;
}
static int tear_down(void **state)
{
    (void)state;
    free(memory);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_specific_route_wins),
        cmocka_unit_test(what_no_pattern_covers_has_no_route),
        cmocka_unit_test(no_spelling_escapes_from_its_route),
        cmocka_unit_test(an_escaped_slash_does_not_choose_between_routes),
        cmocka_unit_test(the_tree_finds_what_a_search_finds),
        cmocka_unit_test(a_path_has_one_spelling),
        cmocka_unit_test(malformed_escapes_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
