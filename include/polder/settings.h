/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * settings: what `upstream weight`, `cache set` and `ws set` save with --persist, in
 * state_dir/settings.mp: a msgpack array of [section, key, value, base], all texts, as they were
 * typed; base is what the file said then (settings_base()), and an entry holds only while the file
 * says so still. Earlier versions wrote none, and such entries always hold.
 * Limits have a file of their own (runtime.h).
 *
 *     section               key             value
 *     "cache"               "ttl"           "10s"
 *     "upstream api"        "10.0.0.7:80"   "50"       its weight
 *     "websocket"           "interval"      "15s"      all routes
 *     "websocket /ws/chat"  "max_message"   "64K"      one route
 *
 * Written by control alone, whole, to a temporary file that is synced and renamed: a crash leaves
 * the old file or the new one. Read whenever a configuration is loaded. Entries that do not fit the
 * configuration any more are skipped when it is applied, and stay in the file.
 */
#ifndef POLDER_SETTINGS_H
#define POLDER_SETTINGS_H
#include "polder/runtime.h"
#include <stddef.h>

#define SETTINGS_MAX     1024
#define SETTINGS_SECTION 256 /* bytes, with the NUL */
#define SETTINGS_KEY     256
#define SETTINGS_VALUE   1024
#define SETTINGS_BASE    40

struct setting {
    char section[SETTINGS_SECTION], key[SETTINGS_KEY], value[SETTINGS_VALUE], base[SETTINGS_BASE];
};
struct settings {
    struct setting *at; /* malloc'd */
    size_t n;
};

/* 0, also where there is no file; else a negative errno and nothing in it. */
int settings_read(const char *state_dir, struct settings *out);
void settings_free(struct settings *settings);
/* Saves these n, replacing entries of the same sections and keys. A damaged file is replaced.
 */
int settings_save(const char *state_dir, const struct setting *with, size_t n);
/* key NULL: the whole section. 0, also where there was nothing. */
int settings_forget(const char *state_dir, const char *section, const char *key);

struct config;
/* What the file says of that key, in a form for comparison; "" if it has no such server, route or
 * key. For those who save. */
void settings_base(const struct config *config, struct setting *s);
/* Does the file say still what it said when this was saved? True too if that is not known. */
bool settings_holds(const struct config *config, const struct setting *s);
/* Forgets those that the file has overruled. 0 or a negative errno. */
int settings_forget_overruled(const char *state_dir, const struct config *config);

/* Applies those of cache and upstreams to values; invalid entries are logged and skipped. */
void settings_apply(const struct settings *settings, const struct config *config,
                    struct runtime_values *values);
/* Reads and applies. 0 or a negative errno, which is logged. */
int settings_load(const char *state_dir, const struct config *config,
                  struct runtime_values *values);
#endif
