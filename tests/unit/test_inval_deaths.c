/* SPDX-License-Identifier: BSD-2-Clause */
/* The invalidation page between any two instructions of who changes it, and after a crash of the
 * machine that left parts of it older on disk than others. */
#include "inval_rig.h"
#include "polder/clock.h"
#include "polder/inval.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE 4096

/* A child that is about to act, and waits for each step. 0: it may not be traced here. */
static pid_t traced(void (*act)(void))
{
    int status;
    const pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(77);
        raise(SIGSTOP);
        act();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSTOPPED(status) ? pid : 0;
}

/* One instruction. False: it has left. */
static bool step(pid_t pid)
{
    int status;
    assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSTOPPED(status);
}

static uint64_t banned;

static void retire(void)
{
    inval_retire_prefix(page, banned);
}

static void a_ban_that_is_retired_is_never_forgotten(void **state)
{
    (void)state;
    const uint32_t url = inval_url_slot(page, "h/p/x", 5);
    unsigned steps = 0;
    assert_int_equal(inval_mark_prefix(page, "h/p/", 4, false, &banned), 0);
    const pid_t pid = traced(retire);
    if (!pid)
        skip();
    do {
        const bool seen = inval_check(page, banned - 1, url, NULL, 0, "h/p/x", 5) == INVAL_HARD;
        assert_true(seen || inval_ban_floor(page) >= banned);
        steps++;
    } while (step(pid));
    assert_true(steps > 100);
    assert_int_equal(inval_check(page, banned - 1, url, NULL, 0, "h/p/x", 5), INVAL_VALID);
}

static void mark(void)
{
    inval_mark_tag(page, "tag", 3, false);
}

static void whoever_dies_while_marking_is_not_waited_for(void **state)
{
    (void)state;
    const uint64_t until_ms = clock_mono_ms() + 10000; /* a slow machine gets less far */
    uint64_t seq;
    bool left = false;
    for (unsigned most = 1; !left && clock_mono_ms() < until_ms; most += 7) {
        const pid_t pid = traced(mark);
        if (!pid)
            skip();
        for (unsigned n = 0; n < most && !left; n++)
            left = !step(pid);
        if (!left) {
            kill(pid, SIGKILL);
            assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
        assert_true(inval_settled(page, &seq));
    }
}

static void whoever_is_at_it_is_waited_for(void **state)
{
    (void)state;
    const uint64_t before = inval_seq(page);
    const uint32_t tag = inval_tag_slot(page, "tag", 3);
    uint64_t seq;
    const pid_t pid = traced(mark);
    if (!pid)
        skip();
    do {
        const bool settled = inval_settled(page, &seq);
        if (settled && seq > before) /* then everybody can see it */
            assert_int_equal(inval_check(page, before, 0, &tag, 1, "h/", 2), INVAL_HARD);
    } while (step(pid));
    assert_true(inval_settled(page, &seq));
    assert_int_equal(seq, before + 1);
}

/* The first pages of the file, with the count in them, were written back before the last marks, and
 * the others after them. */
static void numbers_that_outran_their_count_hide_nothing_for_ever(void **state)
{
    (void)state;
    static uint8_t early[PAGE];
    const uint32_t tag = inval_tag_slot(page, "tag", 3);
    memcpy(early, page, PAGE);
    for (unsigned i = 0; i < 1000; i++)
        inval_mark_tag(page, "tag", 3, false);
    memcpy(page, early, PAGE);
    inval_page_open(page);
    const uint64_t fetch_seq = inval_seq(page);
    assert_int_equal(inval_check(page, fetch_seq, 0, &tag, 1, "h/", 2), INVAL_VALID);
    assert_true(inval_mark_tag(page, "tag", 3, false) > fetch_seq);
    assert_int_equal(inval_check(page, fetch_seq, 0, &tag, 1, "h/", 2), INVAL_HARD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_ban_that_is_retired_is_never_forgotten, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(whoever_dies_while_marking_is_not_waited_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(whoever_is_at_it_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_that_outran_their_count_hide_nothing_for_ever,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
