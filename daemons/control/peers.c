/* SPDX-License-Identifier: BSD-2-Clause */
/* peers: see peers.h. */
#include "daemons/control/peers.h"
#include "daemons/net/unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* With the second between two questions a hang is seen within 5 s. */
#define SUPERVISOR_MS 3500

static void client_init(struct rpc_client *client, struct ev_loop *loop, const char *dir,
                        const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    rpc_client_init(client, loop, path);
}

void peers_init(struct peers *p, struct ev_loop *loop, const char *runtime_dir)
{
    client_init(&p->keeper, loop, runtime_dir, "keeper.sock");
    client_init(&p->supervisor, loop, runtime_dir, "supervisor-rpc.sock");
    client_init(&p->worker, loop, runtime_dir, "worker.sock");
}

void peers_on_meeting(struct peers *p, void (*meet)(void *arg), void *arg)
{
    p->meet = meet;
    p->meet_arg = arg;
}

void peers_fini(struct peers *p)
{
    rpc_client_fini(&p->keeper);
    rpc_client_fini(&p->supervisor);
    rpc_client_fini(&p->worker);
}

const char *peers_name(const struct peers *p, const struct rpc_client *client)
{
    return client == &p->keeper ? "keeper" : client == &p->worker ? "worker" : "supervisor";
}

/* ---- the supervisor ---- */

bool peers_has_supervisor(const struct peers *p)
{
    return access(p->supervisor.path, F_OK) == 0;
}

static void on_notified(void *arg, enum rpc_error code, const char *message,
                        const msgpack_object *result)
{
    (void)arg, (void)code, (void)message, (void)result;
}

/* params: taken. */
static void tell_supervisor(struct peers *p, const char *method, struct rpc_out *params)
{
    rpc_out_end(params);
    if (peers_has_supervisor(p))
        rpc_client_call(&p->supervisor, method, params, PEERS_ANSWER_MS, on_notified, NULL);
    else
        rpc_out_fini(params);
}

static void params_begin(struct rpc_out *params)
{
    rpc_out_init(params);
    rpc_out_map(params, NULL);
}

void peers_tell_invalidated(struct peers *p, const char *what, const char *text, size_t len)
{
    struct rpc_out params;
    params_begin(&params);
    rpc_out_strn(&params, what, text, len);
    tell_supervisor(p, "ws.invalidated", &params);
}

void peers_tell_text(struct peers *p, const char *text, size_t len)
{
    struct rpc_out params;
    params_begin(&params);
    rpc_out_strn(&params, "text", text, len);
    tell_supervisor(p, "ws.broadcast", &params);
}

void peers_tell_weight(struct peers *p, const char *upstream, const char *server, uint32_t weight)
{
    struct rpc_out params;
    params_begin(&params);
    rpc_out_str(&params, "upstream", upstream);
    rpc_out_str(&params, "server", server);
    rpc_out_u64(&params, "weight", weight);
    tell_supervisor(p, "ws.weight", &params);
}

void peers_tell_log_level(struct peers *p, const char *level)
{
    struct rpc_out params;
    params_begin(&params);
    rpc_out_str(&params, "level", level);
    tell_supervisor(p, "log.level", &params);
}

/* A process that listens and does not answer hangs: the kernel alone lets us connect. */
static enum supervisor_state state_without_answer(const struct peers *p)
{
    const int fd = unix_socket_connect(p->supervisor.path);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || fd == -EAGAIN ? SUPERVISOR_HANGS : SUPERVISOR_MISSING;
}

static struct peers_websockets websockets_of(const msgpack_object *stats)
{
    return (struct peers_websockets){
        .known = true,
        .pid = (uint32_t)rpc_in_f64(stats, "pid", 0),
        .open = rpc_in_f64(stats, "activeConnections", 0),
        .max = rpc_in_f64(stats, "maxConnections", 0),
        .opened = rpc_in_f64(stats, "opened", 0),
        .refused = rpc_in_f64(stats, "refused", 0),
        .reaped = rpc_in_f64(stats, "reaped", 0),
        .messages = rpc_in_f64(stats, "messagesIn", 0) + rpc_in_f64(stats, "messagesOut", 0),
        .leaked_hours = rpc_in_f64(stats, "leakedHours", 0),
        .heartbeats = rpc_in_f64(stats, "heartbeatsSent", 0),
        .answered = rpc_in_f64(stats, "heartbeatsAnswered", 0),
    };
}

static void on_answer(void *arg, enum rpc_error code, const char *message,
                      const msgpack_object *result)
{
    struct peers *p = arg;
    (void)message;
    p->supervisor_requested = false;
    p->websockets = code ? (struct peers_websockets){0} : websockets_of(result);
    p->supervisor_state = code == RPC_UNAVAILABLE ? state_without_answer(p) : SUPERVISOR_ANSWERS;
    if (!p->websockets.known || p->websockets.pid == p->met || !p->meet)
        return;
    p->met = p->websockets.pid;
    p->meet(p->meet_arg);
}

void peers_ask_supervisor(struct peers *p)
{
    if (p->supervisor_requested)
        return;
    p->supervisor_requested = true;
    rpc_client_call(&p->supervisor, "ws.stats", NULL, SUPERVISOR_MS, on_answer, p);
}

/* ---- what its reaping is worth ---- */

struct leaked_question {
    void (*done)(void *arg, const struct peers_leaked *l);
    void *arg;
};

struct peers_leaked peers_leaked_of(const msgpack_object *ws_stats)
{
    if (!ws_stats)
        return (struct peers_leaked){.hours = -1};
    return (struct peers_leaked){rpc_in_f64(ws_stats, "leakedHours", -1),
                                 rpc_in_f64(ws_stats, "countedSeconds", 0)};
}

static void on_leaked(void *arg, enum rpc_error code, const char *message,
                      const msgpack_object *result)
{
    struct leaked_question *q = arg;
    const struct peers_leaked leaked = peers_leaked_of(code ? NULL : result);
    (void)message;
    q->done(q->arg, &leaked);
    free(q);
}

void peers_ask_leaked(struct peers *p, void (*done)(void *arg, const struct peers_leaked *l),
                      void *arg)
{
    struct leaked_question *q = malloc(sizeof *q);
    if (!q) {
        done(arg, &(struct peers_leaked){.hours = -1});
        return;
    }
    *q = (struct leaked_question){done, arg};
    rpc_client_call(&p->supervisor, "ws.stats", NULL, PEERS_ANSWER_MS, on_leaked, q);
}
