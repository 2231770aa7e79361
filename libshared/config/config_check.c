/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_check: what is valid, each value by itself, and does not work together: warnings, and an
 * error where it could never work. What depends on the machine is polderd's to look at.
 */
#include "libshared/config/config_build.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* "{id}", "<id>" or ":id" in one part of a path; its length, 0: there is none. */
static size_t parameter_at(const char *part)
{
    const size_t len = strcspn(part, "/*");
    if (*part == ':')
        return len > 1 && (isalpha((unsigned char)part[1]) || part[1] == '_') ? len : 0;
    const char *open = *part == '{' ? "}" : *part == '<' ? ">" : NULL;
    const char *close = open ? memchr(part, *open, len) : NULL;
    return close ? (size_t)(close - part) + 1 : 0;
}

static void check_pattern(struct config_parse *p, const struct config_route *r)
{
    for (const char *slash = strchr(r->pattern, '/'); slash; slash = strchr(slash + 1, '/')) {
        const size_t len = parameter_at(slash + 1);
        if (!len)
            continue;
        config_warn(
            p, r->line,
            "route \"%.200s\": \"%.*s\" is taken literally; \"%.*s*\" would match what stands "
            "there",
            r->pattern, (int)len, slash + 1, (int)(slash + 1 - r->pattern), r->pattern);
        return;
    }
}

static void check_costs(struct config_parse *p, const struct config_route *r)
{
    for (uint32_t i = 0; i < r->n_limits; i++)
        if (r->cost > r->limits[i]->value.requests && r->limits[i]->value.requests)
            config_warn(p, r->line,
                        "route \"%.200s\": cost %u is more than limit \"%s\" admits in a window "
                        "(%u): every request is refused",
                        r->pattern, r->cost, r->limits[i]->name, r->limits[i]->value.requests);
}

/* Where the top level shares, each route does: one line says it. */
static void check_shared(struct config_parse *p, const struct config *c)
{
    for (uint32_t i = 0; !c->fleet.n_store && i < c->n_routes; i++) {
        const struct config_route *r = &c->routes[i];
        if (!r->cache || !r->cache->shared)
            continue;
        config_warn(p, r->line,
                    "route \"%.200s\": cache.shared does nothing without a section fleet, which "
                    "names the store",
                    r->pattern);
        return;
    }
}

static void check_routes(struct config_parse *p, const struct config *c)
{
    if (c->n_routes == 0)
        config_warn(p, 0,
                    "there is no route: every request gets 404; route \"/*\" { upstream = "
                    "\"NAME\" } takes all");
    for (uint32_t i = 0; i < c->n_routes; i++) {
        check_pattern(p, &c->routes[i]);
        check_costs(p, &c->routes[i]);
    }
    check_shared(p, c);
}

static void check_weights(struct config_parse *p, const struct config *c)
{
    for (uint32_t i = 0; i < c->n_upstreams; i++) {
        const struct config_upstream *u = &c->upstreams[i];
        uint64_t sum = 0;
        for (uint32_t k = 0; k < u->n_servers; k++)
            sum += u->servers[k].weight;
        if (u->n_servers && !sum)
            config_warn(p, u->line,
                        "upstream \"%s\": the weight of each server is 0: every request gets 503",
                        u->name);
    }
}

static bool is_used(const struct config *c, const struct config_limit *limit)
{
    for (uint32_t i = 0; i < c->n_routes; i++)
        for (uint32_t k = 0; k < c->routes[i].n_limits; k++)
            if (c->routes[i].limits[k] == limit)
                return true;
    return false;
}

/* Clients are addresses: no other value that is exempt is ever met. */
static void check_exempt(struct config_parse *p, const struct config_limit *l)
{
    if (l->n_key == 1 && l->key[0].kind == CONFIG_KEY_CLIENT && l->n_exempt_values)
        config_warn(p, l->line,
                    "limit \"%s\": exempt: \"%.100s\" is no network, and the key is the client's "
                    "address; key = \"header:NAME\" and the like have values to exempt",
                    l->name, l->exempt_values[0]);
}

static void check_limits(struct config_parse *p, const struct config *c)
{
    for (uint32_t i = 0; i < c->n_limits; i++)
        check_exempt(p, &c->limits[i]);
    for (uint32_t i = 0; i < c->n_limits && c->n_routes; i++)
        if (!is_used(c, &c->limits[i]))
            config_warn(p, c->limits[i].line,
                        "limit \"%s\" limits nothing; limits = {\"%s\"} in a route would use it",
                        c->limits[i].name, c->limits[i].name);
}

static void check_listen(struct config_parse *p, const struct config *c)
{
    cfg_t *ops = config_section(p->root, "ops");
    for (uint32_t i = 0; i < c->n_listen && c->ops_listen.len; i++)
        if (c->listen[i].len == c->ops_listen.len &&
            !memcmp(&c->listen[i].sa, &c->ops_listen.sa, c->ops_listen.len))
            config_complain(p, config_line_of(p, ops, "listen"),
                            "ops.listen: \"%.100s\" is in listen too; expected another port",
                            c->ops_listen.text);
}

void config_check(struct config_parse *p, const struct config *c)
{
    check_listen(p, c);
    check_weights(p, c);
    check_limits(p, c);
    check_routes(p, c);
}
