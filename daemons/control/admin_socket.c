/* SPDX-License-Identifier: BSD-2-Clause */
/* admin_socket: see admin_socket.h. */
#include "daemons/control/admin_socket.h"
#include "polder/config.h"
#include "polder/log.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static gid_t group_id(const struct config *config)
{
    const char *name = config->admin_group;
    const struct group *group = name[0] ? getgrnam(name) : NULL;
    if (name[0] && !group)
        log_warning("admin: there is no group \"%s\" (admin group in %s): only root and uid %u get "
                    "in",
                    name, config->path, (unsigned)geteuid());
    return group ? group->gr_gid : (gid_t)-1;
}

static void complain(struct admin_socket *s, const char *path, int code)
{
    char text[sizeof s->complaint];
    snprintf(text, sizeof text, "admin: cannot listen on %s: %s%s", path, strerror(-code),
             code == -EADDRINUSE ? "; another Polder answers there" : "");
    if (!strcmp(text, s->complaint))
        return;
    strcpy(s->complaint, text);
    log_error("%s", text);
}

void admin_socket_follow(struct admin_socket *s, struct ev_loop *loop, const struct config *config,
                         rpc_handler handler, void *arg)
{
    char path[128];
    if (s->server && s->config == config)
        return;
    snprintf(path, sizeof path, "%s/admin.sock", config->runtime_dir);
    if (s->server) {
        rpc_server_permit(s->server, config->admin_mode, group_id(config));
    } else {
        const int code = rpc_server_new(&s->server, loop, path, config->admin_mode,
                                        group_id(config), handler, arg);
        if (code) {
            complain(s, path, code);
            return;
        }
        s->complaint[0] = 0;
    }
    s->config = config;
}

void admin_socket_take_no_more(struct admin_socket *s)
{
    if (s->server)
        rpc_server_take_no_more(s->server);
}

void admin_socket_close(struct admin_socket *s)
{
    rpc_server_free(s->server);
    s->server = NULL;
}
