/* SPDX-License-Identifier: BSD-2-Clause */
/* persist: see persist.h. */
#include "daemons/control/methods/persist.h"
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "polder/config.h"

#include <string.h>

static bool is_kept(struct control *c, const struct rpc_call *call, int code)
{
    if (code)
        call_error(c, call->reply, RPC_FAILED,
                   "cannot write %s/settings.mp: %s; nothing is changed", c->config->state_dir,
                   strerror(-code));
    return code == 0;
}

bool persist_settings(struct control *c, const struct rpc_call *call, struct setting *setting,
                      size_t n)
{
    for (size_t i = 0; i < n; i++)
        settings_base(c->config, &setting[i]);
    return is_kept(c, call, settings_save(c->config->state_dir, setting, n));
}

bool persist_forget(struct control *c, const struct rpc_call *call, const char *section,
                    const char *key)
{
    return is_kept(c, call, settings_forget(c->config->state_dir, section, key));
}
