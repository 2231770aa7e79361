/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_process: what is about the processes themselves: addresses, directories, files, ops,
 * admin and telemetry. */
#include "libshared/config/config_build.h"
#include "polder/override.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* localhost is both loopback addresses; a host may lack the other one. */
static void add_localhost6(struct config_parse *p, struct config *c, const char *text)
{
    static const char name[] = "localhost:";
    char other[32];
    const char *why;
    if (strncmp(text, name, sizeof name - 1) != 0)
        return;
    snprintf(other, sizeof other, "[::1]:%s", text + sizeof name - 1);
    for (uint32_t i = 0; i < cfg_size(p->root, "listen"); i++)
        if (!strcmp(cfg_getnstr(p->root, "listen", i), other))
            return;
    struct config_address *a = &c->listen[c->n_listen];
    if (config_address_parse(p->arena, other, false, a, &why) == 0) {
        a->may_lack = true;
        c->n_listen++;
    }
}

void config_build_listen(struct config_parse *p, struct config *c)
{
    const uint32_t n = cfg_size(p->root, "listen");
    const char *why, *initial = config_rows[CONFIG_TOP_listen].initial;
    if (n > CONFIG_LISTEN_MAX) {
        config_complain(p, config_line_of(p, p->root, "listen"),
                        "listen: %u addresses; expected at most %d", n, CONFIG_LISTEN_MAX);
        return;
    }
    c->listen = config_take(p, (size_t)2 * (n ? n : 1), sizeof *c->listen);
    for (uint32_t i = 0; c->listen && i < (n ? n : 1); i++) {
        const char *text = n ? cfg_getnstr(p->root, "listen", i) : initial;
        const int line = config_line_of_nth(p, p->root, "listen", i);
        struct config_address *a = &c->listen[c->n_listen++];
        for (uint32_t k = 0; k + 1 < c->n_listen; k++)
            if (!strcmp(c->listen[k].text, text))
                config_complain(p, line, "listen: \"%s\" is listed twice", text);
        if (config_address_parse(p->arena, text, false, a, &why))
            config_complain(p, line, "listen: \"%.100s\" is wrong; expected %s", text, why);
        else if (c->n_listen + (n ? n : 1) - i <= CONFIG_LISTEN_MAX)
            add_localhost6(p, c, text);
    }
}

void config_build_resolver(struct config_parse *p, struct config *c)
{
    const uint32_t n = cfg_size(p->root, "resolver");
    const char *why = NULL;
    if (n > CONFIG_RESOLVER_MAX) {
        config_complain(p, config_line_of(p, p->root, "resolver"),
                        "resolver: %u addresses; expected at most %d", n, CONFIG_RESOLVER_MAX);
        return;
    }
    c->resolver = config_take(p, n, sizeof *c->resolver);
    for (uint32_t i = 0; c->resolver && i < n; i++) {
        struct config_address *a = &c->resolver[i];
        const char *text = cfg_getnstr(p->root, "resolver", i);
        const int line = config_line_of_nth(p, p->root, "resolver", i);
        if (config_address_parse(p->arena, text, false, a, &why) || a->sa.ss_family == AF_UNIX)
            config_complain(p, line,
                            "resolver: \"%.100s\" is wrong; expected an address such as "
                            "\"127.0.0.53:53\" or \"[::1]:53\"",
                            text);
        c->n_resolver++;
    }
}

static uint32_t cores(void)
{
    cpu_set_t set;
    const int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > CONFIG_WORKERS_MAX ? CONFIG_WORKERS_MAX : (uint32_t)n;
}

/* Workers that cannot open it would die, again and again. */
static void check_log_path(struct config_parse *p, const char *path)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX];
    if (!*path)
        return;
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    if (stat(directory, &st) || !S_ISDIR(st.st_mode))
        config_complain(p, config_line_of(p, p->root, "access_log"),
                        "access_log: there is no directory %s; expected a file in one that "
                        "exists",
                        directory);
    else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        config_complain(p, config_line_of(p, p->root, "access_log"),
                        "access_log: %s is a directory; expected a file", path);
}

/* Names in the form that override.h compares. */
static void put_drop_header(struct config_parse *p, struct str *out, const char *name)
{
    char *text = config_arena_strdup(p->arena, name);
    for (char *at = text; at && *at; at++)
        *at = *at == '_' ? '-' : *at >= 'A' && *at <= 'Z' ? (char)(*at | 0x20) : *at;
    *out = (struct str){text, text ? strlen(text) : 0};
}

