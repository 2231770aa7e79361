/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_limits: limits and their exempt lists. */
#include "libshared/config/config_build.h"
#include "polder/exempt.h"

#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

static void build_exempt(struct config_parse *p, cfg_t *s, struct config_limit *l)
{
    uint32_t n;
    const char *const *all = config_strings_of(p, s, "exempt", &n);
    struct clientip_net *nets = config_take(p, n, sizeof *nets);
    const char **values = config_take(p, n, sizeof *values);
    for (uint32_t i = 0; nets && values && i < n; i++)
        if (clientip_net_parse(all[i], &nets[l->n_exempt_nets]) == 0)
            l->n_exempt_nets++;
        else if (exempt_is_meant_as_network(all[i]))
            config_complain(p, config_line_of_nth(p, s, "exempt", i),
                            "exempt: \"%s\" is wrong; expected a network such as \"10.0.0.0/8\"",
                            all[i]);
        else
            values[l->n_exempt_values++] = all[i];
    l->exempt_nets = nets;
    l->exempt_values = values;
}

static void check_scope(struct config_parse *p, cfg_t *s, const struct config_limit *l)
{
    if (l->scope == CONFIG_SCOPE_FLEET && !cfg_size(p->root, "fleet"))
        config_complain(p, config_line_of(p, s, "scope"),
                        "limit \"%s\": scope = \"fleet\" needs a section fleet", l->name);
}

static void build_limit(struct config_parse *p, cfg_t *s, struct config_limit *l)
{
    const char *why;
    l->name = config_arena_strdup(p->arena, cfg_title(s));
    if (!l->name)
        return;
    l->id = XXH3_64bits(l->name, strlen(l->name));
    config_read(p, s, CONFIG_SECTION_LIMIT, l);
    for (uint32_t i = 0; i < l->n_key; i++)
        if (l->key[i].kind == CONFIG_KEY_IDENTITY)
            config_complain(
                p, config_line_of(p, s, "key"),
                "limit \"%s\": key = \"identity\" is for partitions; expected header:NAME, "
                "cookie:NAME or jwt:CLAIM",
                l->name);
    build_exempt(p, s, l);
    check_scope(p, s, l);
    if (!config_stated(s, "requests"))
        config_complain(p, l->line, "limit \"%s\" has no requests; expected requests = NUMBER",
                        l->name);
    else if (runtime_limit_check(&l->value, &why))
        config_complain(p, config_line_of(p, s, "requests"), "limit \"%s\": %s", l->name, why);
    config_check_name(p, "limit", l->name, l->line);
}

bool config_has_fleet_websockets(const struct config *c)
{
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket && (c->routes[i].websocket->scope == CONFIG_SCOPE_FLEET ||
                                       c->websocket.scope == CONFIG_SCOPE_FLEET))
            return true;
    return false;
}

void config_build_limits(struct config_parse *p, struct config *c)
{
    c->n_limits = cfg_size(p->root, "limit");
    c->limits = config_take(p, c->n_limits, sizeof *c->limits);
    for (uint32_t i = 0; c->limits && i < c->n_limits; i++) {
        c->limits[i].index = i;
        c->limits[i].line = config_section_line(p, "limit", 0, i);
        build_limit(p, cfg_getnsec(p->root, "limit", i), &c->limits[i]);
    }
}
