/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_upstreams: upstreams and their servers. */
#include "libshared/config/config_build.h"

#include <string.h>

/* It becomes part of a request line. */
static void check_health(struct config_parse *p, cfg_t *s, const struct config_upstream *u)
{
    for (const char *at = u->health; *at; at++)
        if (*at <= ' ' || *at > '~' || *at == '#') {
            config_complain(p, config_line_of(p, s, "health"),
                            "health: \"%.100s\" is wrong; expected a path and query of visible "
                            "ASCII without \"#\"",
                            u->health);
            return;
        }
}

static void build_servers(struct config_parse *p, cfg_t *s, struct config *c,
                          struct config_upstream *u, uint32_t parent)
{
    u->n_servers = cfg_size(s, "server");
    u->servers = config_take(p, u->n_servers, sizeof *u->servers);
    if (u->n_servers == 0)
        config_complain(
            p, u->line,
            "upstream \"%s\" has no server; expected at least one server \"HOST:PORT\" { }",
            u->name);
    for (uint32_t i = 0; u->servers && i < u->n_servers; i++) {
        cfg_t *one = cfg_getnsec(s, "server", i);
        struct config_server *v = &u->servers[i];
        const char *why, *text = cfg_title(one);
        v->line = config_section_line(p, "server", parent, i);
        config_read(p, one, CONFIG_SECTION_SERVER, v);
        v->upstream = u;
        v->index = c->n_servers++;
        if (config_address_parse(p->arena, text, true, &v->address, &why))
            config_complain(
                p, v->line,
                "server: \"%.200s\" is wrong; expected \"HOST:PORT\", \"[V6]:PORT\" "
                "or \"unix:/PATH\"%s",
                text, strstr(text, "://") ? ", without a scheme: backends are asked by HTTP" : "");
    }
}

/* Ordinal + 1 of the nth section of a kind among all at the top. */
static uint32_t top_ordinal(const struct config_parse *p, const char *name, uint32_t nth)
{
    uint32_t ordinal = 0;
    for (size_t i = 0; i < p->n_sections; i++) {
        if (p->sections[i].parent)
            continue;
        ordinal++;
        if (!strcmp(p->sections[i].row->name, name) && nth-- == 0)
            break;
    }
    return ordinal;
}

/* What is wrong with it has been complained of. */
static void build_sticky(struct config_parse *p, cfg_t *s, struct config *c,
                         struct config_upstream *u)
{
    const char *text = config_stated(s, "sticky");
    config_parse_sticky(p->arena, text ? text : "none", &u->sticky);
    c->sticky_cookie |= u->sticky.kind == CONFIG_KEY_COOKIE;
}

void config_build_upstreams(struct config_parse *p, struct config *c)
{
    c->n_upstreams = cfg_size(p->root, "upstream");
    c->upstreams = config_take(p, c->n_upstreams, sizeof *c->upstreams);
    for (uint32_t i = 0; c->upstreams && i < c->n_upstreams; i++) {
        cfg_t *s = cfg_getnsec(p->root, "upstream", i);
        struct config_upstream *u = &c->upstreams[i];
        u->index = i;
        u->line = config_section_line(p, "upstream", 0, i);
        u->name = config_arena_strdup(p->arena, cfg_title(s));
        config_check_name(p, "upstream", cfg_title(s), u->line);
        config_read(p, s, CONFIG_SECTION_UPSTREAM, u);
        check_health(p, s, u);
        build_sticky(p, s, c, u);
        build_servers(p, s, c, u, top_ordinal(p, "upstream", i));
    }
    if (c->upstreams && c->n_servers > RUNTIME_SERVERS_MAX)
        config_complain(p, c->upstreams[c->n_upstreams - 1].line,
                        "%u servers in all upstreams; expected at most %d", c->n_servers,
                        RUNTIME_SERVERS_MAX);
}
