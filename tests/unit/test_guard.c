/* SPDX-License-Identifier: BSD-2-Clause */
/* The leak guard without a loop: what answers prove, which fields say who asks, the page of routes.
 */
#include "polder/guard_words.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- trial ---- */

/* Answers a request that lacks the fields `omits`, as the nth one. */
typedef struct guard_print (*answer_fn)(unsigned n, uint32_t omits);

static struct guard_print print_of(uint64_t shape, uint64_t content)
{
    return (struct guard_print){
        .shape = shape, .content = shape * 1000003 + content, .usable = true};
}

static struct guard_experiment tried_with(answer_fn answer, uint32_t n_fields, uint32_t pairs,
                                          unsigned *asked)
{
    struct guard_experiment t;
    unsigned n = 0;
    guard_experiment_start(&t, n_fields, pairs);
    while (t.verdict == GUARD_OPEN) {
        const struct guard_print p = answer(n++, guard_experiment_omits(&t));
        assert_in_range(n, 1, 2 * GUARD_PAIRS_MAX + 2 * GUARD_FIELDS_MAX);
        guard_experiment_hear(&t, &p);
    }
    if (asked)
        *asked = n;
    return t;
}

static struct guard_experiment tried(answer_fn answer, uint32_t n_fields, unsigned *asked)
{
    return tried_with(answer, n_fields, GUARD_PAIRS, asked);
}

static struct guard_print the_same(unsigned n, uint32_t omits)
{
    (void)n, (void)omits;
    return print_of(200, 1);
}
static struct guard_print by_field_1(unsigned n, uint32_t omits)
{
    (void)n;
    return print_of(200, omits & 2 ? 7 : 8);
}
static struct guard_print by_each_field(unsigned n, uint32_t omits)
{
    (void)n;
    return print_of(200, omits & 5);
}
/* Either of two is enough to be known. */
static struct guard_print by_either_field(unsigned n, uint32_t omits)
{
    (void)n;
    return print_of(200, (omits & 3) == 3);
}
static struct guard_print a_counter(unsigned n, uint32_t omits)
{
    (void)omits;
    return print_of(200, n);
}
static struct guard_print a_counter_and_a_name(unsigned n, uint32_t omits)
{
    struct guard_print p = print_of(200, n);
    p.masked = omits & 2;
    return p;
}
static struct guard_print a_counter_for_the_known(unsigned n, uint32_t omits)
{
    return print_of(200, omits ? 5000 : n);
}
static struct guard_print a_counter_for_strangers(unsigned n, uint32_t omits)
{
    return print_of(200, omits ? n : 5000);
}
static struct guard_print counters_and_refusals(unsigned n, uint32_t omits)
{
    return print_of(omits ? 401 : 200, n);
}
static unsigned changes_at, period, seed;
static struct guard_print changes_once(unsigned n, uint32_t omits)
{
    (void)omits;
    return print_of(200, n >= changes_at);
}
static struct guard_print alternates(unsigned n, uint32_t omits)
{
    (void)omits;
    return print_of(200, n / period % 2);
}
static struct guard_print one_of_two(unsigned n, uint32_t omits)
{
    (void)n, (void)omits;
    seed = seed * 1103515245 + 12345;
    return print_of(200, seed >> 16 & 1);
}
static unsigned fails_at;
static struct guard_print fails_once(unsigned n, uint32_t omits)
{
    struct guard_print p = by_field_1(n, omits);
    p.usable = n != fails_at;
    return p;
}

static void content_that_is_the_same_takes_two_answers(void **state)
{
    (void)state;
    unsigned asked;
    assert_int_equal(tried(the_same, 3, &asked).verdict, GUARD_SAME);
    assert_int_equal(asked, 2);
}

