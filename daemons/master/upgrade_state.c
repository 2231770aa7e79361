/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upgrade_state: what a master leaves to the program that replaces it, and how that reads it. What
 * is written while no reload is under way is only what outlives such a moment: phases of a reload
 * are none of it. Further values are appended to a record, and read with state_more().
 */
#include "daemons/master/upgrade.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/state_block.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- write ---- */

static void put_shared(void *arg, const char *name, int fd)
{
    struct state_writer *w = arg;
    state_record(w, STATE_SHARED, 0);
    state_put_text(w, name);
    state_put_fd(w, fd, STATE_FD_SEGMENT);
}

static void put_service(struct state_writer *w, const struct master *m)
{
    const struct config *config = master_config(m);
    const struct proc_table *proc = m->shared.proc;
    state_record(w, STATE_SERVICE, 0);
    state_put_u64(w, (uint64_t)getpid());
    state_put_text(w, config->state_dir);
    state_put_text(w, config->runtime_dir);
    state_put_text(w, config->user);
    state_put_u64(w, m->current);
    state_put_u64(w, m->generations);
    state_put_fd(w, m->lock_fd, STATE_FD_FILE);
    state_put_u64(w, m->listeners.from_systemd);
    state_put_u64(w, (uint64_t)m->ws_process.pid);
    state_put_u64(w, atomic_load(&proc->started_ms));
    state_put_u64(w, atomic_load(&proc->log_level));
    state_put_u64(w, atomic_load(&proc->was_ready));
    state_put_u64(w, atomic_load(&proc->drained));
    state_put_u64(w, m->reload.seen);
    state_put_u64(w, m->upgrade.requested);
    state_put_u64(w, atomic_load(&proc->upgrade_done));
    state_put_u64(w, atomic_load(&proc->upgrades_ok));
    state_put_u64(w, atomic_load(&proc->upgrades_failed));
    state_put_u64(w, config->log_level);
    state_put_u64(w, m->hung_until_ms);
    state_put_u64(w, m->cut_until_ms);
    state_put_u64(w, atomic_load(&proc->upgrade_requested)); /* more, if one was asked for since */
    state_put_u64(w, config->limit_entries);
    state_put_fd(w, m->upgrade.text, STATE_FD_FILE);
}

static void put_generation(struct state_writer *w, const struct master *m, uint32_t region)
{
    const struct generation *g = &m->generation[region];
    state_record(w, STATE_GENERATION, 0);
    state_put_u64(w, region);
    state_put_u64(w, g->number);
    state_put_u64(w, g->workers);
    state_put_u64(w, g->since_ms);
    state_put_u64(w, g->state == GENERATION_ENDING);
    state_put_u64(w, g->hurried);
    state_put_u64(w, g->cut);
}

static void put_child(struct state_writer *w, const struct master *m, uint32_t slot)
{
    const struct master_child *c = &m->child[slot];
    state_record(w, STATE_CHILD, 0);
    state_put_u64(w, slot);
    state_put_u64(w, (uint64_t)c->pid);
    state_put_fd(w, c->channel, STATE_FD_CHANNEL);
    state_put_u64(w, c->wanted);
    state_put_u64(w, c->stopping);
    state_put_u64(w, c->aborted);
    state_put_u64(w, c->foreign);
    state_put_u64(w, c->region);
    state_put_u64(w, c->index);
    state_put_u64(w, c->failures);
    state_put_u64(w, c->started_ms);
    state_put_u64(w, c->respawn_ms);
    state_put_u64(w, c->kill_ms);
    state_put_u64(w, atomic_load(&m->shared.proc->slot[slot].incarnation));
}

static void put_listener(struct state_writer *w, const struct master_socket *s)
{
    state_record(w, STATE_LISTENER, 0);
    state_put_fd(w, s->fd, STATE_FD_LISTENER);
    state_put_u64(w, s->from_systemd);
    state_put_u64(w, s->number);
    state_put_bytes(w, &s->wanted, s->len);
    state_put_bytes(w, &s->bound, s->len);
}

