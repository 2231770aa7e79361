/* SPDX-License-Identifier: BSD-2-Clause */
/* config: regions, and the reading of a file from one end to the other. */
#include "polder/config.h"
#include "polder/running.h"
#include "libshared/config/config_parse.h"
#include "polder/shared.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct config *config_load(struct config_arena *arena, const char *path, config_error_fn on_error,
                           void *arg)
{
    struct config_parse p = {.path = path, .arena = arena, .on_error = on_error, .arg = arg};
    struct config *config = NULL;
    char *text = config_text_read(&p);
    if (text && config_outline(&p, text))
        p.root = config_parse_text(&p, text);
    if (p.root) {
        config = config_build(&p);
        cfg_free(p.root);
    }
    free(text);
    free(p.places);
    free(p.sections);
    free(p.muted);
    return config;
}

static void collect(void *arg, const char *line)
{
    struct config_region *region = arg;
    const size_t used = strlen(region->errors), room = sizeof region->errors - used;
    if (strlen(line) + 2 <= room)
        snprintf(region->errors + used, room, "%s\n", line);
}

static int fill_runtime(struct config_region *region, const struct config *config,
                        const struct config_region *before)
{
    struct runtime_values *values = calloc(1, sizeof *values);
    if (!values)
        return -ENOMEM; /* a page of zeros would refuse all requests */
    running_fill(config, &region->runtime, before, values, NULL);
    runtime_publish(&region->runtime, values);
    if (before)
        running_carry_trials(config, &region->runtime, before);
    free(values);
    return 0;
}

int config_region_load(struct config_region *region, const char *path, uint32_t generation,
                       const struct config_region *before)
{
    struct config_arena arena;
    region->config = NULL;
    region->errors[0] = 0;
    region->generation = generation;
    /* exempt lists are used only where a value points to them, and stay untouched */
    memset(&region->runtime, 0, offsetof(struct runtime_page, exempt));
    config_arena_init(&arena, region->arena,
                      SHARED_REGION_SIZE - offsetof(struct config_region, arena));
    struct config *config = config_load(&arena, path, collect, region);
    if (!config)
        return -EINVAL;
    if (fill_runtime(region, config, before)) {
        collect(region, "out of memory");
        return -ENOMEM;
    }
    atomic_thread_fence(memory_order_release);
    region->config = config;
    return 0;
}

int config_region_protect(struct config_region *region, bool writable)
{
    const size_t from = offsetof(struct config_region, config);
    return mprotect((char *)region + from, SHARED_REGION_SIZE - from,
                    writable ? PROT_READ | PROT_WRITE : PROT_READ) < 0
               ? -errno
               : 0;
}
