/* SPDX-License-Identifier: BSD-2-Clause */
/* config_arena: the memory that a configuration and all that it points to are built in. */
#include "polder/config.h"

#include <string.h>

void config_arena_init(struct config_arena *arena, void *memory, size_t size)
{
    *arena = (struct config_arena){.base = memory, .size = size};
}

void *config_arena_alloc(struct config_arena *arena, size_t size)
{
    if (size > arena->size)
        return NULL;
    const size_t rounded = (size + 15) & ~(size_t)15;
    if (rounded > arena->size - arena->used)
        return NULL;
    void *memory = arena->base + arena->used;
    arena->used += rounded;
    return memset(memory, 0, size);
}

char *config_arena_strdup(struct config_arena *arena, const char *text)
{
    const size_t len = strlen(text);
    char *copy = config_arena_alloc(arena, len + 1);
    return copy ? memcpy(copy, text, len + 1) : NULL;
}
