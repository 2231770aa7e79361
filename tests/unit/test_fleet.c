/* SPDX-License-Identifier: BSD-2-Clause */
/* What the other hosts of a fleet are told, and when: the store is played by the test. */
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_store.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/inval.h"
#include "polder/ring.h"
#include "polder/shared.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the store ---- */

static const struct fleet_store_ops *link_ops;
static void *link_arg;
static struct {
    enum fleet_script script;
    fleet_reply_fn done;
    void *arg;
    int argc;
} run[16];
static unsigned n_run;

struct fleet_store *fleet_store_new(struct ev_loop *loop, const struct config_fleet *config,
                                    const char *const scripts[FLEET_SCRIPTS],
                                    const struct fleet_store_ops *ops, void *arg)
{
    static char store;
    (void)loop, (void)config, (void)scripts;
    link_ops = ops;
    link_arg = arg;
    n_run = 0;
    return (struct fleet_store *)(void *)&store;
}

void fleet_store_free(struct fleet_store *s)
{
    (void)s;
}

uint32_t fleet_store_at(const struct fleet_store *s)
{
    (void)s;
    return 0;
}

void fleet_store_move(struct fleet_store *s, uint32_t at, const char *why)
{
    (void)s, (void)at;
    fail_msg("the store was left: %s", why);
}

bool fleet_store_is_up(const struct fleet_store *s)
{
    return s != NULL;
}

const char *fleet_store_name(const struct fleet_store *s)
{
    return s ? "store" : "";
}

bool fleet_store_run(struct fleet_store *s, enum fleet_script script, int n_keys, int argc,
                     const char **argv, const size_t *len, fleet_reply_fn done, void *arg)
{
    (void)s, (void)n_keys, (void)argv, (void)len;
    assert_true(n_run < sizeof run / sizeof *run);
    run[n_run].script = script;
    run[n_run].done = done;
    run[n_run].arg = arg;
    run[n_run++].argc = argc;
    return true;
}

bool fleet_store_confirm(struct fleet_store *s, fleet_reply_fn done, void *arg)
{
    (void)done, (void)arg;
    return s != NULL;
}

bool fleet_store_follow(struct fleet_store *s, const struct fleet_streams *from,
                        fleet_reply_fn done, void *arg)
{
    (void)from, (void)done, (void)arg;
    return s != NULL;
}

static const char *left_for; /* NULL: it must not be */

void fleet_store_fail(struct fleet_store *s, const char *why)
{
    (void)s;
    if (!left_for)
        fail_msg("the store was left: %s", why);
    left_for = why;
}

/* Answers script number i with these texts, of which NULL is the last. */
static void answer(unsigned i, const char *const *text)
{
    redisReply one[8], *list[8], all = {.type = REDIS_REPLY_ARRAY, .element = list};
    assert_true(i < n_run);
    memset(one, 0, sizeof one);
    for (; text[all.elements]; all.elements++) {
        redisReply *r = list[all.elements] = &one[all.elements];
        r->type = REDIS_REPLY_STRING;
        r->len = strlen(text[all.elements]);
        r->str = (char *)(uintptr_t)text[all.elements];
    }
    run[i].done(run[i].arg, &all);
}

/* ---- the host ---- */

#define EPOCH "1700000000000000001"
static struct shared shared;
static struct fleet *fleet;
static struct config_fleet config = {.name = "f", .host = "h", .secret = "s"};

static uint64_t apply(void *arg, const struct fleet_entry *e)
{
    (void)arg, (void)e;
    return 0;
}

static void say(void *arg, const char *what)
{
    (void)arg, (void)what;
}

static void remember(void *arg, const struct fleet_entry *e)
{
    (void)arg;
    (void)e;
}

static void changed(void *arg, bool connected, const char *why)
{
    (void)arg, (void)connected, (void)why;
}

static void renewed(void *arg, uint64_t took_ms)
{
    (void)arg, (void)took_ms;
}

static void moved(void *arg)
{
    (void)arg;
}

static void note(void *arg, unsigned worker, const struct ring_record *head, const char *payload)
{
    (void)arg, (void)worker, (void)head, (void)payload;
}

/* An earlier control has left behind what no other host knows. */
static int begin(void **state)
{
    static const struct fleet_ops ops = {apply, remember, say,     changed, say,
                                         note,  say,      renewed, moved};
    (void)state;
    shared.fleet = calloc(1, sizeof *shared.fleet);
    shared.fleet_rings = calloc(PROC_WORKER_SLOTS, ring_size());
    shared.inval = calloc(1, inval_page_size());
    assert_non_null(shared.inval);
    fleet_page_open(shared.fleet, false, 1);
    atomic_store(&shared.fleet->unsent, 1);
    fleet = fleet_new(ev_default_loop(0), &config, &shared, &ops, NULL);
    assert_non_null(fleet);
    return 0;
}

static int end(void **state)
{
    (void)state;
    fleet_free(fleet);
    free(shared.inval);
    free(shared.fleet_rings);
    free(shared.fleet);
    return 0;
}

/* The number of the script that tells the others of everything. now: the store's clock. */
static unsigned enter_at(const char *epoch, const char *now)
{
    const unsigned n = n_run;
    link_ops->up(link_arg, "run");
    assert_int_equal(run[n].script, FLEET_SCRIPT_ENTER);
    answer(n, (const char *const[]){epoch, "0", "", now, NULL});
    assert_int_equal(n_run, n + 2);
    assert_int_equal(run[n + 1].script, FLEET_SCRIPT_APPEND);
    return n + 1;
}

static unsigned enter(void)
{
    return enter_at(EPOCH, "1700000000000");
}