static void the_field_that_matters_is_named(void **state)
{
    (void)state;
    unsigned asked;
    struct guard_experiment t = tried(by_field_1, 4, &asked);
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    assert_int_equal(t.named, 2);
    assert_int_equal(asked, 2 * GUARD_PAIRS + 2 * 4);
    t = tried(by_each_field, 3, NULL);
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    assert_int_equal(t.named, 5);
    t = tried(by_either_field, 3, NULL);
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    assert_int_equal(t.named, 7); /* none of them alone */
    t = tried(by_each_field, 1, &asked);
    assert_int_equal(t.named, 1);
    assert_int_equal(asked, 2 * GUARD_PAIRS); /* there is nothing to find out */
}

static void content_of_one_kind_alone_may_change(void **state)
{
    (void)state;
    struct guard_experiment t = tried(a_counter_for_the_known, 2, NULL);
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    t = tried(a_counter_for_strangers, 2, NULL);
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    t = tried(counters_and_refusals, 2, NULL); /* bodies never are the same, but statuses are */
    assert_int_equal(t.verdict, GUARD_DIFFERS);
}

static void content_that_changes_by_itself_proves_nothing(void **state)
{
    (void)state;
    unsigned asked;
    assert_int_equal(tried(a_counter, 2, &asked).verdict, GUARD_UNSTABLE);
    assert_in_range(asked, 3, GUARD_LEARNS + 2);
    for (changes_at = 1; changes_at < 40; changes_at++)
        assert_int_not_equal(tried(changes_once, 2, NULL).verdict, GUARD_DIFFERS);
    for (period = 1; period < 40; period++) /* as servers take turns */
        assert_int_not_equal(tried(alternates, 2, NULL).verdict, GUARD_DIFFERS);
}

static void chance_needs_luck_that_nobody_has(void **state)
{
    (void)state;
    unsigned found = 0, most = 0;
    seed = 7;
    for (unsigned i = 0; i < 200000; i++)
        found += tried(one_of_two, 2, NULL).verdict == GUARD_DIFFERS;
    for (unsigned i = 0; i < 200000; i++)
        most += tried_with(one_of_two, 2, GUARD_PAIRS_MAX, NULL).verdict == GUARD_DIFFERS;
    assert_in_range(found, 0, 20); /* 200 000 / 32 768 = 6 */
    assert_int_equal(most, 0);
}

static void a_failure_ends_the_trial(void **state)
{
    (void)state;
    for (fails_at = 0; fails_at < 2 * GUARD_PAIRS; fails_at++)
        assert_int_equal(tried(fails_once, 2, NULL).verdict, GUARD_FAILED);
    for (; fails_at < 2 * GUARD_PAIRS + 4; fails_at++) { /* what is proven stays proven */
        struct guard_experiment t = tried(fails_once, 2, NULL);
        assert_int_equal(t.verdict, GUARD_DIFFERS);
        assert_true(t.named & 2);
    }
}

static void what_is_proven_is_known_before_it_is_named(void **state)
{
    (void)state;
    struct guard_experiment t;
    guard_experiment_start(&t, 2, GUARD_PAIRS);
    for (unsigned n = 0; n < 2 * GUARD_PAIRS; n++) {
        assert_false(guard_experiment_is_proven(&t));
        const struct guard_print p = by_field_1(n, guard_experiment_omits(&t));
        guard_experiment_hear(&t, &p);
    }
    assert_int_equal(t.verdict, GUARD_OPEN);
    assert_true(guard_experiment_is_proven(&t));
}

static void strangers_that_are_always_refused_prove_it_too(void **state)
{
    (void)state;
    struct guard_experiment t;
    struct guard_print no = print_of(401, 1), yes = print_of(200, 1);
    no.refused = true;
    guard_experiment_start(&t, 0, GUARD_PAIRS);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(t.verdict, GUARD_OPEN);
        assert_int_equal(guard_experiment_omits(&t), 0);
        guard_experiment_hear(&t, &no);
    }
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    guard_experiment_start(&t, 0, GUARD_PAIRS);
    guard_experiment_hear(&t, &no);
    guard_experiment_hear(&t, &yes);
    assert_int_equal(t.verdict, GUARD_SAME);
}

/* ---- names ---- */

