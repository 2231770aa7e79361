/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_runtime: whatever stands in runtime.mp, either all of it is good and in its ranges, or
 * nothing is applied; what is then saved comes back, beside all that was there, and can be
 * forgotten again.
 *
 * The input is the file.
 */
#include "polder/config.h"
#include "polder/log.h"
#include "polder/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define LIMITS 3

static char dir[] = "/dev/shm/polder-fuzz.XXXXXX", path[64];
static struct config_limit limits[LIMITS] = {
    {.name = "a", .index = 0}, {.name = "b", .index = 1}, {.name = "status", .index = 2}};
static const struct config config = {.limits = limits, .n_limits = LIMITS};
static const struct runtime_limit file = {.requests = 7, .window_ms = 1000};
static struct runtime_page page;
static struct runtime_values before, now;

static void clean_up(void)
{
    unlink(path);
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_set_level(LOG_LEVEL_ERROR); /* a warning for each damaged file would be all that is seen */
    must(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/runtime.mp", dir);
    for (unsigned i = 0; i < LIMITS; i++)
        limits[i].value = file;
    return atexit(clean_up);
}

static void put_file(const uint8_t *data, size_t size)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

/* Into a page where the values of the file run. */
static int load(struct runtime_values *values)
{
    memset(&page, 0, sizeof page);
    memset(values, 0, sizeof *values);
    for (unsigned i = 0; i < LIMITS; i++)
        values->limit[i] = file;
    return runtime_persist_load(dir, &config, &page, values);
}

static void check_list(const struct exempt *list)
{
    size_t bytes = 0;
    for (const char *v = NULL; (v = exempt_next(list, v)); bytes += strlen(v) + 1)
        must(*v);
    must(bytes == list->text_len && bytes <= sizeof list->text);
    must(list->n_nets <= EXEMPT_NETS_MAX);
    for (uint32_t i = 0; i < list->n_nets; i++)
        must(list->net[i].bits <= 128);
}

static void check_limit(unsigned i)
{
    const struct runtime_limit *l = &now.limit[i];
    const char *why;
    must(runtime_limit_check(l, &why) == 0);
    must(l->dry_run <= 1 && l->exempt <= RUNTIME_EXEMPT_LISTS);
    if (l->exempt)
        check_list(runtime_exempt_of(&page, i, l));
    if (memcmp(l, &file, sizeof file))
        must(runtime_persist_has(dir, limits[i].name));
}

/* The other limits' values and lists are as they were. */
static void check_kept(unsigned changed, const struct exempt lists[LIMITS])
{
    for (unsigned i = 0; i < LIMITS; i++) {
        if (i == changed)
            continue;
        must(!memcmp(&now.limit[i], &before.limit[i], sizeof now.limit[i]));
        if (now.limit[i].exempt)
            must(!memcmp(runtime_exempt_of(&page, i, &now.limit[i]), &lists[i], sizeof lists[i]));
    }
}

static void save_and_forget(bool damaged)
{
    static const struct runtime_limit value = {
        .requests = 40, .window_ms = 60000, .algorithm = RUNTIME_GCRA, .concurrent = 3};
    static struct exempt some, lists[LIMITS];
    must(runtime_persist_forget_overruled(dir, &config) <= 0);
    for (unsigned i = 0; i < LIMITS; i++)
        if (before.limit[i].exempt)
            lists[i] = *runtime_exempt_of(&page, i, &before.limit[i]);
    some = lists[1];
    const int code =
        runtime_persist_save(dir, "a", &value, before.limit[1].exempt ? &some : NULL, NULL);
    if (code) { /* 256 others are kept */
        must(!damaged && code == -ENOSPC && !runtime_persist_has(dir, "a"));
        return;
    }
    must(load(&now) == 0);
    must(now.limit[0].requests == 40 && now.limit[0].concurrent == 3);
    must(!now.limit[0].exempt == !before.limit[1].exempt);
    if (now.limit[0].exempt)
        must(!memcmp(runtime_exempt_of(&page, 0, &now.limit[0]), &some, sizeof some));
    check_kept(0, lists);
    must(runtime_persist_forget(dir, "a") == 0 && load(&now) == 0);
    must(!memcmp(&now.limit[0], &file, sizeof file));
    check_kept(0, lists);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    put_file(data, size);
    const int code = load(&now);
    for (unsigned i = 0; i < LIMITS; i++) {
        must(code == 0 || !memcmp(&now.limit[i], &file, sizeof file));
        check_limit(i);
    }
    before = now;
    save_and_forget(code != 0);
    return 0;
}
