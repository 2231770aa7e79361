/* SPDX-License-Identifier: BSD-2-Clause */
/* ops: where the ops pages are to be had: on ops.listen, and on runtime_dir/ops.sock for the
 * workers, which pass telemetry on to the public. */
#include "daemons/control/ops/ops.h"
#include "daemons/control/control.h"
#include "daemons/control/ops/live.h"
#include "daemons/control/ops/pages.h"
#include "daemons/net/http_server.h"
#include "daemons/net/listener.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

struct door {
    struct ops *ops;
    struct listener listener;
    enum page_origin origin;
    char text[128]; /* where it listens */
};

struct ops {
    struct control *control;
    struct http_server *server;
    struct door tcp, local;
};

static void on_accepted(void *arg, int fd, const struct sockaddr *peer)
{
    (void)peer;
    struct door *d = arg;
    http_server_add(d->ops->server, fd, d->origin);
}

/* Tried again each second. */
static void note_opened(struct door *d, int code)
{
    condition_set(d->ops->control->shared->conditions, COND_OPS_NOT_BOUND, d->text, code < 0,
                  code < 0 ? strerror(-code) : NULL, clock_real_ms());
}

static void follow_ops_listen(struct ops *ops)
{
    const struct config_address *address = &ops->control->config->ops_listen;
    const struct sockaddr_un *sun = (const struct sockaddr_un *)&address->sa;
    struct door *d = &ops->tcp;
    if (d->listener.open && address->len && !strncmp(d->text, address->text, sizeof d->text - 1))
        return;
    listener_close(&d->listener);
    if (!address->len)
        return;
    snprintf(d->text, sizeof d->text, "%s", address->text);
    note_opened(d,
                address->sa.ss_family == AF_UNIX
                    ? listener_open_path(&d->listener, sun->sun_path, SOCK_STREAM, 0666, (gid_t)-1)
                    : listener_open_address(&d->listener, &address->sa, address->len));
}

static void follow_local(struct ops *ops)
{
    struct door *d = &ops->local;
    if (d->listener.open)
        return;
    snprintf(d->text, sizeof d->text, "%s/ops.sock", ops->control->config->runtime_dir);
    note_opened(d, listener_open_path(&d->listener, d->text, SOCK_STREAM, 0600, (gid_t)-1));
}

static bool is_wanted(void *arg, const char *subject)
{
    const struct ops *ops = arg;
    return (ops->control->config->ops_listen.len && condition_subject_is(subject, ops->tcp.text)) ||
           condition_subject_is(subject, ops->local.text);
}

void ops_follow(struct ops *ops)
{
    follow_ops_listen(ops);
    follow_local(ops);
    condition_clear_except(ops->control->shared->conditions, COND_OPS_NOT_BOUND, is_wanted, ops,
                           clock_real_ms());
}

static void door_init(struct door *d, struct ops *ops, enum page_origin origin)
{
    d->ops = ops;
    d->origin = origin;
    listener_init(&d->listener, ops->control->loop, on_accepted, d);
}

struct ops *ops_new(struct control *c)
{
    struct ops *ops = calloc(1, sizeof *ops);
    struct http_server *server = ops ? http_server_new(c->loop, pages_answer, c) : NULL;
    if (!server || !(c->live = live_new())) {
        if (server)
            http_server_free(server);
        free(ops);
        return NULL;
    }
    ops->control = c;
    ops->server = server;
    door_init(&ops->tcp, ops, PAGE_OPS);
    door_init(&ops->local, ops, PAGE_PUBLIC);
    return ops;
}

void ops_free(struct ops *ops)
{
    listener_close(&ops->tcp.listener);
    listener_close(&ops->local.listener);
    http_server_free(ops->server);
    live_free(ops->control->live);
    ops->control->live = NULL;
    free(ops);
}

void ops_tick(struct ops *ops)
{
    live_follow(ops->control);
}
