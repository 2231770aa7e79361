/* SPDX-License-Identifier: BSD-2-Clause */
/* methods_settings: what --persist keeps of upstreams, cache and WebSockets; see settings.h. */
#include "daemons/control/control.h"
#include "polder/config.h"

#include <string.h>

static bool is_kept(struct control *c, const struct rpc_call *call, int code)
{
    if (code)
        admin_error(c, call->reply, RPC_FAILED,
                    "cannot write %s/settings.mp: %s; nothing is changed", c->config->state_dir,
                    strerror(-code));
    return code == 0;
}

bool settings_keep(struct control *c, const struct rpc_call *call, const struct setting *setting,
                   size_t n)
{
    return is_kept(c, call, settings_save(c->config->state_dir, setting, n));
}

bool settings_drop(struct control *c, const struct rpc_call *call, const char *section,
                   const char *key)
{
    return is_kept(c, call, settings_forget(c->config->state_dir, section, key));
}

bool settings_has(const struct control *c, const char *section, const char *key)
{
    struct settings all;
    bool has = false;
    settings_read(c->config->state_dir, &all);
    for (size_t i = 0; i < all.n && !has; i++)
        has = !strcmp(all.at[i].section, section) && !strcmp(all.at[i].key, key);
    settings_free(&all);
    return has;
}
