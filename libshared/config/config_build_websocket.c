/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_build_websocket: the websocket section, whose values are the defaults of routes, and a
 * route's own, where what it states replaces them, upwards too. Bounds over all routes are keys of
 * their own.
 */
#include "libshared/config/config_build.h"

#include <string.h>

const char *const config_websocket_keys[CONFIG_WS_KEYS] = {
    [CONFIG_WS_HEARTBEAT] = "heartbeat",
    [CONFIG_WS_INTERVAL] = "interval",
    [CONFIG_WS_TIMEOUT] = "timeout",
    [CONFIG_WS_MAX_CONNECTIONS] = "max_connections",
    [CONFIG_WS_MAX_PER_CLIENT] = "max_per_client",
    [CONFIG_WS_MAX_MESSAGE] = "max_message",
    [CONFIG_WS_MAX_MESSAGE_BACKEND] = "max_message_backend",
    [CONFIG_WS_CONNECT_RATE] = "connect_rate",
    [CONFIG_WS_ORIGINS] = "origins",
};

bool config_is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    return !strcmp(text, "null") ||
           (host && host > text && host[3] && strcspn(host + 3, "/?#* ") == strlen(host + 3));
}

static void read_values(struct config_parse *p, cfg_t *s, struct config_websocket *w)
{
    *w = (struct config_websocket){
        .heartbeat = (enum config_heartbeat)config_number_of(s, "websocket", "heartbeat"),
        .interval_ms = (uint32_t)config_number_of(s, "websocket", "interval"),
        .timeout_ms = (uint32_t)config_number_of(s, "websocket", "timeout"),
        .max_connections = (uint32_t)config_number_of(s, "websocket", "max_connections"),
        .max_per_client = config_stated(s, "max_per_client")
                              ? (uint32_t)config_number_of(s, "websocket", "max_per_client")
                              : CONFIG_WS_HALF,
        .max_message = config_number_of(s, "websocket", "max_message"),
        .max_message_backend = config_number_of(s, "websocket", "max_message_backend"),
        .connect_rate = config_real_of(s, "websocket", "connect_rate"),
    };
    for (unsigned i = 0; i < CONFIG_WS_KEYS; i++)
        if (s && cfg_size(s, config_websocket_keys[i]))
            w->set |= 1u << i;
    w->origins = config_strings_of(p, s, "origins", &w->n_origins);
    config_check_each(p, s, "origins", w->origins, w->n_origins, config_is_origin,
                      "an origin such as \"https://app.example.org\"");
}

void config_build_websocket(struct config_parse *p, cfg_t *s, struct config *c)
{
    read_values(p, s, &c->websocket);
    c->websocket_max_connections_total =
        (uint32_t)config_number_of(s, "websocket", "max_connections_total");
    c->websocket_max_per_client_total =
        (uint32_t)config_number_of(s, "websocket", "max_per_client_total");
}

void config_websocket_inherit(struct config_websocket *w, const struct config_websocket *top)
{
    const struct config_websocket own = *w;
    const uint32_t set = w->set;
    *w = *top;
    w->set = set;
    if (set & 1u << CONFIG_WS_HEARTBEAT)
        w->heartbeat = own.heartbeat;
    if (set & 1u << CONFIG_WS_INTERVAL)
        w->interval_ms = own.interval_ms;
    if (set & 1u << CONFIG_WS_TIMEOUT)
        w->timeout_ms = own.timeout_ms;
    if (set & 1u << CONFIG_WS_MAX_CONNECTIONS)
        w->max_connections = own.max_connections;
    if (set & 1u << CONFIG_WS_MAX_PER_CLIENT)
        w->max_per_client = own.max_per_client;
    if (set & 1u << CONFIG_WS_MAX_MESSAGE)
        w->max_message = own.max_message;
    if (set & 1u << CONFIG_WS_MAX_MESSAGE_BACKEND)
        w->max_message_backend = own.max_message_backend;
    if (set & 1u << CONFIG_WS_CONNECT_RATE)
        w->connect_rate = own.connect_rate;
    if (set & 1u << CONFIG_WS_ORIGINS) {
        w->origins = own.origins;
        w->n_origins = own.n_origins;
    }
}

const struct config_websocket *config_build_route_websocket(struct config_parse *p, cfg_t *s,
                                                            const struct config_websocket *top)
{
    static const char *const top_only[] = {"max_connections_total", "max_per_client_total"};
    struct config_websocket *w = config_take(p, 1, sizeof *w);
    if (!w)
        return NULL;
    read_values(p, s, w);
    config_websocket_inherit(w, top);
    for (size_t i = 0; i < sizeof top_only / sizeof *top_only; i++)
        if (cfg_size(s, top_only[i]))
            config_complain(p, config_line_of(p, s, top_only[i]),
                            "%s belongs to the top-level websocket section, not to a route's",
                            top_only[i]);
    return w;
}
