/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any bytes as a segment of an earlier run: it is refused with a reason, or limits go on to work with
 * it, never admit more than they say, and a second look finds nothing.
 */
#include "libshared/limit/limit_table.h"
#include "polder/history.h"
#include "polder/kept.h"
#include "polder/limit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ENTRIES 512
#define NOW     UINT64_C(500000000)
#define TIMES   20

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static const char *mend(void *base, int fd, const struct kept_request *want)
{
    return limit_table_mend(base, want->size, fd, want->mono_ms);
}

/* Each input is a list of writes: two bytes of place, one of where to count from, eight of value. */
static void scribble(char *base, size_t size, const uint8_t *data, size_t len)
{
    static const size_t from[4] = {0, offsetof(struct limit_table, formats),
                                   offsetof(struct limit_table, page), 64};
    for (; len >= 11; data += 11, len -= 11) {
        const size_t at = from[data[2] & 3] + (size_t)(data[0] | data[1] << 8) * 8;
        if (at + 8 <= size)
            memcpy(base + at, data + 3, 8);
    }
}

static void check_limits(struct limit_table *table)
{
    static char proc[sizeof(struct proc_table)] __attribute__((aligned(128)));
    const struct limit_caller me = {table, (struct proc_table *)(void *)proc, PROC_SLOT_WORKER0, 1};
    memset(proc, 0, sizeof proc);
    ((struct proc_table *)(void *)proc)->slot[PROC_SLOT_WORKER0].incarnation = 1;
    ((struct proc_table *)(void *)proc)->slot[PROC_SLOT_WORKER0].state = PROC_READY;
    for (uint32_t a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++) {
        const struct runtime_limit l = {.requests = 5, .algorithm = a, .window_ms = 60000};
        const struct limit_charge c = {
            .key = limit_key(table, 1, &a, sizeof a), .limit = &l, .cost = 1};
        struct limit_verdict v;
        unsigned n = 0;
        for (unsigned i = 0; i < TIMES; i++)
            n += limit_charge(&me, &c, 1, NOW, &v);
        check(n <= 5);
    }
    check(table->lock_refusals == 0);
}

static void fuzz_limits(const uint8_t *data, size_t len)
{
    const struct kept_request want = {.name = "limits",
                                      .kind = SHM_LIMIT,
                                      .abi = LIMIT_ABI,
                                      .layout = limit_table_layout(),
                                      .size = limit_counts_size(ENTRIES),
                                      .mono_ms = NOW,
                                      .mend = mend};
    struct shm_segment seg;
    char why[160];
    check(shm_create(&seg, want.name, want.kind, want.abi, want.layout, want.size) == 0);
    limit_table_init(seg.base, ENTRIES);
    ((struct limit_table *)seg.base)->lock_refusals = 0;
    shm_publish(&seg);
    scribble(seg.base, seg.size, data, len);
    const int fd = fcntl(seg.fd, F_DUPFD_CLOEXEC, 0);
    shm_close(&seg);
    if (kept_adopt(&seg, &want, fd, why, sizeof why) < 0) {
        check(why[0]);
        return;
    }
    struct limit_table *table = seg.base;
    char *before = malloc(seg.size);
    table->lock_refusals = 0;
    memcpy(before, table, seg.size);
    check(limit_table_mend(table, seg.size, seg.fd, NOW) == NULL);
    check(memcmp(before, table, seg.size) == 0);
    free(before);
    check_limits(table);
    shm_close(&seg);
}

static void fuzz_history(const uint8_t *data, size_t len)
{
    static struct history_page page;
    const uint64_t now_s = 1764400000;
    char name[HISTORY_NAME];
    memset(&page, 0, sizeof page);
    for (size_t at = 64; at < sizeof page && len; at += 4096 + len) {
        const size_t room = sizeof page - at;
        memcpy((char *)&page + at, data, len < room ? len : room);
    }
    history_mend(&page, now_s);
    check(page.newest[HISTORY_FINE] <= now_s && page.newest[HISTORY_COARSE] <= now_s);
    for (size_t i = 0; i < HISTORY_WIDTH; i++)
        if (history_column_is_used(&page, i))
            history_name(&page, i, name, sizeof name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_limits(data, len);
    fuzz_history(data, len < 4096 ? len : 4096);
    return 0;
}