static void what_is_invalidated_while_everything_is_told_is_told_too(void **state)
{
    (void)state;
    const unsigned all = enter();
    fleet_tell(fleet, FLEET_URL, false, "h/x", 3, 0, NULL, NULL);
    answer(all, (const char *const[]){EPOCH, "1", NULL});
    assert_int_equal(atomic_load(&shared.fleet->unsent), 1);
    assert_int_equal(n_run, all + 2);
    assert_int_equal(run[all + 1].script, FLEET_SCRIPT_APPEND);
    answer(all + 1, (const char *const[]){EPOCH, "2", NULL});
    assert_int_equal(atomic_load(&shared.fleet->unsent), 0);
}

static void everything_is_told_again_after_the_link_broke_under_it(void **state)
{
    (void)state;
    enter();
    link_ops->down(link_arg, "gone");
    assert_int_equal(atomic_load(&shared.fleet->unsent), 1);
    answer(enter(), (const char *const[]){EPOCH, "1", NULL});
    assert_int_equal(atomic_load(&shared.fleet->unsent), 0);
}

/* Else it took what the other one writes for its own, which it has done already. */
static void a_copy_of_the_page_is_another_host(void **state)
{
    struct fleet_page *page = shared.fleet;
    const uint64_t instance = atomic_load(&page->instance);
    (void)state;
    assert_int_equal(shm_boot_id(page->header.boot_id), 0);
    atomic_store(&page->epoch, 7);
    fleet_page_open(page, true, 1); /* polderd starts again */
    assert_int_equal(atomic_load(&page->instance), instance);
    assert_int_equal(atomic_load(&page->epoch), 7);
    fleet_page_open(page, true, 2); /* its state directory was copied */
    const uint64_t copy = atomic_load(&page->instance);
    assert_int_not_equal(copy, instance);
    assert_int_equal(atomic_load(&page->epoch), 0);
    page->header.boot_id[0] ^= 1; /* an image of the machine was */
    fleet_page_open(page, true, 2);
    assert_int_not_equal(atomic_load(&page->instance), copy);
}

static void only_what_was_closed_is_believed_after_another_boot(void **state)
{
    struct fleet_page *page = shared.fleet;
    (void)state;
    for (int closed = 1; closed >= 0; closed--) {
        const uint64_t instance = atomic_load(&page->instance);
        assert_int_equal(shm_boot_id(page->header.boot_id), 0);
        atomic_store(&page->epoch, 7);
        atomic_store(&page->applied, 8);
        atomic_store(&page->unsent, 0);
        if (closed) /* it lies in no file */
            assert_int_equal(fleet_page_close(page), -EINVAL);
        page->header.boot_id[0] ^= 1;
        fleet_page_open(page, true, 1);
        assert_int_not_equal(atomic_load(&page->instance), instance);
        assert_int_equal(atomic_load(&page->epoch), closed ? 7 : 0);
        assert_int_equal(atomic_load(&page->applied), closed ? 8 : 0);
        assert_int_equal(atomic_load(&page->unsent), !closed);
    } /* the first time it was opened, and not closed again */
    atomic_store(&page->epoch, 7);
    assert_int_equal(fleet_page_close(page), -EINVAL);
    fleet_page_open(page, true, 2); /* a copy */
    assert_int_equal(atomic_load(&page->epoch), 0);
}

/* Other hosts may have left that store before. */
static void what_an_abandoned_store_has_logged_is_told_again(void **state)
{
    (void)state;
    answer(enter(), (const char *const[]){EPOCH, "1", NULL});
    assert_int_equal(atomic_load(&shared.fleet->unsent), 0);
    link_ops->down(link_arg, "gone");
    answer(enter_at("1700000100000000001", "1700000105000"),
           (const char *const[]){"1700000100000000001", "1", NULL});
    assert_int_equal(atomic_load(&shared.fleet->unsent), 0);
}

/* The clock of this host goes on by that much, as when its machine was suspended. */
static void suspend(uint64_t ms)
{
    char path[] = "/tmp/polder-clock.XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, &ms, sizeof ms), sizeof ms);
    close(fd);
    setenv("POLDER_CLOCK", path, 1);
    clock_open();
    unsetenv("POLDER_CLOCK");
    unlink(path);
}

static void a_lease_that_has_lapsed_is_not_renewed_but_entered_anew(void **state)
{
    (void)state;
    answer(enter(), (const char *const[]){EPOCH, "1", NULL});
    atomic_store(&shared.fleet->applied, 1);
    assert_int_equal(run[n_run - 1].script, FLEET_SCRIPT_RENEW);
    answer(n_run - 1, (const char *const[]){EPOCH, "1", "1700000000000", "", "0", NULL});
    assert_true(fleet_is_member(fleet));
    suspend(FLEET_LEASE_MS + 100);
    assert_false(fleet_is_member(fleet));
    const unsigned scripts = n_run;
    left_for = "";
    for (int i = 0; !*left_for && i < 100; i++)
        ev_run(ev_default_loop(0), EVRUN_ONCE);
    assert_non_null(strstr(left_for, "had run out"));
    assert_int_equal(n_run, scripts);
    left_for = NULL;
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(what_is_invalidated_while_everything_is_told_is_told_too),
        STORY(everything_is_told_again_after_the_link_broke_under_it),
        STORY(what_an_abandoned_store_has_logged_is_told_again),
        STORY(a_lease_that_has_lapsed_is_not_renewed_but_entered_anew),
        STORY(a_copy_of_the_page_is_another_host),
        STORY(only_what_was_closed_is_believed_after_another_boot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
