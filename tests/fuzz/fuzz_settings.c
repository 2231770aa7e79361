/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_settings: whatever stands in settings.mp, it is read whole or not at all; what is applied is
 * in its ranges; and what is then saved comes back and can be forgotten.
 *
 * The input is the file.
 */
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/settings.h"

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

static char dir[] = "/dev/shm/polder-fuzz.XXXXXX", path[64];
static struct config_upstream upstream = {.name = "a", .n_servers = 1};
static struct config_server server = {.address.text = "b", .upstream = &upstream};
static const struct config config = {.upstreams = &upstream, .n_upstreams = 1};
static struct runtime_values values;

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
    snprintf(path, sizeof path, "%s/settings.mp", dir);
    upstream.servers = &server;
    return atexit(clean_up);
}

static void put_file(const uint8_t *data, size_t size)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

static size_t read_back(const char *section, const char *key, const char *value)
{
    struct settings all;
    size_t n = 0;
    must(settings_read(dir, &all) == 0);
    for (size_t i = 0; i < all.n; i++)
        n += !strcmp(all.at[i].section, section) && !strcmp(all.at[i].key, key) &&
             (!value || !strcmp(all.at[i].value, value));
    settings_free(&all);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings all;
    put_file(data, size);
    const int code = settings_read(dir, &all);
    must(code <= 0 && (code == 0 || all.n == 0) && all.n <= SETTINGS_MAX);
    const size_t n = all.n;
    memset(&values, 0, sizeof values);
    values.cache.max_items = 1;
    values.cache.max_bytes = 1 << 20;
    settings_apply(&all, &config, &values);
    settings_free(&all);
    const char *why;
    must(!config_live_wrong(CONFIG_SECTION_CACHE, &values.cache, &why));
    must(values.server[0].weight <= config_rows[CONFIG_SERVER_weight].max);
    const struct setting one = {"cache", "ttl", "7s"};
    const int saved = settings_save(dir, &one, 1);
    must(saved == 0 || (saved == -ENOSPC && n == SETTINGS_MAX) || saved == -EFBIG);
    if (saved)
        return 0;
    must(read_back("cache", "ttl", "7s") >= 1);
    must(settings_forget_overruled(dir, &config) == 0);
    must(settings_forget(dir, "cache", "ttl") == 0);
    must(read_back("cache", "ttl", NULL) == 0);
    return 0;
}
