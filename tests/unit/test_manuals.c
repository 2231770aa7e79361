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

static char page[131072];

static void read_page(const char *path)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
}

/* From the line that begins with `from` to the next one that begins with `to`, as a string of its own. */
static char *part_of(char *text, const char *from, const char *to)
{
    char *at = text;
    while (at && strncmp(at, from, strlen(from)) != 0)
        at = (at = strchr(at, '\n')) ? at + 1 : NULL;
    for (char *end = at; end && (end = strchr(end, '\n'));)
        if (!strncmp(++end, to, strlen(to))) {
            char *part = strndup(at, (size_t)(end - at));
            assert_non_null(part);
            return part;
        }
    return at ? strdup(at) : NULL;
}

static char *section_of(enum config_section section)
{
    char head[64];
    const char *name = section == CONFIG_SECTION_TOP      ? "Top level"
                       : section == CONFIG_SECTION_SERVER ? "server "
                                                          : config_section_names[section];
    snprintf(head, sizeof head, ".Ss %s", name);
    return part_of(page, head, ".Ss ");
}

/* Each in its section, with the value that it has where the file says nothing. */
static void polder_conf_5_has_every_key_and_its_default(void **state)
{
    (void)state;
    read_page("admin/man/polder.conf.5");
    for (const struct config_row *row = config_rows; row < config_rows + CONFIG_ROWS; row++) {
        char item[64], is[96];
        const char *section = config_section_names[row->section];
        char *in = section_of(row->section);
        if (!in)
            fail_msg("polder.conf(5) lacks the section %s", section);
        snprintf(item, sizeof item, ".It Ic %s\n", row->key);
        char *text = part_of(in, item, ".It Ic ");
        if (!text)
            fail_msg("polder.conf(5) lacks %s in %s", row->key, section);
        snprintf(is, sizeof is, "\n.Ql %s", row->initial ? row->initial : "");
        const char *said = strstr(text, "efault");
        said = said ? strstr(said, is) : NULL;
        if (row->initial && (!said || !strchr(" \n", said[strlen(is)])))
            fail_msg("polder.conf(5) does not say of %s in %s: default %s", row->key, section,
                     row->initial);
        free(text);
        free(in);
    }
}

/* "a , Ql b" is shown as one quotation within another. */
static void no_manual_quotes_within_quotes(void **state)
{
    (void)state;
    static const char *const pages[] = {
        "polder-cache.7",   "polder-dashboard.7",  "polder-internals.7", "polder-limits.7",
        "polder-metrics.7", "polder-runbook.7",    "polder.conf.5",      "polderctl.1",
        "polderd.8",        "polder-supervisor.8",
    };
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        char path[64];
        snprintf(path, sizeof path, "admin/man/%s", pages[i]);
        read_page(path);
        for (char *at = page, *next; at; at = next) {
            if ((next = strchr(at, '\n')))
                *next++ = 0;
            if (strstr(at, " , Ql ") || (!strncmp(at, ".Ql ", 4) && strstr(at, " , ")))
                fail_msg("%s: \"%s\": expected a line for each quotation", path, at);
        }
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
    read_page("admin/man/polderctl.1");
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
    read_page("admin/man/polder-metrics.7");
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        if (!strstr(page, items[i]))
            fail_msg("polder-metrics(7) lacks %s", items[i]);
}

static void complain(void *arg, const char *line)
{
    (void)arg;
    fail_msg("%s", line);
}

/* With its default, or as an example. */
static void the_shipped_configuration_shows_every_key(void **state)
{
    (void)state;
    read_page("systemd/polder.conf");
    for (const struct config_row *row = config_rows; row < config_rows + CONFIG_ROWS; row++) {
        const size_t len = strlen(row->key);
        const char *at = page;
        while ((at = strstr(at, row->key)) &&
               (!strchr(" {#\n", at[-1]) || at[len + strspn(at + len, " ")] != '='))
            at += len;
        if (!at)
            fail_msg("systemd/polder.conf lacks %s of %s", row->key,
                     config_section_names[row->section]);
    }
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
        cmocka_unit_test(polder_conf_5_has_every_key_and_its_default),
        cmocka_unit_test(no_manual_quotes_within_quotes),
        cmocka_unit_test(help_names_every_key_that_a_command_changes),
        cmocka_unit_test(polderctl_1_has_every_command),
        cmocka_unit_test(polder_metrics_7_has_every_name),
        cmocka_unit_test(the_shipped_configuration_shows_every_key),
        cmocka_unit_test(shipped_configurations_are_right),
        cmocka_unit_test(the_shipped_socket_listens_where_the_shipped_file_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
