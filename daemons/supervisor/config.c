/* SPDX-License-Identifier: BSD-2-Clause */
/* config: reads the configuration. */
#include "daemons/supervisor/supervisor.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Read-only from then on: what changes while running lies in struct supervisor. */
const struct config *supervisor_read_config(const char *path, void **memory, config_error_fn fn)
{
    struct config_arena arena;
    *memory = mmap(NULL, SHARED_REGION_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*memory == MAP_FAILED)
        return NULL;
    config_arena_init(&arena, *memory, SHARED_REGION_SIZE);
    const struct config *c = config_load(&arena, path, fn, NULL);
    if (!c)
        munmap(*memory, SHARED_REGION_SIZE);
    else if (mprotect(*memory, SHARED_REGION_SIZE, PROT_READ) < 0)
        log_warning("config: cannot be made read-only: %s", strerror(errno));
    return c;
}
