/* SPDX-License-Identifier: BSD-2-Clause */
/* The manual knows every key, and the configurations that are shipped are right. */
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const keys[] = {
#define SECTION(...)
#define KEY(section, key, ...)  #key,
#define LIST(section, key, ...) #key,
#include "libshared/tables/config_keys.def"
#undef SECTION
#undef KEY
#undef LIST
};

static void polder_conf_5_has_every_key(void **state)
{
    (void)state;
    static char page[65536];
    FILE *f = fopen("admin/man/polder.conf.5", "r");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char item[64];
        snprintf(item, sizeof item, ".It Ic %s\n", keys[i]);
        if (!strstr(page, item))
            fail_msg("polder.conf(5) lacks %s", keys[i]);
    }
}

/* A key that a command changes is named where it is listed: in its help and in its manual. */
static void help_names_every_key_that_a_command_changes(void **state)
{
    (void)state;
    static const struct {
        enum config_section section;
        enum rpc_method method;
    } commands[] = {{CONFIG_SECTION_CACHE, RPC_METHOD_CACHE_SET},
                    {CONFIG_SECTION_LIMIT, RPC_METHOD_LIMIT_SET},
                    {CONFIG_SECTION_WEBSOCKET, RPC_METHOD_WS_SET}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *help = rpc_methods[commands[i].method].help;
        for (const struct config_row *row = NULL;
             (row = config_row_next(commands[i].section, row));)
            if (row->live && !strstr(help, row->key))
                fail_msg("\"%s\" lacks %s", help, row->key);
    }
}

static void polderctl_1_has_every_command(void **state)
{
    (void)state;
    static char page[65536];
    FILE *f = fopen("admin/man/polderctl.1", "r");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    for (size_t i = 0; i < RPC_METHODS; i++) {
        const struct rpc_method_info *m = &rpc_methods[i];
        char item[64];
        const int n =
            snprintf(item, sizeof item, ".It Ic %s%s%s", m->noun, *m->verb ? " " : "", m->verb);
        const char *at = strstr(page, item);
        if (!at || (at[n] != '\n' && at[n] != ' '))
            fail_msg("polderctl(1) lacks %s %s", m->noun, m->verb);
    }
}

#define METRIC_COUNTER(name)   ".It Ic polder_" name "_total\n"
#define METRIC_GAUGE(name)     ".It Ic polder_" name "\n"
#define METRIC_HISTOGRAM(name) METRIC_GAUGE(name)
#define METRIC_INFO(name)      ".It Ic polder_" name "_info\n"

static void polder_metrics_7_has_every_name(void **state)
{
    (void)state;
    static const char *const items[] = {
#define METRIC(id, name, type, unit, help) METRIC_##type(name),
#include "libshared/tables/metrics.def"
#undef METRIC
#define COUNTER(id, metric, labels, help) ".It Ic polder_" metric "_total\n",
#include "libshared/tables/counters.def"
#undef COUNTER
#define GAUGE(id, metric, labels, help) ".It Ic polder_" metric "\n",
#include "libshared/tables/gauges.def"
#undef GAUGE
#define SERIES(id, name, unit, what)        ".It Ic " name "\n",
#define SERVER_SERIES(id, name, unit, what) ".It Ic " name "\n",
#include "libshared/tables/history_series.def"
#undef SERIES
#undef SERVER_SERIES
    };
    static char page[131072];
    FILE *f = fopen("admin/man/polder-metrics.7", "r");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        if (!strstr(page, items[i]))
            fail_msg("polder-metrics(7) lacks %s", items[i]);
}

static void complain(void *arg, const char *line)
{
    (void)arg;
    fail_msg("%s", line);
}

static void shipped_configurations_are_right(void **state)
{
    (void)state;
    static const char *const files[] = {"systemd/polder.conf", "tests/demo/polder.conf"};
    char *memory = malloc(1 << 20);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct config_arena arena;
        config_arena_init(&arena, memory, 1 << 20);
        const struct config *c = config_load(&arena, files[i], complain, NULL);
        assert_non_null(c);
        if (i == 0 && c->n_warnings)
            fail_msg("%s", c->warnings[0]);
    }
    free(memory);
}

/* Who follows the README must not be on the network by surprise. */
static void the_shipped_socket_listens_where_the_shipped_file_says(void **state)
{
    (void)state;
    struct config_arena arena;
    char *memory = malloc(1 << 20), line[256];
    unsigned sockets = 0;
    config_arena_init(&arena, memory, 1 << 20);
    const struct config *c = config_load(&arena, "systemd/polder.conf", complain, NULL);
    assert_non_null(c);
    assert_int_equal(c->n_listen, 1);
    assert_int_equal(strncmp(c->listen[0].text, "127.0.0.1:", 10), 0);
    FILE *f = fopen("systemd/polder.socket", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "ListenStream=", 13))
            continue;
        line[strcspn(line, "\n")] = 0;
        assert_string_equal(line + 13, c->listen[0].text);
        sockets++;
    }
    fclose(f);
    assert_int_equal(sockets, 8);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(polder_conf_5_has_every_key),
        cmocka_unit_test(help_names_every_key_that_a_command_changes),
        cmocka_unit_test(polderctl_1_has_every_command),
        cmocka_unit_test(polder_metrics_7_has_every_name),
        cmocka_unit_test(shipped_configurations_are_right),
        cmocka_unit_test(the_shipped_socket_listens_where_the_shipped_file_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
