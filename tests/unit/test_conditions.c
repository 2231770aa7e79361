/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of conditions: whole at any instant, whoever dies at whatever line of a change;
 * bounded, whatever it is told; and known to the runbook row by row. */
#include "polder/conditions.h"
#include "polder/clock.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW UINT64_C(1800000000000)

static struct shm_segment seg;
static struct condition_table *table;
static struct condition list[CONDITION_ROWS];

static int set_up(void **state)
{
    (void)state;
    const int code = conditions_open(&seg, NULL, CONDITIONS_OF_POLDERD);
    table = conditions_of(&seg);
    return code;
}

static int tear_down(void **state)
{
    (void)state;
    shm_close(&seg);
    return 0;
}

static void raising_what_is_raised_changes_nothing(void **state)
{
    (void)state;
    assert_true(condition_raise(table, COND_BACKEND_DOWN, "api/1", "refused", NOW));
    assert_false(condition_raise(table, COND_BACKEND_DOWN, "api/1", "refused", NOW + 1000));
    assert_false(condition_raise(table, COND_BACKEND_DOWN, "api/1", "timeout", NOW + 2000));
    assert_true(condition_raise(table, COND_BACKEND_DOWN, "api/2", NULL, NOW + 3000));
    assert_int_equal(conditions_list(table, NOW + 3000, list), 2);
    assert_string_equal(list[0].subject, "api/1");
    assert_string_equal(list[0].reason, "timeout"); /* the last one */
    assert_int_equal(list[0].since_ms, NOW);        /* of the first */
    assert_string_equal(list[1].reason, "");
    assert_true(condition_clear(table, COND_BACKEND_DOWN, "api/1", NOW + 4000));
    assert_false(condition_clear(table, COND_BACKEND_DOWN, "api/1", NOW + 4000));
    assert_false(condition_is_raised(table, COND_BACKEND_DOWN, "api/1", NOW));
    assert_true(condition_is_raised(table, COND_BACKEND_DOWN, "api/2", NOW));
    assert_true(condition_raise(table, COND_BACKEND_DOWN, "api/1", "refused", NOW + 5000));
    assert_int_equal(conditions_list(table, NOW + 5000, list), 2);
    assert_int_equal(list[1].since_ms, NOW + 5000);
}

static void they_are_listed_in_the_order_of_the_table(void **state)
{
    (void)state;
    condition_raise(table, COND_HINT_STREAM_CUT, "/events", NULL, NOW);
    condition_raise(table, COND_STORE_OFF, NULL, NULL, NOW + 2);
    condition_raise(table, COND_DRAINING, "", NULL, NOW + 1);
    assert_int_equal(conditions_list(table, NOW, list), 3);
    assert_int_equal(list[0].id, COND_DRAINING);
    assert_int_equal(list[1].id, COND_STORE_OFF);
    assert_int_equal(list[2].id, COND_HINT_STREAM_CUT);
}

static void a_hint_is_given_once_a_day(void **state)
{
    (void)state;
    assert_true(condition_hint(table, COND_HINT_STREAM_CUT, "/events", "60 s", NOW));
    assert_false(condition_hint(table, COND_HINT_STREAM_CUT, "/events", "30 s", NOW + 1000));
    assert_int_equal(conditions_list(table, NOW + CONDITION_HINT_MS - 1, list), 1);
    assert_string_equal(list[0].reason, "60 s");
    assert_int_equal(conditions_list(table, NOW + CONDITION_HINT_MS, list), 0);
    assert_true(
        condition_hint(table, COND_HINT_STREAM_CUT, "/events", "1 s", NOW + CONDITION_HINT_MS));
    assert_int_equal(conditions_list(table, NOW + CONDITION_HINT_MS, list), 1);
    assert_int_equal(list[0].since_ms, NOW + CONDITION_HINT_MS);
}