int upgrade_state_write(const struct master *m)
{
    struct state_writer w;
    state_writer_open(&w, STATE_OF_POLDERD, POLDER_VERSION);
    put_service(&w, m);
    shared_each_left(&m->shared, put_shared, &w);
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        if (m->generation[r].state >= GENERATION_CURRENT)
            put_generation(&w, m, r);
    for (uint32_t slot = PROC_SLOT_KEEPER; slot < PROC_SLOTS; slot++)
        if (m->child[slot].pid || m->child[slot].wanted)
            put_child(&w, m, slot);
    for (uint32_t i = 0; i < m->listeners.count; i++)
        put_listener(&w, &m->listeners.socket[i]);
    running_values_write(m, &w);
    return state_writer_close(&w);
}

/* ---- read ---- */

static void get_text(struct state_reader *r, char *out, size_t size)
{
    const char *text = state_get_text(r);
    if (strlen(text) >= size)
        state_refuse(r, "is a text of %zu bytes, expected at most %zu", strlen(text), size - 1);
    else
        strcpy(out, text);
}

static uint32_t get_u32(struct state_reader *r, uint32_t max)
{
    return (uint32_t)state_get_number(r, max);
}

/* 0: none. */
static pid_t get_pid(struct state_reader *r)
{
    const pid_t pid = (pid_t)state_get_number(r, INT32_MAX);
    if (pid == 1 || (pid && pid == getpid()))
        state_refuse(r, "is process %d, which is no child", (int)pid);
    return pid;
}

static void get_service(struct state_reader *r, struct master *m, struct inherited *in)
{
    state_get_number(r, INT32_MAX); /* the writer's pid, for people with a debugger */
    get_text(r, in->state_dir, sizeof in->state_dir);
    get_text(r, in->runtime_dir, sizeof in->runtime_dir);
    get_text(r, in->user, sizeof in->user);
    m->current = get_u32(r, SHARED_REGIONS - 1);
    m->generations = get_u32(r, UINT32_MAX);
    m->lock_fd = state_get_fd(r, STATE_FD_FILE);
    m->listeners.from_systemd = get_u32(r, 1);
    in->ws_pid = get_pid(r);
    in->started_ms = state_get_u64(r);
    in->log_level = get_u32(r, LOG_LEVEL_DEBUG);
    in->was_ready = get_u32(r, 1);
    in->drained = get_u32(r, 1);
    in->reload_seen = get_u32(r, UINT32_MAX);
    in->upgrade_requested = get_u32(r, UINT32_MAX);
    in->upgrade_done = get_u32(r, UINT32_MAX);
    in->upgrades_ok = get_u32(r, UINT32_MAX);
    in->upgrades_failed = get_u32(r, UINT32_MAX);
    in->file_log_level = get_u32(r, LOG_LEVEL_DEBUG);
    m->hung_until_ms = state_get_u64(r);
    m->cut_until_ms = state_get_u64(r);
    in->upgrades_requested = get_u32(r, UINT32_MAX);
    if (state_more(r))
        in->limit_entries = get_u32(r, UINT32_MAX);
    if (state_more(r))
        in->text = state_get_fd(r, STATE_FD_FILE);
}

static void get_shared(struct state_reader *r, struct inherited *in)
{
    if (in->n_left == SHARED_LEFT_MAX) {
        state_refuse(r, "is one segment more than %u", (unsigned)SHARED_LEFT_MAX);
        return;
    }
    struct shared_left *left = &in->left[in->n_left];
    get_text(r, left->name, sizeof left->name);
    left->fd = state_get_fd(r, STATE_FD_SEGMENT);
    if (state_good(r) && left->fd >= 0)
        in->n_left++;
}

static void get_generation(struct state_reader *r, struct master *m)
{
    const uint32_t region = get_u32(r, SHARED_REGIONS - 1);
    struct generation *g = &m->generation[region];
    g->number = get_u32(r, UINT32_MAX);
    g->workers = get_u32(r, PROC_WORKER_SLOTS);
    g->since_ms = state_get_u64(r);
    const bool ending = get_u32(r, 1);
    g->hurried = get_u32(r, 1);
    g->cut = get_u32(r, UINT32_MAX);
    g->state = region == m->current ? GENERATION_CURRENT
               : ending             ? GENERATION_ENDING
                                    : GENERATION_DRAINING;
}

