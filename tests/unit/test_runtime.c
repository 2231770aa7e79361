/* SPDX-License-Identifier: BSD-2-Clause */
/* The running values: readers never see half of a change, and what is persisted survives or is
 * refused. */
#include "polder/config.h"
#include "polder/runtime.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void readers_see_whole_changes_though_writers_die(void **state)
{
    (void)state;
    struct runtime_page *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    static struct runtime_values v;
    for (int round = 0; round < 40; round++) {
        const pid_t writer = fork();
        if (writer == 0)
            for (uint32_t n = (uint32_t)runtime_generation(page) + 1;; n++) {
                static struct runtime_values w;
                for (size_t i = 0; i < RUNTIME_LIMITS_MAX; i++)
                    w.limit[i].requests = n;
                runtime_publish(page, &w);
            }
        for (int i = 0; i < 300; i++) {
            runtime_read(page, &v);
            for (size_t k = 1; k < RUNTIME_LIMITS_MAX; k++)
                assert_int_equal(v.limit[k].requests, v.limit[0].requests);
        }
        kill(writer, SIGKILL);
        waitpid(writer, NULL, 0);
    }
    runtime_read(page, &v);
    munmap(page, sizeof *page);
}

static void limits_have_ranges(void **state)
{
    (void)state;
    static const struct {
        struct runtime_limit l;
        int ok;
    } c[] = {{{.requests = 0, .window_ms = 1000}, 1},
             {{.requests = 65535, .window_ms = 1000}, 1},
             {{.requests = 65536, .window_ms = 1000}, 0},
             {{.requests = UINT32_MAX, .window_ms = 1000, .algorithm = RUNTIME_GCRA}, 1},
             {{.requests = UINT32_MAX, .window_ms = 1000, .algorithm = RUNTIME_FIXED}, 1},
             {{.requests = 1, .window_ms = 99}, 0},
             {{.requests = 1, .window_ms = UINT64_C(2592000000)}, 1},
             {{.requests = 1, .window_ms = UINT64_C(2592000001)}, 0},
             {{.requests = 1, .window_ms = 1000, .concurrent = 1000000}, 1},
             {{.requests = 1, .window_ms = 1000, .concurrent = 1000001}, 0},
             {{.requests = 1, .window_ms = 1000, .algorithm = 3}, 0}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const char *why = NULL;
        assert_int_equal(runtime_limit_check(&c[i].l, &why) == 0, c[i].ok);
        assert_true(c[i].ok || why);
    }
}

