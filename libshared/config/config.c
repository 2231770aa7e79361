/* SPDX-License-Identifier: BSD-2-Clause */
/* config: regions, and the reading of a file from one end to the other. */
#include "polder/config.h"
#include "polder/settings.h"
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

static int fill_runtime(struct config_region *region, const struct config *config)
{
    struct runtime_values *values = calloc(1, sizeof *values);
    if (!values)
        return -ENOMEM; /* a page of zeros would refuse all requests */
    for (uint32_t i = 0; i < config->n_limits; i++)
        values->limit[i] = config->limits[i].value;
    for (uint32_t i = 0; i < config->n_upstreams; i++)
        for (uint32_t k = 0; k < config->upstreams[i].n_servers; k++)
            values->server[config->upstreams[i].servers[k].index].weight =
                config->upstreams[i].servers[k].weight;
    values->cache = config->cache.value;
    runtime_persist_load(config->state_dir, config, &region->runtime, values);
    settings_load(config->state_dir, config, values);
    runtime_publish(&region->runtime, values);
    free(values);
    return 0;
}

int config_region_load(struct config_region *region, const char *path, uint32_t generation)
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
    if (fill_runtime(region, config)) {
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