static void get_child(struct state_reader *r, struct inherited *in)
{
    const uint32_t slot = get_u32(r, PROC_SLOTS - 1);
    struct master_child *c = &in->child[slot];
    if (slot == PROC_SLOT_MASTER || c->pid || c->wanted)
        state_refuse(r, "is slot %u, which is in use", slot);
    c->pid = get_pid(r);
    c->channel = state_get_fd(r, STATE_FD_CHANNEL);
    c->wanted = get_u32(r, 1);
    c->stopping = get_u32(r, 1);
    c->aborted = get_u32(r, 1);
    c->foreign = get_u32(r, 1);
    c->region = get_u32(r, SHARED_REGIONS - 1);
    c->index = get_u32(r, PROC_WORKER_SLOTS);
    c->failures = get_u32(r, UINT32_MAX);
    c->started_ms = state_get_u64(r);
    c->respawn_ms = state_get_u64(r);
    c->kill_ms = state_get_u64(r);
    in->incarnation[slot] = get_u32(r, UINT32_MAX);
}

static socklen_t get_address(struct state_reader *r, struct sockaddr_storage *sa)
{
    size_t len;
    const void *bytes = state_get_bytes(r, &len);
    if (!bytes)
        return 0;
    if (len < sizeof sa->ss_family || len > sizeof *sa) {
        state_refuse(r, "is an address of %zu bytes", len);
        return 0;
    }
    memcpy(sa, bytes, len);
    return (socklen_t)len;
}

static void get_listener(struct state_reader *r, struct listeners *l)
{
    int listening = 0;
    socklen_t size = sizeof listening;
    if (l->count == PROCESS_LISTENERS_MAX) {
        state_refuse(r, "is one socket more than %d", PROCESS_LISTENERS_MAX);
        return;
    }
    struct master_socket *s = &l->socket[l->count];
    s->fd = state_get_fd(r, STATE_FD_LISTENER);
    if (state_good(r) &&
        (getsockopt(s->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening))
        state_refuse(r, "is descriptor %d, which is no listening socket", s->fd);
    s->from_systemd = get_u32(r, 1);
    s->number = get_u32(r, PROCESS_LISTENERS_MAX);
    get_address(r, &s->wanted);
    s->len = get_address(r, &s->bound);
    l->count += state_good(r);
}

static void get_record(struct state_reader *r, uint16_t type, struct master *m,
                       struct inherited *in)
{
    switch (type) {
    case STATE_SHARED:
        get_shared(r, in);
        break;
    case STATE_GENERATION:
        get_generation(r, m);
        break;
    case STATE_CHILD:
        get_child(r, in);
        break;
    case STATE_LISTENER:
        get_listener(r, &m->listeners);
        break;
    default: /* running_values_read() */
        break;
    }
}

int upgrade_state_read(struct master *m, struct inherited *in, int block, char *why, size_t size)
{
    struct state_reader r;
    uint16_t type;
    in->text = -1;
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++)
        in->child[slot].channel = -1;
    if (state_reader_open(&r, block, STATE_OF_POLDERD, STATE_RECORDS_END - 1) == 0) {
        snprintf(in->from, sizeof in->from, "%s", r.version);
        if (state_next(&r) == STATE_SERVICE)
            get_service(&r, m, in);
        else
            state_refuse(&r, "the first record is not that of the service");
        while ((type = state_next(&r)))
            get_record(&r, type, m, in);
        if (m->generation[m->current].state != GENERATION_CURRENT)
            state_refuse(&r, "the current generation is missing");
    }
    const bool good = state_good(&r);
    if (!good)
        snprintf(why, size, "cannot use the state of polderd %s: %s", in->from, r.why);
    state_reader_close(&r);
    return good ? 0 : -1;
}
