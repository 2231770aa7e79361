/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as what a store answers to a host that enters its fleet, renews its lease, reads the log and
 * writes to it: nothing of it is believed unseen, and no list is larger than what is allowed. */
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_store.h"
#include "polder/fleet.h"
#include "polder/inval.h"
#include "polder/ring.h"
#include "polder/shared.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The store is one link, to a socket of this process. */
struct fleet_store {
    struct store_link link;
    const struct fleet_store_ops *ops;
    void *arg;
};
static struct fleet_store store;
static struct config_store server = {.text = "fuzz"};

static void on_opened(void *arg)
{
    (void)arg;
}

static void on_failed(void *arg, const char *why)
{
    struct fleet_store *s = arg;
    s->ops->down(s->arg, why);
}

struct fleet_store *fleet_store_new(struct ev_loop *loop, const struct config_fleet *config,
                                    const char *const scripts[FLEET_SCRIPTS],
                                    const struct fleet_store_ops *ops, void *arg)
{
    static const struct store_link_ops link_ops = {on_opened, on_failed};
    (void)config, (void)scripts;
    store.ops = ops;
    store.arg = arg;
    store_link_init(&store.link, loop, 1000, &link_ops, &store);
    store_link_open(&store.link, &server, NULL);
    return &store;
}

void fleet_store_free(struct fleet_store *s)
{
    store_link_close(&s->link);
}

bool fleet_store_is_up(const struct fleet_store *s)
{
    return s->link.open && !s->link.failed;
}

const char *fleet_store_name(const struct fleet_store *s)
{
    (void)s;
    return "fuzz";
}

uint32_t fleet_store_at(const struct fleet_store *s)
{
    (void)s;
    return 0;
}

void fleet_store_move(struct fleet_store *s, uint32_t at, const char *why)
{
    (void)at;
    store_link_fail(&s->link, why);
}

void fleet_store_fail(struct fleet_store *s, const char *why)
{
    store_link_fail(&s->link, why);
}

bool fleet_store_run(struct fleet_store *s, enum fleet_script script, int n_keys, int argc,
                     const char **argv, const size_t *len, fleet_reply_fn done, void *arg)
{
    (void)script, (void)n_keys;
    return store_link_ask(&s->link, argc, argv, len, done, arg);
}

bool fleet_store_confirm(struct fleet_store *s, fleet_reply_fn done, void *arg)
{
    return store_link_ask(&s->link, 3, (const char *[]){"WAIT", "1", "500"}, NULL, done, arg);
}

bool fleet_store_follow(struct fleet_store *s, const struct fleet_streams *from,
                        fleet_reply_fn done, void *arg)
{
    const char *argv[] = {"XREAD", from->after[0], from->after[1]};
    return store_link_ask(&s->link, 3, argv, NULL, done, arg);
}

/* ---- the host ---- */

static uint64_t apply(void *arg, const struct fleet_entry *e)
{
    (void)arg, (void)e;
    abort(); /* no one has signed it */
}

static void remember(void *arg, const struct fleet_entry *e)
{
    apply(arg, e);
}

static void say(void *arg, const char *what)
{
    (void)arg;
    if (strlen(what) > 4096)
        abort();
}

static void changed(void *arg, bool connected, const char *why)
{
    (void)connected;
    say(arg, why);
}

static void renewed(void *arg, uint64_t took_ms)
{
    (void)arg, (void)took_ms;
}

static void moved(void *arg)
{
    (void)arg;
}

static void note(void *arg, unsigned worker, const struct ring_record *head, const char *payload)
{
    (void)arg, (void)worker, (void)head, (void)payload;
}

static void done(void *arg, const struct fleet_result *r)
{
    ++*(unsigned *)arg;
    say(NULL, r->missing_names);
}

static struct shared shared;
static int listener;

static void begin(void)
{
    static char path[64];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "/tmp/polder-fuzz-replies.%d", (int)getpid());
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    unlink(path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8))
        abort();
    server.path = path;
    signal(SIGPIPE, SIG_IGN);
    shared.fleet = calloc(1, sizeof *shared.fleet);
    shared.fleet_rings = calloc(PROC_WORKER_SLOTS, ring_size());
    shared.inval = calloc(1, inval_page_size());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct fleet_ops ops = {.apply = apply,
                                         .remember = remember,
                                         .apply_all = say,
                                         .changed = changed,
                                         .strange = say,
                                         .note = note,
                                         .stored = say,
                                         .renewed = renewed,
                                         .moved = moved};
    static const struct config_fleet config = {.name = "f", .host = "h", .secret = "s"};
    struct ev_loop *loop = ev_default_loop(0);
    struct fleet_view view;
    unsigned answered = 0;
    if (!shared.fleet)
        begin();
    if (len > 65536)
        return 0;
    fleet_page_open(shared.fleet, false, 1);
    struct fleet *f = fleet_new(loop, &config, &shared, &ops, NULL);
    const int fd = accept(listener, NULL, NULL);
    if (send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
        abort();
    store.ops->up(store.arg, "run");
    for (int i = 0; i < 12; i++) {
        ev_run(loop, EVRUN_NOWAIT);
        if (i == 4)
            fleet_tell(f, FLEET_URL, false, "h/x", 3, 0, done, &answered);
    }
    fleet_view(f, &view);
    fleet_free(f);
    close(fd);
    if (answered != 1)
        abort(); /* once, whatever has come */
    return 0;
}