static bool tells(const char *name)
{
    static const char *const own[] = {"shop", "desk-*"};
    return guard_tells_who((struct str){name, strlen(name)}, own, 2);
}

static void some_fields_say_who_asks(void **state)
{
    (void)state;
    static const char *const yes[] = {"Authorization", "COOKIE", "X-Api-Key",  "x-user-id",
                                      "X-Tenant",      "Shop",   "Desk-Number"};
    static const char *const no[] = {"Accept-Language",
                                     "Accept",
                                     "User-Agent",
                                     "X-Request-Id",
                                     "X-Forwarded-For",
                                     "Cookie2",
                                     "Shops",
                                     "Desk",
                                     "X",
                                     ""};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(tells(yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(tells(no[i]));
}

static uint64_t masked(const char *text, size_t piece)
{
    struct guard_mask m;
    const size_t len = strlen(text);
    guard_mask_start(&m, 7);
    for (size_t i = 0; i < len; i += piece)
        guard_mask_add(&m, text + i, i + piece < len ? piece : len - i);
    return guard_mask_end(&m);
}

static void what_has_a_digit_is_masked(void **state)
{
    (void)state;
    static const char *const same[] = {
        "{\"user\":\"alice\",\"t\":1795971257.2,\"token\":\"9f8e7d\"}",
        "{\"user\":\"alice\",\"t\":1.75,\"token\":\"a1\"}"};
    for (size_t piece = 1; piece < 9; piece++) {
        assert_int_equal(masked(same[0], 1000), masked(same[0], piece));
        assert_int_equal(masked(same[0], piece), masked(same[1], piece));
    }
    assert_int_not_equal(masked(same[0], 3),
                         masked("{\"user\":\"bob\",\"t\":1.75,\"token\":\"a1\"}", 3));
    assert_int_not_equal(masked("a1 b", 9), masked("a1", 9));
    assert_int_equal(masked("", 1), masked("", 2));
}

static void a_counter_does_not_hide_a_name(void **state)
{
    (void)state;
    struct guard_experiment t;
    unsigned n = 0;
    guard_experiment_start(&t, 3, GUARD_PAIRS);
    while (t.verdict == GUARD_OPEN) {
        const struct guard_print p = a_counter_and_a_name(n++, guard_experiment_omits(&t));
        guard_experiment_hear(&t, &p);
    }
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    assert_int_equal(t.named, 2);
}

static struct guard_words *words_of(const char *text, size_t piece)
{
    struct guard_words *w = calloc(1, sizeof *w);
    const size_t len = strlen(text);
    assert_non_null(w);
    guard_words_start(w, 7);
    for (size_t i = 0; i < len; i += piece)
        guard_words_add(w, text + i, i + piece < len ? piece : len - i);
    guard_words_end(w);
    return w;
}

static struct guard_pattern pattern;

static bool learned(const char *a, const char *b)
{
    struct guard_words *x = words_of(a, 3), *y = words_of(b, 1000);
    const bool yes = guard_pattern_learn(&pattern, x, y);
    free(x);
    free(y);
    return yes;
}

static bool fits(const char *text)
{
    struct guard_words *w = words_of(text, 5);
    const bool yes = guard_pattern_fits(&pattern, w);
    free(w);
    return yes;
}

static void what_two_answers_differ_by_is_left_out_at_its_place(void **state)
{
    (void)state;
    assert_true(learned("{\"user\":\"alice\",\"quote\":\"to be\",\"seen\":17}",
                        "{\"user\":\"alice\",\"quote\":\"all is well\",\"seen\":18}"));
    assert_true(fits("{\"user\":\"alice\",\"quote\":\"not yet\",\"seen\":2001}"));
    assert_false(fits("{\"user\":\"bob\",\"quote\":\"not yet\",\"seen\":2001}"));
    assert_false(fits("{\"user\":\"alice\",\"quote\":\"not yet\",\"seen\":1,\"more\":1}"));
    assert_false(fits("{\"user\":\"alice\",\"quote\":\"a b c d e f g h i j k\",\"seen\":1}"));
    assert_false(fits(""));
    assert_true(learned("balance 50 at noon", "balance 50 at night")); /* a number that stays */
    assert_true(fits("balance 50 at dawn"));
    assert_false(fits("balance 70 at dawn"));
    assert_true(learned("the same", "the same"));
    assert_true(fits("the same"));
    assert_false(fits("the same ") || fits("other same"));
}

static void where_all_changes_nothing_is_learned(void **state)
{
    (void)state;
    assert_false(learned("ab", "ac"));
    assert_false(learned("", ""));
    assert_false(learned("(ab)", "(cd)")); /* what is between words says nothing */
    assert_false(learned("a", ""));
}

static void a_long_answer_takes_bounded_time(void **state)
{
    (void)state;
    const size_t size = 4 * GUARD_WORDS;
    char *a = malloc(size + 1), *b = malloc(size + 1);
    assert_true(a && b);
    for (size_t i = 0; i < size; i++) {
        a[i] = "a "[i % 2];
        b[i] = i / 2 % 33 ? a[i] : "b "[i % 2];
    }
    a[size] = b[size] = 0;
    assert_true(learned(a, a));
    assert_true(fits(a));
    a[size - 2] = 'c'; /* beyond the words that are told apart */
    assert_false(fits(a));
    learned(a, b);
    fits(a);
    free(a);
    free(b);
}

/* Random letters in each answer; beside them a name, or nothing. */
static struct guard_print letters_and_a_name(unsigned n, uint32_t omits)
{
    struct guard_print p = print_of(200, n);
    p.masked = n;
    p.is_learned = n >= GUARD_LEARNS;
    p.learned = omits & 2 ? n + 1 : 0;
    return p;
}
static struct guard_print letters(unsigned n, uint32_t omits)
{
    (void)omits;
    struct guard_print p = letters_and_a_name(n, 0);
    return p;
}

static void letters_that_change_do_not_hide_a_name(void **state)
{
    (void)state;
    unsigned asked;
    struct guard_experiment t = tried(letters_and_a_name, 3, &asked);
    assert_int_equal(t.verdict, GUARD_DIFFERS);
    assert_int_equal(t.named, 2);
    t = tried(letters, 3, &asked);
    assert_int_equal(t.verdict, GUARD_SAME);
    assert_int_equal(asked, GUARD_LEARNS + 3);
}

/* ---- page ---- */

static const uint8_t uuid[16] = {1};
static struct inval_page *inval;

static struct guard_page *page_new(void)
{
    struct guard_page *page =
        mmap(NULL, guard_page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    guard_page_open(page, uuid, 1000);
    return page;
}

static void routes_have_places_as_long_as_there_are_some(void **state)
{
    (void)state;
    struct guard_page *page = page_new();
    assert_null(guard_route_find(page, 5, false));
    struct guard_route *g = guard_route_find(page, 5, true);
    assert_ptr_equal(guard_route_find(page, 5, false), g);
    assert_ptr_not_equal(guard_route_find(page, 5 + GUARD_ROUTES, true), g); /* the same hash */
    for (uint64_t id = 100000; id < 100000 + GUARD_ROUTES - 2; id++)
        assert_non_null(guard_route_find(page, id, true));
    assert_null(guard_route_find(page, 99, true));
    assert_ptr_equal(guard_route_find(page, 5, true), g);
    munmap(page, guard_page_size());
}

static struct guard_scope *close_url(struct guard_route *g, const char *url)
{
    return guard_close(g, url, strlen(url), 1000);
}

static bool lets(struct guard_route *g, const char *url)
{
    const bool may = guard_lets(g, 500, url, strlen(url));
    assert_int_equal(may, !guard_closes(g, url, strlen(url)));
    return may;
}

static void a_route_is_closed_and_released(void **state)
{
    (void)state;
    struct guard_page *page = page_new();
    struct guard_route *g = guard_route_find(page, 5, true);
    char names[GUARD_NAMES + 1], url[GUARD_URL + 1], covered[GUARD_URL + 2], long_url[400];
    assert_true(guard_lets(g, 0, "h/", 2));
    memset(long_url, 'u', sizeof long_url); /* no directory that it could be in */
    struct guard_scope *s = guard_close(g, long_url, sizeof long_url, 1000);
    assert_true(guard_is_closed(g));
    assert_ptr_equal(s, &g->scope[0]);
    assert_false(guard_lets(g, UINT64_MAX - 1, "h/", 2));
    guard_scope_names(s, names);
    assert_string_equal(names, "");
    guard_scope_name(g, s, "cookie:s\"id\n", 12);
    assert_ptr_equal(close_url(g, "h/other"), s); /* a second one changes nothing */
    guard_scope_names(s, names);
    assert_string_equal(names, "cookie:s?id?");
    guard_scope_url(s, url);
    assert_int_equal(strlen(url), GUARD_URL);
    guard_scope_covers(s, covered);
    assert_string_equal(covered, "");
    assert_int_equal(atomic_load(&s->since_ms), 1000);
    const uint64_t before = inval_seq(inval);
    guard_release(g, s, inval);
    assert_false(guard_is_closed(g));
    assert_false(guard_lets(g, before, "h/", 2)); /* what was stored, or asked for, until then */
    assert_true(guard_lets(g, inval_seq(inval), "h/", 2));
    guard_scope_name(g, s, "late", 4); /* by who has not heard of it */
    guard_scope_names(s, names);
    assert_string_equal(names, "");
    munmap(page, guard_page_size());
}

static void a_url_is_closed_with_any_query_and_nothing_else(void **state)
{
    (void)state;
    struct guard_page *page = page_new();
    struct guard_route *g = guard_route_find(page, 5, true);
    char covered[GUARD_URL + 2];
    struct guard_scope *s = close_url(g, "h/a/b");
    assert_false(guard_is_closed(g));
    assert_false(lets(g, "h/a/b") || lets(g, "h/a/b?") || lets(g, "h/a/b?c=d"));
    assert_true(lets(g, "h/a/bc") && lets(g, "h/a/b/c") && lets(g, "h/a/") && lets(g, "k/a/b") &&
                lets(g, "") && lets(g, "h/a"));
    assert_ptr_equal(close_url(g, "h/a/b"), s);
    guard_scope_covers(s, covered);
    assert_string_equal(covered, "h/a/b");
    assert_ptr_equal(guard_scope_at(g, 0), s);
    assert_null(guard_scope_at(g, 1));
    atomic_store(&s->notified, GUARD_NOTIFIED_STORE); /* its copies are invalid */
    guard_release(g, s, inval);
    assert_true(lets(g, "h/a/b"));
    assert_true(guard_lets(g, 0, "h/a/b", 5)); /* the others have not suffered */
    assert_null(guard_scope_at(g, 0));
    s = close_url(g, "h/a/");
    assert_true(lets(g, "h/a/b"));
    assert_false(lets(g, "h/a/"));
    const uint64_t before = inval_seq(inval);
    guard_release(g, s, inval); /* control has done nothing about it */
    assert_false(guard_lets(g, before, "h/a/", 4));
    assert_true(guard_lets(g, inval_seq(inval), "h/a/", 4));
    munmap(page, guard_page_size());
}

static void what_is_found_again_and_again_closes_more(void **state)
{
    (void)state;
    struct guard_page *page = page_new();
    struct guard_route *g = guard_route_find(page, 5, true);
    char covered[GUARD_URL + 2], url[32];
    close_url(g, "h/a/1");
    close_url(g, "h/a/deep/1");
    close_url(g, "h/a/2");
    assert_true(lets(g, "h/a/3"));
    struct guard_scope *s = close_url(g, "h/a/3");
    guard_scope_covers(s, covered);
    assert_string_equal(covered, "h/a/*");
    assert_ptr_equal(guard_scope_at(g, 0), s); /* it stands for all of them */
    assert_null(guard_scope_at(g, 1));
    assert_false(lets(g, "h/a/") || lets(g, "h/a/4") || lets(g, "h/a/1?x") || lets(g, "h/a/b/c"));
    assert_true(lets(g, "h/a") && lets(g, "h/b/4"));
    for (char c = 'b'; c <= 'c'; c++)
        for (int i = 0; i < 3; i++) {
            assert_true(lets(g, "h/z"));
            snprintf(url, sizeof url, "h/%c/%d", c, i);
            close_url(g, url);
        }
    assert_true(guard_is_closed(g)); /* a third directory */
    guard_release(g, &g->scope[0], inval);
    assert_null(guard_scope_at(g, 0));
    for (int i = 0; i <= GUARD_SCOPES; i++) { /* no two in one directory */
        assert_false(guard_is_closed(g));
        snprintf(url, sizeof url, "h/%d/x", i);
        close_url(g, url);
    }
    assert_true(guard_is_closed(g));
    munmap(page, guard_page_size());
}

static void a_url_that_is_too_long_closes_its_directory(void **state)
{
    (void)state;
    struct guard_page *page = page_new();
    struct guard_route *g = guard_route_find(page, 5, true);
    char url[GUARD_URL + 50], covered[GUARD_URL + 2];
    memset(url, 'u', sizeof url);
    memcpy(url, "h/a/", 4);
    struct guard_scope *s = guard_close(g, url, GUARD_URL, 1000); /* it just fits */
    guard_scope_covers(s, covered);
    assert_int_equal(strlen(covered), GUARD_URL);
    assert_true(lets(g, "h/a/b"));
    s = guard_close(g, url, sizeof url, 1000);
    guard_scope_covers(s, covered);
    assert_string_equal(covered, "h/a/*");
    assert_false(lets(g, "h/a/b"));
    url[GUARD_URL - 1] = '/'; /* the text would be as long as what it covers */
    guard_release(g, s, inval);
    s = guard_close(g, url, sizeof url, 1000);
    guard_scope_covers(s, covered);
    assert_string_equal(covered, "h/a/*");
    munmap(page, guard_page_size());
}

static void a_quarantine_stays_when_the_service_starts_again(void **state)
{
    (void)state;
    static const uint8_t other[16] = {2};
    struct guard_page *page = page_new();
    struct guard_route *closed = guard_route_find(page, 5, true),
                       *released = guard_route_find(page, 6, true),
                       *partly = guard_route_find(page, 7, true);
    guard_close_route(closed, "", 0, 1);
    guard_release(released, &released->scope[0], inval);
    guard_route_settle(released, GUARD_SAME, 77, 78, 0);
    close_url(partly, "h/x");
    atomic_store(&partly->gate, 3);              /* its writer has died before he set the bit … */
    atomic_store(&partly->scope[2].since_ms, 9); /* … and another one before he wrote the text */
    const uint64_t gate = atomic_load(&released->gate);
    guard_page_open(page, uuid, 1000);
    assert_true(guard_is_closed(closed));
    assert_int_equal(atomic_load(&partly->gate), 3 | GUARD_NARROW);
    assert_int_equal(atomic_load(&partly->scope[2].since_ms), 0);
    assert_false(guard_lets(partly, 9, "h/x", 3));
    assert_true(guard_lets(partly, 9, "h/y", 3));
    assert_false(guard_lets(partly, 2, "h/y", 3));
    assert_int_equal(atomic_load(&released->gate), gate);
    assert_int_equal(atomic_load(&released->same), 0);
    assert_true(guard_is_due(released, 0)); /* the clock may have started again */
    guard_page_open(page, uuid, gate - 1);  /* what counts them did not reach the disk in time */
    assert_true(guard_is_closed(closed));
    assert_true(guard_lets(released, gate - 1, "h/y", 3));
    guard_page_open(page, other, 1000); /* numbers of another history mean nothing */
    assert_true(guard_is_closed(closed));
    assert_int_equal(atomic_load(&released->gate), 0);
    assert_int_equal(atomic_load(&partly->gate), GUARD_NARROW);
    munmap(page, guard_page_size());
}

static uint64_t due_after(struct guard_route *g, enum guard_verdict verdict, uint64_t least_ms)
{
    guard_route_settle(g, verdict, 1000, 5, least_ms);
    return atomic_load(&g->due_ms) - 1000;
}

static void checks_are_rarer_where_nothing_is_found(void **state)
{
    (void)state;
    struct guard_page *page = page_new();
    struct guard_route *g = guard_route_find(page, 5, true);
    assert_true(guard_route_claim(g, 10));
    assert_false(guard_route_claim(g, 11)); /* somebody is at it */
    assert_false(guard_route_claim(g, 9 + GUARD_HOLD_MS));
    guard_route_renew(g, 5000);
    assert_false(guard_route_claim(g, 11 + GUARD_HOLD_MS));
    assert_true(guard_route_claim(g, 5000 + GUARD_HOLD_MS)); /* he has died */
    assert_int_equal(due_after(g, GUARD_SAME, 0), 1000);
    for (int i = 0; i < 100; i++)
        due_after(g, GUARD_SAME, 0);
    assert_int_equal(due_after(g, GUARD_SAME, 0), 64000);
    assert_int_equal(due_after(g, GUARD_SAME, 90000), 90000);
    assert_int_equal(due_after(g, GUARD_DIFFERS, 0), 1000);
    assert_int_equal(due_after(g, GUARD_SAME, 0), 1000); /* it starts again */
    assert_int_equal(guard_route_pairs(g), GUARD_PAIRS);
    assert_int_equal(due_after(g, GUARD_UNSTABLE, 0), 1000);
    assert_int_equal(due_after(g, GUARD_UNSTABLE, 0), 2000);
    assert_int_equal(guard_route_pairs(g), GUARD_PAIRS + 4);
    for (int i = 0; i < 100; i++)
        due_after(g, GUARD_UNSTABLE, 0);
    assert_int_equal(due_after(g, GUARD_UNSTABLE, 0), 64000);
    assert_int_equal(guard_route_pairs(g), GUARD_PAIRS_MAX);
    munmap(page, guard_page_size());
}

static int set_up(void **state)
{
    (void)state;
    inval =
        mmap(NULL, inval_page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (inval == MAP_FAILED)
        return -1;
    inval_page_init(inval);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(inval, inval_page_size());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_that_is_the_same_takes_two_answers),
        cmocka_unit_test(the_field_that_matters_is_named),
        cmocka_unit_test(content_of_one_kind_alone_may_change),
        cmocka_unit_test(content_that_changes_by_itself_proves_nothing),
        cmocka_unit_test(chance_needs_luck_that_nobody_has),
        cmocka_unit_test(a_failure_ends_the_trial),
        cmocka_unit_test(what_is_proven_is_known_before_it_is_named),
        cmocka_unit_test(strangers_that_are_always_refused_prove_it_too),
        cmocka_unit_test(what_has_a_digit_is_masked),
        cmocka_unit_test(a_counter_does_not_hide_a_name),
        cmocka_unit_test(what_two_answers_differ_by_is_left_out_at_its_place),
        cmocka_unit_test(where_all_changes_nothing_is_learned),
        cmocka_unit_test(a_long_answer_takes_bounded_time),
        cmocka_unit_test(letters_that_change_do_not_hide_a_name),
        cmocka_unit_test(some_fields_say_who_asks),
        cmocka_unit_test(routes_have_places_as_long_as_there_are_some),
        cmocka_unit_test(a_route_is_closed_and_released),
        cmocka_unit_test(a_url_is_closed_with_any_query_and_nothing_else),
        cmocka_unit_test(what_is_found_again_and_again_closes_more),
        cmocka_unit_test(a_url_that_is_too_long_closes_its_directory),
        cmocka_unit_test(a_quarantine_stays_when_the_service_starts_again),
        cmocka_unit_test(checks_are_rarer_where_nothing_is_found),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