static void what_is_persisted_comes_back(void **state)
{
    (void)state;
    char dir[] = "/tmp/polder-runtime.XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    struct config_limit limits[2] = {{.name = "a"}, {.name = "b", .index = 1}};
    const struct config config = {.limits = limits, .n_limits = 2};
    const struct runtime_limit v = {.requests = 40,
                                    .window_ms = 60000,
                                    .algorithm = RUNTIME_GCRA,
                                    .concurrent = 3,
                                    .dry_run = 1};
    static struct runtime_values values;
    struct runtime_page *page = calloc(1, sizeof *page);
    values.limit[0].requests = 1;
    values.limit[1].requests = 2;
    assert_int_equal(runtime_persist_load(dir, &config, page, &values),
                     0); /* no file is no mistake */
    assert_int_equal(runtime_persist_save(dir, "b", &v, NULL, NULL), 0);
    assert_int_equal(runtime_persist_save(dir, "gone", &v, NULL, NULL), 0);
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_int_equal(values.limit[0].requests, 1);
    assert_memory_equal(&values.limit[1], &v, sizeof v);
    assert_int_equal(runtime_persist_has(dir, "b"), 1);
    assert_int_equal(runtime_persist_has(dir, "a"), 0);
    bool which[RUNTIME_LIMITS_MAX];
    runtime_persist_which(dir, &config, which);
    assert_true(!which[0] && which[1]);
    assert_int_equal(runtime_persist_forget(dir, "b"), 0);
    assert_int_equal(runtime_persist_has(dir, "b"), 0);
    assert_int_equal(runtime_persist_has(dir, "gone"), 1);

    static const struct {
        const char *bytes;
        size_t len;
    } foreign[] = {
#define FOREIGN(text) {text, sizeof text - 1}
        FOREIGN(""),
        FOREIGN("\xc1"),
        FOREIGN("\xdf\xff\xff\xff\xff"),
        FOREIGN("hello"),
        FOREIGN("\x81\xa1"
                "b\x01"),
        FOREIGN("\x81\xa0\x95\x01\x00\xcd\x10\x00\x00\x00"), /* a limit without a name */
        FOREIGN("\x81\xa1"
                "b\x95\x01\x09\xcd\x10\x00\x00\x00"), /* an unknown algorithm */
        FOREIGN("\x81\xa1"
                "b\x95\x01\x00\x01\x00\x00"), /* a window of 1 ms */
        FOREIGN("\x81\xa1"
                "b\x95\x01\x00\xcd\x10\x00\xce\x00\x0f\x42\x41\x00"), /* concurrent */
        FOREIGN("\x81\xa1"
                "b\x94\x01\x00\xcd\x10\x00\x00"),
        FOREIGN("\x81\xa1"
                "b\x95\x01\x00\xcd\x10\x00\x00\x00\x00"), /* a byte too many */
        FOREIGN("\x82\xa1"
                "b\x95\x01\x00\xcd\x10\x00\x00\x00"
                "\xa1"
                "b\x95\x02\x00\xcd\x10\x00\x00\x00"),
#undef FOREIGN
    };
    snprintf(path, sizeof path, "%s/runtime.mp", dir);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        FILE *f = fopen(path, "w");
        fwrite(foreign[i].bytes, 1, foreign[i].len, f);
        fclose(f);
        values.limit[1].requests = 2;
        assert_int_not_equal(runtime_persist_load(dir, &config, page, &values), 0);
        assert_int_equal(values.limit[1].requests, 2);
        assert_int_equal(runtime_persist_forget(dir, "b"), 0); /* nothing of it is applied */
    }
    assert_int_equal(runtime_persist_save(dir, "b", &v, NULL, NULL),
                     0); /* replaces what cannot be used */
    assert_int_equal(runtime_persist_has(dir, "b"), 1);
    char name[16];
    for (unsigned i = 1; i < RUNTIME_LIMITS_MAX; i++) {
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(runtime_persist_save(dir, name, &v, NULL, NULL), 0);
    }
    assert_int_equal(runtime_persist_save(dir, "one more", &v, NULL, NULL), -ENOSPC);
    assert_int_equal(runtime_persist_save(dir, "b", &v, NULL, NULL), 0); /* one that is there */
    assert_int_equal(runtime_persist_has(dir, "n255"), 1);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody waits for who might write */
    assert_int_not_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_int_equal(runtime_persist_save(dir, "b", &v, NULL, NULL), 0);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0); /* what cannot be read is not replaced */
    assert_int_not_equal(runtime_persist_save(dir, "b", &v, NULL, NULL), 0);
    assert_int_equal(rmdir(path), 0);
    rmdir(dir);
    free(page);
}

static void list_of(struct exempt *list, const char *text)
{
    char wrong[64];
    const char *why;
    assert_int_equal(exempt_parse(list, text, wrong, sizeof wrong, &why), 0);
}

static void whom_a_limit_exempts_is_persisted_with_it(void **state)
{
    (void)state;
    char dir[] = "/tmp/polder-runtime.XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    struct config_limit limits[2] = {{.name = "a", .index = 0}, {.name = "b", .index = 1}};
    const struct config config = {.limits = limits, .n_limits = 2};
    const struct runtime_limit v = {.requests = 40, .window_ms = 60000};
    static struct runtime_values values;
    struct runtime_page *page = calloc(1, sizeof *page);
    struct exempt some, nobody;
    list_of(&some, "10.0.0.0/8,2001:db8::/32,key,a\\,b");
    list_of(&nobody, "");
    assert_int_equal(runtime_persist_save(dir, "a", &v, &nobody, NULL), 0);
    assert_int_equal(runtime_persist_save(dir, "b", &v, &some, NULL), 0);
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_memory_equal(runtime_exempt_of(page, 0, &values.limit[0]), &nobody, sizeof nobody);
    assert_memory_equal(runtime_exempt_of(page, 1, &values.limit[1]), &some, sizeof some);
    assert_int_equal(runtime_persist_save(dir, "b", &v, NULL, NULL), 0);
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_null(runtime_exempt_of(page, 1, &values.limit[1]));
    snprintf(path, sizeof path, "%s/runtime.mp", dir);
    static const char *const lists[] = {"\x01", "\x91\xa3::/", "\x91\xa0", "\x91\xc0", "\x90\x01"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        FILE *f = fopen(path, "w");
        const bool too_many = i == 4;
        fwrite(too_many ? "\x81\xa1"
                          "b\x97"
                        : "\x81\xa1"
                          "b\x96",
               1, 4, f);
        fwrite("\x01\x00\xcd\x10\x00\x00\x00", 1, 7, f);
        fwrite(lists[i], 1, strlen(lists[i]), f);
        fclose(f);
        assert_int_not_equal(runtime_persist_load(dir, &config, page, &values), 0);
        assert_null(runtime_exempt_of(page, 1, &values.limit[1]));
    }
    unlink(path);
    rmdir(dir);
    free(page);
}

