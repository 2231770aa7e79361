/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as polder.conf: a tree or at least one message, and never more. */
#include "polder/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void count(void *arg, const char *line)
{
    (void)line;
    ++*(int *)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64], *memory;
    struct config_arena arena;
    int messages = 0;
    if (!memory) {
        memory = malloc(1 << 20);
        snprintf(path, sizeof path, "/tmp/polder-fuzz-config.%d", (int)getpid());
    }
    FILE *f = fopen(path, "w");
    if (!f)
        abort();
    fwrite(data, 1, size, f);
    fclose(f);
    config_arena_init(&arena, memory, 1 << 20);
    if (!config_load(&arena, path, count, &messages) != (messages > 0))
        abort();
    unlink(path);
    return 0;
}
