/* SPDX-License-Identifier: BSD-2-Clause */
/* runtime: see runtime.h. What `limit set --persist` leaves on disk is in runtime_persist.c. */
#include "polder/runtime.h"
#include "polder/config_keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SLIDING_MAX 65535

uint64_t runtime_read(const struct runtime_page *page, struct runtime_values *out)
{
    for (;;) {
        const uint64_t generation = runtime_generation(page);
        memcpy(out, &page->copy[generation & 1], sizeof *out);
        /* The writer touches the copy we read only after it has moved the generation on. */
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&page->generation, memory_order_relaxed) == generation)
            return generation;
    }
}

void runtime_publish(struct runtime_page *page, const struct runtime_values *values)
{
    const uint64_t next = runtime_generation(page) + 1;
    atomic_thread_fence(memory_order_release);
    memcpy(&page->copy[next & 1], values, sizeof *values);
    atomic_store_explicit(&page->generation, next, memory_order_release);
}

/* ---- exempt lists of limits ---- */

const struct exempt *runtime_exempt_of(const struct runtime_page *page, uint32_t index,
                                       const struct runtime_limit *limit)
{
    return limit->exempt ? &page->exempt[index][limit->exempt - 1] : NULL;
}

uint32_t runtime_exempt_put(struct runtime_page *page, uint32_t index, const struct exempt *list)
{
    const struct runtime_values *now = &page->copy[runtime_generation(page) & 1];
    const uint32_t running = now->limit[index].exempt, before = page->trial[index].before.exempt;
    uint32_t n = 1;
    if (running && !memcmp(&page->exempt[index][running - 1], list, sizeof *list))
        return running;
    while (n == running || n == before)
        n++;
    /* A reader that still copies from here sees that the generation has moved on since. */
    atomic_thread_fence(memory_order_release);
    memcpy(&page->exempt[index][n - 1], list, sizeof *list);
    return n;
}

bool runtime_exempt_read(const struct runtime_page *page, uint64_t generation, uint32_t index,
                         uint32_t exempt, struct exempt *out)
{
    memcpy(out, &page->exempt[index][exempt - 1], sizeof *out);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&page->generation, memory_order_relaxed) == generation;
}

/* ---- what a limit may be ---- */

int runtime_limit_check(const struct runtime_limit *limit, const char **why)
{
    static _Thread_local char text[192];
    const char *right;
    const struct config_row *row = config_live_wrong(CONFIG_SECTION_LIMIT, limit, &right);
    if (row) {
        snprintf(text, sizeof text, "%s is %s", row->key, right);
        *why = text;
        return -ERANGE;
    }
    *why = "requests of a sliding limit is at most 65535; fixed and gcra take up to 4294967295";
    return limit->algorithm == RUNTIME_SLIDING && limit->requests > SLIDING_MAX ? -ERANGE : 0;
}
