/* SPDX-License-Identifier: BSD-2-Clause */
/* memory_house: see memory_house.h. */
#include "memory_house.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/upstream.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/process.h"
#include "polder/shared.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TURNS_MAX 100000

static struct {
    struct memory_house house;
    struct shared shared;
    struct process process, keeper_process;
    pid_t keeper; /* 0: none */
    char dir[64];
} rig;

/* ---- the transport ---- */

static struct memory_peer *peer_of(const struct transport *t)
{
    struct memory_peer *p = t->state;
    assert_ptr_equal(p->transport, t);
    return p;
}

static ssize_t memory_peek(struct transport *t)
{
    struct memory_peer *p = peer_of(t);
    p->peeks++;
    return p->in_at < p->in_len ? 1 : p->eof ? 0 : -EAGAIN;
}

static ssize_t memory_read(struct transport *t, void *at, size_t room)
{
    struct memory_peer *p = peer_of(t);
    const size_t waits = p->in_len - p->in_at, n = waits < room ? waits : room;
    p->reads++;
    if (!waits)
        return p->eof ? 0 : -EAGAIN;
    memcpy(at, p->in + p->in_at, n);
    p->in_at += n;
    const char *behind = p->behind;
    p->behind = NULL;
    if (behind)
        memory_put(p, behind, strlen(behind));
    return (ssize_t)n;
}

static ssize_t memory_write(struct transport *t, const struct iovec *iov, unsigned n)
{
    struct memory_peer *p = peer_of(t);
    const size_t before = p->out_len;
    assert_false(p->finished);
    p->writes++;
    for (unsigned i = 0; i < n; i++) {
        size_t len = iov[i].iov_len;
        if (p->takes && len > p->room)
            len = p->room;
        assert_true(p->out_len + len <= MEMORY_BYTES);
        if (len)
            memcpy(p->out + p->out_len, iov[i].iov_base, len);
        p->out_len += len;
        p->room -= p->takes ? len : 0;
    }
    return (ssize_t)(p->out_len - before);
}

static void memory_want(struct transport *t, unsigned events)
{
    t->wanted = events;
    if (!(events & TRANSPORT_READ))
        ev_clear_pending(t->loop, &t->read);
    if (!(events & TRANSPORT_WRITE))
        ev_clear_pending(t->loop, &t->write);
}

static struct memory_peer *memory_new(struct transport *t)
{
    struct memory_peer *p = malloc(sizeof *p);
    assert_non_null(p);
    memset(p, 0, sizeof *p);
    p->transport = t;
    t->state = p;
    return p;
}

static int memory_connect(struct transport *t, const struct sockaddr *to, socklen_t len)
{
    struct memory_house *h = &rig.house;
    (void)to, (void)len;
    assert_true(h->n_backends < MEMORY_BACKENDS);
    struct memory_peer *p = memory_new(t);
    p->takes = h->backend_takes;
    h->backend[h->n_backends++] = p;
    return 0;
}

static int memory_established(struct transport *t)
{
    peer_of(t);
    return 0;
}

static void memory_finish(struct transport *t)
{
    peer_of(t)->finished = true;
}

static void memory_break_on_close(struct transport *t, bool on)
{
    peer_of(t)->breaks = on;
}

static void memory_close(struct transport *t)
{
    struct memory_peer *p = peer_of(t);
    memory_want(t, 0);
    p->transport = NULL;
}

static const struct transport_ops memory_transport = {
    .read = memory_read,
    .peek = memory_peek,
    .write = memory_write,
    .want = memory_want,
    .connect = memory_connect,
    .established = memory_established,
    .finish = memory_finish,
    .break_on_close = memory_break_on_close,
    .close = memory_close,
};

/* ---- turns of the loop ---- */

/* As the kernel would tell: again each turn, as long as it is so. */
static bool memory_feed(struct memory_peer *p)
{
    struct transport *t = p->transport;
    bool any = false;
    if (!t)
        return false;
    p->room = p->takes;
    if (t->wanted & TRANSPORT_READ && (p->in_at < p->in_len || p->eof)) {
        ev_feed_event(t->loop, &t->read, EV_READ);
        any = true;
    }
    if (t->wanted & TRANSPORT_WRITE) {
        ev_feed_event(t->loop, &t->write, EV_WRITE);
        any = true;
    }
    return any;
}

static bool memory_turn(struct memory_house *h)
{
    bool any = false;
    for (unsigned i = 0; i < h->n_backends; i++)
        any |= memory_feed(h->backend[i]);
    struct client *c;
    LIST_FOREACH (c, &h->w->clients->all, entry) /* told first: the last one fed is */
        any |= memory_feed(c->transport.state);
    ev_run(h->w->loop, EVRUN_NOWAIT);
    return any || !SLIST_EMPTY(&h->w->clients->ready);
}

