/* SPDX-License-Identifier: BSD-2-Clause */
/* What --persist keeps of upstreams and cache: whole, whatever the file is, and only where it fits.
 */
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/settings.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[32], file[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/polder-set.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/settings.mp", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(dir); /* nothing else is left */
}

static void keep(const char *section, const char *key, const char *value)
{
    struct setting s = {0};
    strcpy(s.section, section);
    strcpy(s.key, key);
    strcpy(s.value, value);
    assert_int_equal(settings_save(dir, &s, 1), 0);
}

static const char *kept(const char *section, const char *key)
{
    static char value[SETTINGS_VALUE];
    struct settings all;
    *value = 0;
    assert_int_equal(settings_read(dir, &all), 0);
    for (size_t i = 0; i < all.n; i++)
        if (!strcmp(all.at[i].section, section) && !strcmp(all.at[i].key, key))
            strcpy(value, all.at[i].value);
    settings_free(&all);
    return value;
}

static void what_is_kept_is_there_until_it_is_forgotten(void **state)
{
    (void)state;
    assert_string_equal(kept("cache", "ttl"), "");
    keep("cache", "ttl", "10s");
    keep("upstream api", "127.0.0.1:1", "0");
    keep("cache", "max_items", "5");
    keep("cache", "ttl", "20s");
    assert_string_equal(kept("cache", "ttl"), "20s");
    assert_string_equal(kept("upstream api", "127.0.0.1:1"), "0");
    assert_int_equal(settings_forget(dir, "cache", "ttl"), 0);
    assert_string_equal(kept("cache", "ttl"), "");
    assert_string_equal(kept("cache", "max_items"), "5");
    assert_int_equal(settings_forget(dir, "cache", NULL), 0);
    assert_string_equal(kept("cache", "max_items"), "");
    assert_string_equal(kept("upstream api", "127.0.0.1:1"), "0");
    assert_int_equal(settings_forget(dir, "no such", NULL), 0);
}

static void a_file_that_is_not_ours_is_not_believed_and_then_replaced(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "\x81",
                                      "\x91\x93\xa1\x61\xa1\x62",
                                      "\x91\x92\xa1\x61\xa1\x62",
                                      "\x91\x93\xa0\xa1\x62\xa1\x63",
                                      "\xdd\xff\xff\xff\xff",
                                      "text"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct settings all;
        FILE *f = fopen(file, "w");
        fputs(bad[i], f);
        fclose(f);
        assert_int_not_equal(settings_read(dir, &all), 0);
        assert_int_equal(all.n, 0);
        settings_free(&all);
        assert_int_equal(settings_forget(dir, "cache", NULL), 0);
        keep("cache", "ttl", "1s");
        assert_string_equal(kept("cache", "ttl"), "1s");
    }
    unlink(file);
    assert_int_equal(mkfifo(file, 0600), 0); /* is not waited for */
    struct settings all;
    assert_int_not_equal(settings_read(dir, &all), 0);
    settings_free(&all);
}

static void what_does_not_fit_the_configuration_is_left_out(void **state)
{
    (void)state;
    struct config_upstream upstream = {.name = "api", .n_servers = 2};
    struct config_server server[2] = {{.address.text = "a:1", .index = 0, .upstream = &upstream},
                                      {.address.text = "b:1", .index = 1, .upstream = &upstream}};
    const struct config config = {.upstreams = &upstream, .n_upstreams = 1};
    static struct runtime_values values;
    upstream.servers = server;
    values.server[0].weight = values.server[1].weight = 100;
    values.cache.ttl_ms = 1;
    values.cache.max_items = 7;
    keep("upstream api", "b:1", "0");
    keep("upstream api", "gone:1", "5");
    keep("upstream other", "a:1", "5");
    keep("upstream api", "a:1", "many");
    keep("cache", "ttl", "10s");
    keep("cache", "max_items", "0");
    keep("cache", "colour", "blue");
    keep("websocket", "interval", "5s");
    assert_int_equal(settings_load(dir, &config, &values), 0);
    assert_int_equal(values.server[0].weight, 100);
    assert_int_equal(values.server[1].weight, 0);
    assert_int_equal(values.cache.ttl_ms, 10000);
    assert_int_equal(values.cache.max_items, 7);
}

static void hold(const struct config *config, const char *section, const char *key, bool yes)
{
    struct settings all;
    assert_int_equal(settings_read(dir, &all), 0);
    for (size_t i = 0; i < all.n; i++)
        if (!strcmp(all.at[i].section, section) && !strcmp(all.at[i].key, key))
            assert_int_equal(settings_holds(config, &all.at[i]), yes);
    settings_free(&all);
}