static void what_the_file_overrules_is_not_applied_and_then_forgotten(void **state)
{
    (void)state;
    char dir[] = "/tmp/polder-runtime.XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    struct clientip_net net, other;
    assert_int_equal(clientip_net_parse("192.0.2.0/24", &net), 0);
    assert_int_equal(clientip_net_parse("192.0.2.0/25", &other), 0);
    struct config_limit limit = {.name = "a",
                                 .value = {.requests = 100, .window_ms = 60000},
                                 .exempt_nets = &net,
                                 .n_exempt_nets = 1};
    const struct config config = {.limits = &limit, .n_limits = 1};
    const struct runtime_limit v = {.requests = 40, .window_ms = 30000};
    static struct runtime_values values;
    struct runtime_page *page = calloc(1, sizeof *page);
    struct exempt some;
    list_of(&some, "10.0.0.0/8");
    assert_int_equal(runtime_persist_save(dir, "a", &v, &some, &limit), 0);
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_int_equal(values.limit[0].requests, 40);
    assert_non_null(runtime_exempt_of(page, 0, &values.limit[0]));
    limit.value.requests = 80; /* the other number and the list hold */
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_int_equal(values.limit[0].requests, 80);
    assert_int_equal(values.limit[0].window_ms, 30000);
    assert_non_null(runtime_exempt_of(page, 0, &values.limit[0]));
    limit.exempt_nets = &other;
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_null(runtime_exempt_of(page, 0, &values.limit[0]));
    assert_int_equal(runtime_persist_forget_overruled(dir, &config), 0);
    limit.value.requests = 100; /* what was forgotten does not come back */
    limit.exempt_nets = &net;
    assert_int_equal(runtime_persist_load(dir, &config, page, &values), 0);
    assert_int_equal(values.limit[0].requests, 100);
    assert_int_equal(values.limit[0].window_ms, 30000);
    assert_null(runtime_exempt_of(page, 0, &values.limit[0]));
    limit.value.window_ms = 45000;
    assert_int_equal(runtime_persist_forget_overruled(dir, &config), 0);
    assert_int_equal(runtime_persist_has(dir, "a"), 0); /* nothing was left of it */
    snprintf(path, sizeof path, "%s/runtime.mp", dir);
    unlink(path);
    rmdir(dir);
    free(page);
}

/* The three lists of a limit: what runs, what a trial goes back to, and what is written next. */
static void a_list_is_whole_though_writers_die(void **state)
{
    (void)state;
    struct runtime_page *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    static struct runtime_values v;
    struct exempt list;
    for (int round = 0; round < 40; round++) {
        const pid_t writer = fork();
        if (writer == 0)
            for (uint32_t n = (uint32_t)runtime_generation(page) + 1;; n++) {
                static struct runtime_values w;
                static struct exempt l;
                memset(&l, (int)(n % 200) + 1, sizeof l);
                page->trial[7].before.exempt = w.limit[7].exempt;
                w.limit[7].requests = n % 200 + 1;
                w.limit[7].exempt = runtime_exempt_put(page, 7, &l);
                runtime_publish(page, &w);
            }
        for (int i = 0, seen = 0; seen < 300 && i < 1000000; i++) {
            const uint64_t generation = runtime_read(page, &v);
            if (!v.limit[7].exempt ||
                !runtime_exempt_read(page, generation, 7, v.limit[7].exempt, &list))
                continue;
            seen++;
            const unsigned char *byte = (const unsigned char *)&list;
            for (size_t k = 0; k < sizeof list; k++)
                assert_int_equal(byte[k], v.limit[7].requests);
        }
        kill(writer, SIGKILL);
        waitpid(writer, NULL, 0);
    }
    munmap(page, sizeof *page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_whole_changes_though_writers_die),
        cmocka_unit_test(limits_have_ranges),
        cmocka_unit_test(what_is_persisted_comes_back),
        cmocka_unit_test(what_the_file_overrules_is_not_applied_and_then_forgotten),
        cmocka_unit_test(whom_a_limit_exempts_is_persisted_with_it),
        cmocka_unit_test(a_list_is_whole_though_writers_die),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