/* Metrics and pages are UTF-8, and one byte that is not takes the whole of them from a reader. */
static void what_is_cut_or_was_never_utf8_is_shown_as_utf8(void **state)
{
    (void)state;
    char subject[300];
    const size_t fits = CONDITION_SUBJECT - 1;
    memset(subject, 'a', sizeof subject);
    memcpy(subject + fits - 1, "\xc3\xa9", 3); /* half of it fits */
    condition_raise(table, COND_BACKEND_DOWN, subject, "caf\xe9\xff \xed\xa0\x80 caf\xc3\xa9", NOW);
    assert_int_equal(conditions_list(table, NOW, list), 1);
    assert_int_equal(strlen(list[0].subject), fits - 1);
    assert_string_equal(list[0].reason, "caf?? ??? caf\xc3\xa9");
    assert_true(condition_subject_is(list[0].subject, subject));
    assert_true(condition_clear(table, COND_BACKEND_DOWN, subject, NOW));
}

static void the_table_is_bounded(void **state)
{
    (void)state;
    char subject[64];
    for (unsigned i = 0; i < 100; i++) {
        snprintf(subject, sizeof subject, "server %u", i);
        assert_int_equal(condition_raise(table, COND_BACKEND_DOWN, subject, NULL, NOW),
                         i < CONDITION_ROWS_EACH);
    }
    assert_int_equal(conditions_lost(table), 100 - CONDITION_ROWS_EACH);
    for (unsigned i = 0; i < CONDITION_ROWS; i++) { /* other names have room all the same */
        const enum condition_id id = (enum condition_id)(COND_BACKEND_DOWN + 1 + i / 23);
        snprintf(subject, sizeof subject, "%u", i);
        condition_raise(table, id, subject, NULL, NOW);
    }
    assert_int_equal(conditions_list(table, NOW, list), CONDITION_ROWS);
    assert_false(condition_raise(table, COND_DRAINING, NULL, NULL, NOW));
    condition_clear_except(table, COND_BACKEND_DOWN, NULL, NULL, NOW);
    assert_int_equal(conditions_list(table, NOW, list), CONDITION_ROWS - CONDITION_ROWS_EACH);
    assert_true(condition_raise(table, COND_DRAINING, NULL, NULL, NOW));
}

static void a_hint_gives_way_to_what_is_none(void **state)
{
    (void)state;
    char subject[64];
    for (unsigned i = 0; i < CONDITION_ROWS; i++) {
        static const enum condition_id hint[] = {COND_HINT_STREAM_CUT, COND_HINT_UPGRADE_REFUSED,
                                                 COND_HINT_REDIRECT_LOOP};
        const enum condition_id id =
            i < 60 ? hint[i / 20] : (enum condition_id)(COND_BACKEND_DOWN + i / 20);
        snprintf(subject, sizeof subject, "%u", i);
        assert_true(condition_raise(table, id, subject, NULL, NOW));
    }
    assert_false(condition_hint(table, COND_HINT_STREAM_CUT, "/new", NULL, NOW));
    assert_true(condition_raise(table, COND_DRAINING, NULL, NULL, NOW));
    assert_int_equal(conditions_list(table, NOW, list), CONDITION_ROWS);
    assert_int_equal(list[0].id, COND_DRAINING);
}

static void texts_are_cut_and_cannot_drive_a_terminal(void **state)
{
    (void)state;
    char text[400];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    memcpy(text, "a\x1b[2J\n\x7f", 7);
    assert_true(condition_raise(table, COND_BACKEND_DOWN, text, text, NOW));
    assert_false(condition_raise(table, COND_BACKEND_DOWN, text, text, NOW));
    assert_int_equal(conditions_list(table, NOW, list), 1);
    assert_int_equal(strlen(list[0].subject), CONDITION_SUBJECT - 1);
    assert_int_equal(strlen(list[0].reason), CONDITION_REASON - 1);
    assert_memory_equal(list[0].subject, "a?[2J??x", 8);
    assert_true(condition_subject_is(list[0].subject, text));
    assert_true(condition_is_raised(table, COND_BACKEND_DOWN, text, NOW));
    assert_true(condition_clear(table, COND_BACKEND_DOWN, text, NOW));
}

static bool is_odd(void *arg, const char *subject)
{
    return (atoi(subject) & *(int *)arg) == *(int *)arg;
}