static void what_the_file_overrules_does_not_hold_and_is_forgotten(void **state)
{
    (void)state;
    static const struct {
        const char *section, *key;
    } kept_keys[] = {{"cache", "ttl"},
                     {"upstream api", "a:1"},
                     {"websocket", "timeout"},
                     {"websocket", "connect_rate"},
                     {"websocket", "origins"},
                     {"websocket /ws", "timeout"},
                     {"websocket /ws", "origins"}};
    enum { N = sizeof kept_keys / sizeof *kept_keys };
    struct config_upstream upstream = {.name = "api", .n_servers = 1};
    struct config_server server = {.address.text = "a:1", .weight = 1, .upstream = &upstream};
    const char *origins[] = {"https://a.example", "https://b.example"};
    struct config_websocket own = {.timeout_ms = 10};
    struct config_route route = {.pattern = "/ws", .websocket = &own};
    struct config config = {.upstreams = &upstream,
                            .n_upstreams = 1,
                            .routes = &route,
                            .n_routes = 1,
                            .websocket = {.origins = origins, .n_origins = 1}};
    upstream.servers = &server;
    for (size_t i = 0; i < N; i++) {
        struct setting s = {.value = "1"};
        strcpy(s.section, kept_keys[i].section);
        strcpy(s.key, kept_keys[i].key);
        settings_base(&config, &s);
        assert_int_not_equal(*s.base, 0);
        assert_int_equal(settings_save(dir, &s, 1), 0);
    }
    keep("cache", "max_items", "5"); /* as earlier versions did: it always holds */
    for (size_t i = 0; i < N; i++)
        hold(&config, kept_keys[i].section, kept_keys[i].key, true);
    own.timeout_ms = 20; /* it is not the route's own */
    hold(&config, "websocket /ws", "timeout", true);
    config.cache.value.ttl_ms = server.weight = 7;
    config.websocket.timeout_ms = 8;
    config.websocket.connect_rate = 0.5;
    config.websocket.n_origins = 2;
    own.set = CONFIG_BIT(WEBSOCKET, timeout) | CONFIG_BIT(WEBSOCKET, origins);
    for (size_t i = 0; i < N; i++)
        hold(&config, kept_keys[i].section, kept_keys[i].key, false);
    assert_int_equal(settings_forget_overruled(dir, &config), 0);
    for (size_t i = 0; i < N; i++)
        assert_string_equal(kept(kept_keys[i].section, kept_keys[i].key), "");
    assert_string_equal(kept("cache", "max_items"), "5");
}

static void the_file_is_bounded(void **state)
{
    (void)state;
    struct setting *many = calloc(SETTINGS_MAX + 1, sizeof *many);
    for (unsigned i = 0; i <= SETTINGS_MAX; i++) {
        snprintf(many[i].section, sizeof many[i].section, "upstream %u", i);
        strcpy(many[i].key, "a:1");
        strcpy(many[i].value, "1");
    }
    assert_int_equal(settings_save(dir, many, SETTINGS_MAX), 0);
    assert_int_equal(settings_save(dir, many, SETTINGS_MAX), 0);
    assert_int_equal(settings_save(dir, many, SETTINGS_MAX + 1), -ENOSPC);
    assert_string_equal(kept("upstream 1023", "a:1"), "1");
    free(many);
}

static const char *set(struct runtime_cache *cache, const char *key, const char *text)
{
    return config_live_set(config_live_row(CONFIG_SECTION_CACHE, key), cache, text);
}

static void values_of_the_cache_say_what_would_be_right(void **state)
{
    (void)state;
    struct runtime_cache cache = {.ttl_ms = 5};
    assert_string_equal(set(&cache, "max_items", "0"), "a whole number between 1 and 16777216");
    assert_string_equal(set(&cache, "max_bytes", "1"), "a size between 1M and 1T");
    assert_non_null(strstr(set(&cache, "ttl", "soon"), "a duration such as"));
    assert_null(config_live_row(CONFIG_SECTION_CACHE, "colour"));
    assert_null(config_live_row(CONFIG_SECTION_CACHE, "share")); /* a reload changes it */
    assert_int_equal(cache.ttl_ms, 5);
    assert_null(set(&cache, "ttl", "heuristic"));
    assert_true(cache.ttl_ms == RUNTIME_TTL_HEURISTIC);
    assert_null(set(&cache, "ttl", "1m"));
    assert_int_equal(cache.ttl_ms, 60000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_kept_is_there_until_it_is_forgotten),
        TEST(a_file_that_is_not_ours_is_not_believed_and_then_replaced),
        TEST(what_does_not_fit_the_configuration_is_left_out),
        TEST(what_the_file_overrules_does_not_hold_and_is_forgotten),
        TEST(the_file_is_bounded),
        TEST(values_of_the_cache_say_what_would_be_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