void memory_settle(struct memory_house *h)
{
    unsigned quiet = 0;
    for (unsigned i = 0; quiet < 2; i++) {
        if (i == TURNS_MAX)
            fail_msg("it never comes to rest");
        quiet = memory_turn(h) ? 0 : quiet + 1;
    }
}

/* ---- peers ---- */

struct memory_peer *memory_client_with(struct memory_house *h, const char *bytes)
{
    struct clientip ip;
    assert_int_equal(clientip_parse("192.0.2.7", 9, &ip), 0);
    struct client *c = client_new(h->w, &memory_transport, -1, &ip);
    assert_non_null(c);
    struct memory_peer *p = memory_new(&c->transport);
    memory_put(p, bytes, strlen(bytes));
    client_begin(c);
    return p;
}

struct memory_peer *memory_client(struct memory_house *h)
{
    return memory_client_with(h, "");
}

void memory_put(struct memory_peer *p, const char *bytes, size_t len)
{
    assert_true(p->in_len + len <= MEMORY_BYTES);
    memcpy(p->in + p->in_len, bytes, len);
    p->in_len += len;
}

void memory_free(struct memory_house *h, struct memory_peer *client)
{
    if (client->transport)
        client_close(TRANSPORT_OWNER(client->transport, struct client, transport));
    memory_settle(h);
    free(client);
}

void memory_forget_closed(struct memory_house *h)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < h->n_backends; i++)
        if (h->backend[i]->transport)
            h->backend[kept++] = h->backend[i];
        else
            free(h->backend[i]);
    h->n_backends = kept;
}

/* ---- the house ---- */

static struct config_region *load(const char *config)
{
    char path[128];
    snprintf(path, sizeof path, "%s/polder.conf", rig.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "listen = {\"127.0.0.1:1\"}\nworkers = 1\nrequest_id = false\nstate_dir = \"%s\"\n"
            "runtime_dir = \"%s\"\nvia = \"here\"\n%s",
            rig.dir, rig.dir, config);
    fclose(f);
    if (config_region_load(rig.shared.region[0], path, 1, NULL))
        fail_msg("%s", rig.shared.region[0]->errors);
    unlink(path);
    return rig.shared.region[0];
}

static void keeper_start(void)
{
    struct proc_slot *slot = &rig.shared.proc->slot[PROC_SLOT_KEEPER];
    atomic_store(&slot->incarnation, 1);
    atomic_store(&slot->state, PROC_STARTING);
    rig.keeper_process = (struct process){.shared = &rig.shared,
                                          .region = rig.shared.region[0],
                                          .slot = PROC_SLOT_KEEPER,
                                          .incarnation = 1,
                                          .master_pid = getpid()};
    fflush(NULL);
    rig.keeper = fork();
    assert_true(rig.keeper >= 0);
    if (rig.keeper == 0)
        _exit(keeper_run(&rig.keeper_process));
    atomic_store(&slot->pid, (uint32_t)rig.keeper);
    for (unsigned i = 0; atomic_load(&slot->state) != PROC_READY; i++) {
        assert_true(i < 40000);
        usleep(500);
    }
}

static void keeper_stop(void)
{
    int status;
    if (!rig.keeper)
        return;
    kill(rig.keeper, SIGTERM);
    assert_int_equal(waitpid(rig.keeper, &status, 0), rig.keeper);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void worker_slot_open(void)
{
    struct proc_slot *slot = &rig.shared.proc->slot[PROC_SLOT_WORKER0];
    atomic_store(&slot->incarnation, 1);
    atomic_store(&slot->pid, (uint32_t)getpid());
    atomic_store(&slot->state, PROC_READY);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

struct memory_house *memory_house_open(const char *config, bool keeper)
{
    memset(&rig, 0, sizeof rig);
    strcpy(rig.dir, "/tmp/polder-memory-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    log_set_level((enum log_level)0); /* many backends fail here */
    const struct shared_options options = {
        .state_dir = rig.dir, .limit_entries = 4096, .no_caches = !keeper};
    assert_int_equal(shared_create(&rig.shared, &options), 0);
    rig.process = (struct process){.shared = &rig.shared,
                                   .region = load(config),
                                   .slot = PROC_SLOT_WORKER0,
                                   .incarnation = 1,
                                   .workers = 1,
                                   .access_log = -1,
                                   .channel = -1};
    worker_slot_open();
    if (keeper)
        keeper_start();
    struct worker *w = rig.house.w = worker_open(&rig.process);
    assert_non_null(w);
    assert_int_equal(accept_start(w), 0);
    for (uint32_t i = 0; i < w->config->n_servers; i++)
        w->upstreams->servers[i].transport = &memory_transport;
    return &rig.house;
}

void memory_house_close(struct memory_house *h)
{
    worker_close(h->w);
    keeper_stop();
    memory_forget_closed(h);
    assert_int_equal(h->n_backends, 0);
    shared_destroy(&rig.shared);
    assert_int_equal(nftw(rig.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}
