/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_build_websocket: the websocket section, with the defaults of routes, and a route's own,
 * whose values replace them, higher ones too. Bounds over all routes are keys of their own.
 */
#include "libshared/config/config_build.h"

#include <string.h>

bool config_is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    return !strcmp(text, "null") ||
           (host && host > text && host[3] && strcspn(host + 3, "/?#* ") == strlen(host + 3));
}

static void read_values(struct config_parse *p, cfg_t *s, struct config_websocket *w)
{
    w->max_per_client = CONFIG_WS_HALF;
    w->set = config_read(p, s, CONFIG_SECTION_WEBSOCKET, w);
    config_check_each(p, s, "origins", w->origins, w->n_origins, config_is_origin,
                      "an origin such as \"https://app.example.org\"");
    if (config_stated(s, "scope") && w->scope == CONFIG_SCOPE_FLEET && !cfg_size(p->root, "fleet"))
        config_complain(p, config_line_of(p, s, "scope"),
                        "websocket: scope = \"fleet\" needs a section fleet");
}

void config_build_websocket(struct config_parse *p, cfg_t *s, struct config *c)
{
    read_values(p, s, &c->websocket);
}

const struct config_websocket *config_build_route_websocket(struct config_parse *p, cfg_t *s,
                                                            const struct config_websocket *top)
{
    struct config_websocket *w = config_take(p, 1, sizeof *w);
    if (!w)
        return NULL;
    read_values(p, s, w);
    config_within_route(p, s, CONFIG_SECTION_WEBSOCKET, w, w->set, top);
    return w;
}