static void build_drop_headers(struct config_parse *p, struct config *c)
{
    uint32_t n, n_defaults;
    const char *const *names = config_strings_of(p, p->root, "drop_headers", &n);
    const struct str *defaults = override_defaults(&n_defaults);
    if (n == 1 && !strcmp(names[0], "off"))
        return;
    config_check_each(p, p->root, "drop_headers", names, n, config_is_field_pattern,
                      "the name of a header field, which may end in *, or \"off\" alone");
    const uint32_t count = n ? n : n_defaults;
    struct str *list = config_take(p, count, sizeof *list);
    for (uint32_t i = 0; list && i < count; i++)
        put_drop_header(p, &list[i], n ? names[i] : defaults[i].at);
    c->drop_headers = list;
    c->n_drop_headers = list ? count : 0;
}

/* A TLS terminator on the same host is a client from loopback: its clients see what loopback may
 * see, unless the address that it forwards is trusted. */
static void check_telemetry(struct config_parse *p, cfg_t *telemetry, const struct config *c)
{
    struct clientip loopback4, loopback6;
    clientip_parse("127.0.0.1", 9, &loopback4);
    clientip_parse("::1", 3, &loopback6);
    if (c->n_trusted_proxies || c->proxy_protocol ||
        (!clientip_in(&loopback4, c->telemetry_allow, c->n_telemetry_allow) &&
         !clientip_in(&loopback6, c->telemetry_allow, c->n_telemetry_allow)))
        return;
    config_warn(p, config_line_of(p, telemetry, "allow"),
                "telemetry: allow holds loopback and trusted_proxies is empty: behind a proxy on "
                "this host every client may read it; name the proxy in trusted_proxies, or leave "
                "telemetry to ops.listen");
}

static void build_access_log(struct config_parse *p, struct config *c)
{
    const struct config_row *row = &config_rows[CONFIG_TOP_access_log];
    const char *stated = config_stated(p->root, row->key);
    const char *log = config_arena_strdup(p->arena, stated ? stated : row->initial),
               *colon = log ? strchr(log, ':') : NULL;
    uint64_t number = CONFIG_LOG_OFF;
    if (log)
        config_value(row, log, &number, NULL);
    c->access_log = (enum config_access_log)number;
    c->access_log_path = colon ? colon + 1 : "";
    check_log_path(p, c->access_log_path);
}

static bool is_host_name(const char *text)
{
    const size_t len = strlen(text);
    return len && len <= 253 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz"
                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == len;
}

static void build_ops(struct config_parse *p, struct config *c)
{
    cfg_t *ops = config_section(p->root, "ops");
    const char *why, *text = config_stated(ops, "listen");
    if (text) /* what is wrong with it has been complained of */
        config_address_parse(p->arena, text, false, &c->ops_listen, &why);
    config_read(p, ops, CONFIG_SECTION_OPS, c);
    config_check_each(p, ops, "hosts", c->ops_hosts, c->n_ops_hosts, is_host_name,
                      "a name without scheme and port, such as \"ops.example.org\"");
}

static void build_telemetry(struct config_parse *p, struct config *c)
{
    cfg_t *telemetry = config_section(p->root, "telemetry");
    config_read(p, telemetry, CONFIG_SECTION_TELEMETRY, c);
    if (telemetry)
        check_telemetry(p, telemetry, c);
    else
        c->telemetry_path = "";
}

void config_build_process(struct config_parse *p, struct config *c)
{
    cfg_t *r = p->root;
    c->path = config_arena_strdup(p->arena, p->path);
    const uint64_t stated = config_read(p, r, CONFIG_SECTION_TOP, c);
    c->connections_wanted =
        stated & CONFIG_BIT(TOP, max_connections) ? c->max_connections : CONFIG_CONNECTIONS_MIN;
    c->workers = c->workers ? c->workers : cores();
    if (strlen(c->runtime_dir) > 80)
        config_complain(p, config_line_of(p, r, "runtime_dir"),
                        "runtime_dir: is too long for UNIX sockets; expected at most 80 bytes");
    build_drop_headers(p, c);
    if (*c->via && (strlen(c->via) > 64 || !field_is_token((struct str){c->via, strlen(c->via)})))
        config_complain(p, config_line_of(p, r, "via"),
                        "via: \"%.100s\" is wrong; expected at most 64 letters, digits, '-', '_' "
                        "and '.'",
                        c->via);
    build_access_log(p, c);
    build_ops(p, c);
    config_read(p, config_section(r, "admin"), CONFIG_SECTION_ADMIN, c);
    build_telemetry(p, c);
    c->line = (struct config_lines){
        .user = config_line_of(p, r, "user"),
        .access_log = config_line_of(p, r, "access_log"),
        .state_dir = config_line_of(p, r, "state_dir"),
        .runtime_dir = config_line_of(p, r, "runtime_dir"),
        .admin_group = config_line_of(p, config_section(r, "admin"), "group"),
        .listen = config_line_of(p, r, "listen"),
        .ops_listen = config_line_of(p, config_section(r, "ops"), "listen"),
    };
}
