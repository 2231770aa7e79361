/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as polder.conf: a tree or at least one message, nothing printed, and a good file read
 * after it is still good. */
#include "polder/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];
static const char good[] = "# good\nuser = \"x\"\nupstream \"u\" { server \"127.0.0.1:1\" { } }\n"
                           "route \"/*\" { upstream = \"u\" }\n";

/* The outline and libconfuse must agree on what can be parsed. */
static void count(void *arg, const char *line)
{
    ++*(int *)arg;
    if (!strncmp(line + strlen(path), ": cannot be parsed", 18))
        abort();
}

static const struct config *load(const void *data, size_t size, int *messages)
{
    static char *memory;
    struct config_arena arena;
    if (!memory)
        memory = malloc(1 << 20);
    FILE *f = fopen(path, "w");
    if (!f)
        abort();
    fwrite(data, 1, size, f);
    fclose(f);
    config_arena_init(&arena, memory, 1 << 20);
    return config_load(&arena, path, count, messages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char printed[64];
    struct stat st;
    int messages = 0, later = 0;
    if (!*path) {
        snprintf(path, sizeof path, "/tmp/polder-fuzz-config.%d", (int)getpid());
        snprintf(printed, sizeof printed, "/tmp/polder-fuzz-config-out.%d", (int)getpid());
        if (!freopen(printed, "w", stdout))
            abort();
        unlink(printed);
    }
    if (!load(data, size, &messages) != (messages > 0))
        abort();
    if (!load(good, sizeof good - 1, &later) || later)
        abort();
    unlink(path);
    fflush(stdout);
    if (fstat(STDOUT_FILENO, &st) || st.st_size)
        abort();
    return 0;
}