static void what_a_new_configuration_does_not_name_goes(void **state)
{
    (void)state;
    char subject[16];
    int bit = 1;
    for (int i = 0; i < 10; i++) {
        snprintf(subject, sizeof subject, "%d", i);
        condition_raise(table, COND_NO_SERVER_LEFT, subject, NULL, NOW);
    }
    condition_raise(table, COND_BACKEND_DOWN, "2", NULL, NOW);
    condition_clear_except(table, COND_NO_SERVER_LEFT, is_odd, &bit, NOW);
    assert_int_equal(conditions_list(table, NOW, list), 6);
    assert_string_equal(list[0].subject, "2");
    assert_true(condition_is_raised(table, COND_NO_SERVER_LEFT, "9", NOW));
    assert_false(condition_is_raised(table, COND_NO_SERVER_LEFT, "8", NOW));
}

/* ---- deaths ---- */

static void change_both(void)
{
    condition_raise(table, COND_BACKEND_DOWN, "api", "the second reason", NOW + 1);
    condition_clear(table, COND_STORE_OFF, NULL, NOW + 1);
    condition_raise(table, COND_DISK_FULL, "new", "came", NOW + 1);
}

/* A child that is about to act, and waits for each step. 0: it may not be traced here. */
static pid_t traced(void (*act)(void))
{
    int status;
    const pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(77);
        raise(SIGSTOP);
        act();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSTOPPED(status) ? pid : 0;
}

static bool step(pid_t pid)
{
    int status;
    assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSTOPPED(status);
}

/* What a reader may see while the three changes are made, one after the other. */
static void check_whole(void)
{
    const size_t n = conditions_list(table, NOW + 1, list);
    bool changed = false, off = false, came = false;
    for (size_t i = 0; i < n; i++) {
        if (list[i].id == COND_BACKEND_DOWN) {
            assert_string_equal(list[i].subject, "api");
            assert_int_equal(list[i].since_ms, NOW);
            changed = !strcmp(list[i].reason, "the second reason");
            if (!changed)
                assert_string_equal(list[i].reason, "the first reason");
        } else if (list[i].id == COND_STORE_OFF) {
            assert_string_equal(list[i].reason, "off");
            off = true;
        } else {
            assert_int_equal(list[i].id, COND_DISK_FULL);
            assert_string_equal(list[i].subject, "new");
            assert_string_equal(list[i].reason, "came");
            came = true;
        }
    }
    assert_int_equal(n, 1 + off + came);
    if (!off)
        assert_true(changed);
    if (came)
        assert_false(off);
}

static void begin_deaths(void)
{
    condition_clear_except(table, COND_DISK_FULL, NULL, NULL, NOW);
    condition_clear_except(table, COND_BACKEND_DOWN, NULL, NULL, NOW);
    condition_raise(table, COND_BACKEND_DOWN, "api", "the first reason", NOW);
    condition_raise(table, COND_STORE_OFF, NULL, "off", NOW);
}

static void a_change_is_seen_whole_or_not_at_all(void **state)
{
    (void)state;
    begin_deaths();
    const pid_t pid = traced(change_both);
    if (!pid)
        skip();
    unsigned steps = 0;
    bool runs;
    const uint64_t until_ms = clock_mono_ms() + 5000; /* a slow machine gets less far */
    do {
        check_whole();
        steps++;
        runs = step(pid);
    } while (runs && clock_mono_ms() < until_ms);
    if (runs) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    assert_true(steps > 100);
    check_whole();
}

