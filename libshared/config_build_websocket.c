/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_websocket: the websocket section, and a route's, which states what is different
 * there.
 */
#include "libshared/config_build.h"

#include <string.h>

/* As browsers send it: "https://app.example.org:8443", no path. */
static bool is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    return !strcmp(text, "null") ||
           (host && host > text && host[3] && strcspn(host + 3, "/?#* ") == strlen(host + 3));
}

void config_build_websocket(struct config_parse *p, cfg_t *s, struct config_websocket *w,
                            const struct config_websocket *top)
{
    struct config_websocket own = {
        .heartbeat = (enum config_heartbeat)config_number_of(s, "websocket", "heartbeat"),
        .interval_ms = (uint32_t)config_number_of(s, "websocket", "interval"),
        .timeout_ms = (uint32_t)config_number_of(s, "websocket", "timeout"),
        .max_connections = (uint32_t)config_number_of(s, "websocket", "max_connections"),
        .max_per_client = (uint32_t)config_number_of(s, "websocket", "max_per_client"),
        .max_message = config_number_of(s, "websocket", "max_message"),
        .connect_rate = config_real_of(s, "websocket", "connect_rate"),
    };
    own.origins = config_strings_of(p, s, "origins", &own.n_origins);
    config_check_each(p, s, "origins", own.origins, own.n_origins, is_origin,
                      "an origin such as \"https://app.example.org\"");
    *w = top ? *top : own;
    if (config_stated(s, "heartbeat"))
        w->heartbeat = own.heartbeat;
    if (config_stated(s, "interval"))
        w->interval_ms = own.interval_ms;
    if (config_stated(s, "timeout"))
        w->timeout_ms = own.timeout_ms;
    if (config_stated(s, "max_connections"))
        w->max_connections = own.max_connections;
    if (config_stated(s, "max_per_client"))
        w->max_per_client = own.max_per_client;
    if (config_stated(s, "max_message"))
        w->max_message = own.max_message;
    if (config_stated(s, "connect_rate"))
        w->connect_rate = own.connect_rate;
    if (own.n_origins) {
        w->origins = own.origins;
        w->n_origins = own.n_origins;
    }
}