static void who_is_killed_at_any_instruction_leaves_a_table_that_works(void **state)
{
    (void)state;
    const uint64_t until_ms = clock_mono_ms() + 5000; /* a slow machine gets less far */
    bool left = false;
    unsigned rounds = 0;
    for (unsigned most = 1; !left && clock_mono_ms() < until_ms; most += 97, rounds++) {
        begin_deaths();
        const pid_t pid = traced(change_both);
        if (!pid)
            skip();
        for (unsigned n = 0; n < most && !left; n++)
            left = !step(pid);
        if (!left) {
            kill(pid, SIGKILL);
            assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
        check_whole();
        condition_raise(table, COND_DISK_FULL, "after", "it", NOW + 2);
        assert_true(condition_is_raised(table, COND_DISK_FULL, "after", NOW + 2));
        assert_true(condition_clear(table, COND_DISK_FULL, "after", NOW + 2));
    }
    assert_true(rounds > 1);
}

static void write_for_ever(unsigned self)
{
    close(STDERR_FILENO);
    close(STDOUT_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char subject[16], reason[CONDITION_REASON];
    for (unsigned i = 0;; i++) {
        snprintf(subject, sizeof subject, "%u", (i + self) % 5);
        memset(reason, 'a' + (int)(i % 26), sizeof reason - 1);
        reason[sizeof reason - 1] = 0;
        condition_raise(table, COND_BACKEND_DOWN, subject, reason, NOW);
        if (i % 7 == 0)
            condition_clear(table, COND_BACKEND_DOWN, subject, NOW);
    }
}

static void texts_are_never_torn_while_writers_are_killed(void **state)
{
    (void)state;
    pid_t writer[4];
    unsigned torn = 0;
    for (unsigned i = 0; i < 4; i++)
        if ((writer[i] = fork()) == 0)
            write_for_ever(i);
    const uint64_t until_ms = clock_mono_ms() + 2000;
    for (unsigned round = 0; round < 200 && clock_mono_ms() < until_ms; round++) {
        for (unsigned look = 0; look < 50; look++) {
            const size_t n = conditions_list(table, NOW, list);
            assert_true(n <= 5);
            for (size_t i = 0; i < n; i++) {
                if (i)
                    assert_string_not_equal(list[i].subject, list[i - 1].subject);
                torn +=
                    strspn(list[i].reason, (char[]){list[i].reason[0], 0}) != CONDITION_REASON - 1;
            }
        }
        const unsigned victim = round % 4;
        kill(writer[victim], SIGKILL);
        assert_int_equal(waitpid(writer[victim], NULL, 0), writer[victim]);
        if ((writer[victim] = fork()) == 0)
            write_for_ever(round);
    }
    for (unsigned i = 0; i < 4; i++) {
        kill(writer[i], SIGKILL);
        waitpid(writer[i], NULL, 0);
    }
    assert_true(torn <
                200); /* of 50 000: a lock that is taken from one who hangs may spoil a text */
    condition_clear_except(table, COND_BACKEND_DOWN, NULL, NULL, NOW);
    assert_int_equal(conditions_list(table, NOW, list), 0);
    assert_true(condition_raise(table, COND_BACKEND_DOWN, "x", NULL, NOW));
}

/* ---- two daemons ---- */

static void both_daemons_share_a_file_and_forget_what_was_their_own(void **state)
{
    (void)state;
    char dir[] = "/tmp/polder-conditions.XXXXXX", path[64];
    struct shm_segment gateway, other, again;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/conditions.page", dir);
    assert_int_equal(conditions_open(&gateway, path, CONDITIONS_OF_POLDERD), 0);
    condition_raise(conditions_of(&gateway), COND_STORE_OFF, NULL, NULL, NOW);
    assert_int_equal(conditions_open(&other, path, CONDITIONS_OF_SUPERVISOR), 0);
    condition_raise(conditions_of(&other), COND_DESCRIPTORS_SHORT, "supervisor", NULL, NOW);
    assert_int_equal(conditions_list(conditions_of(&gateway), NOW, list), 2);
    assert_int_equal(conditions_open(&again, path, CONDITIONS_OF_POLDERD), 0);
    assert_int_equal(conditions_list(conditions_of(&other), NOW, list), 1);
    assert_int_equal(list[0].id, COND_DESCRIPTORS_SHORT);
    shm_close(&again);
    shm_close(&gateway);
    /* of another version: a new one takes its place, and the old one stays with who has it */
    assert_int_equal(truncate(path, 65536 * 8), 0);
    assert_int_equal(conditions_open(&again, path, CONDITIONS_OF_POLDERD), 0);
    assert_int_equal(conditions_list(conditions_of(&again), NOW, list), 0);
    assert_int_equal(conditions_list(conditions_of(&other), NOW, list), 1);
    shm_close(&again);
    shm_close(&other);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0); /* nothing else was left in it */
    assert_int_equal(conditions_open(&again, "/nonexistent/page", CONDITIONS_OF_POLDERD), 0);
    assert_true(condition_raise(conditions_of(&again), COND_STORE_OFF, NULL, NULL, NOW));
    shm_close(&again);
}

/* ---- the runbook ---- */

static char *file_text(const char *path)
{
    FILE *f = fopen(path, "r");
    static char text[1 << 20];
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

/* The entry's text: up to the next one. */
static const char *entry_of(const char *runbook, const char *kind, const char *name, size_t *len)
{
    char head[128];
    snprintf(head, sizeof head, "\n.It Dq %s %s\n", kind, name);
    const char *at = strstr(runbook, head);
    if (!at)
        return NULL;
    at += strlen(head);
    const char *end = strstr(at, "\n.It "), *list_end = strstr(at, "\n.El");
    end = !end || (list_end && list_end < end) ? list_end : end;
    assert_non_null(end);
    *len = (size_t)(end - at);
    return at;
}

/* Symptom, how to see it, what to do, how to know that it worked. */
static void check_entry(const char *runbook, const char *kind, const char *name)
{
    static const char *const part[] = {"Symptom:", "See:", "Do:", "Worked:"};
    size_t len = 0;
    const char *entry = entry_of(runbook, kind, name, &len);
    if (!entry)
        fail_msg("polder-runbook(7) has no entry for %s %s", kind, name);
    for (unsigned p = 0; p < 4; p++)
        if (!memmem(entry, len, part[p], strlen(part[p])))
            fail_msg("polder-runbook(7), %s %s: no \"%s\"", kind, name, part[p]);
}

static unsigned entries_of(const char *runbook, const char *kind)
{
    char head[64];
    unsigned n = 0;
    snprintf(head, sizeof head, "\n.It Dq %s ", kind);
    for (const char *at = runbook; (at = strstr(at, head)); at++)
        n++;
    return n;
}

static void the_runbook_has_an_entry_for_each(void **state)
{
    (void)state;
    const char *runbook = file_text("admin/man/polder-runbook.7");
    for (unsigned i = 0; i < CONDITIONS; i++)
        check_entry(runbook, "condition", condition_kind((enum condition_id)i)->name);
    assert_int_equal(entries_of(runbook, "condition"), CONDITIONS);
}

static void the_runbook_has_an_entry_for_each_alert(void **state)
{
    (void)state;
    static const char *const alerts[] = {
#define ALERT(id, name, ...) name,
#include "libshared/tables/alerts.def"
#undef ALERT
    };
    const char *runbook = file_text("admin/man/polder-runbook.7");
    const size_t n = sizeof alerts / sizeof *alerts;
    for (size_t i = 0; i < n; i++)
        check_entry(runbook, "alert", alerts[i]);
    assert_int_equal(entries_of(runbook, "alert"), n);
}

static void names_are_fit_for_metrics_and_meanings_for_a_line(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CONDITIONS; i++) {
        const struct condition_kind *k = condition_kind((enum condition_id)i);
        assert_int_equal(strspn(k->name, "abcdefghijklmnopqrstuvwxyz_"), strlen(k->name));
        assert_true(strlen(k->name) < 40 && strlen(k->meaning) < 120);
        assert_null(strpbrk(k->meaning, "\"\\\n"));
        assert_true(k->meaning[strlen(k->meaning) - 1] != '.');
        assert_true(*k->action && strlen(k->action) < 160);
        assert_true(k->action[strlen(k->action) - 1] != '.' && !strchr(k->action, '\n'));
        assert_int_equal(k->severity == CONDITION_HINT, !strncmp(k->name, "hint_", 5));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(k->name, condition_kind((enum condition_id)j)->name);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(raising_what_is_raised_changes_nothing),
        TEST(they_are_listed_in_the_order_of_the_table),
        TEST(a_hint_is_given_once_a_day),
        TEST(what_is_cut_or_was_never_utf8_is_shown_as_utf8),
        TEST(the_table_is_bounded),
        TEST(a_hint_gives_way_to_what_is_none),
        TEST(texts_are_cut_and_cannot_drive_a_terminal),
        TEST(what_a_new_configuration_does_not_name_goes),
        TEST(a_change_is_seen_whole_or_not_at_all),
        TEST(who_is_killed_at_any_instruction_leaves_a_table_that_works),
        TEST(texts_are_never_torn_while_writers_are_killed),
        TEST(both_daemons_share_a_file_and_forget_what_was_their_own),
        TEST(the_runbook_has_an_entry_for_each),
        TEST(the_runbook_has_an_entry_for_each_alert),
        TEST(names_are_fit_for_metrics_and_meanings_for_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
