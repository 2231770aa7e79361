/* SPDX-License-Identifier: BSD-2-Clause */
/* parcel: see parcel.h. */
#include "daemons/supervisor/carry/parcel.h"
#include "polder/fd_message.h"
#include "polder/state_block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC       UINT64_C(0x315358574c4f50) /* "POLWXS1" */
#define ITEMS       FD_MESSAGE_MAX             /* in a message */
#define IN_TRAY     8                          /* messages, which the smallest buffer holds */
#define NUMBERS_MAX (1u << 22)

struct head {
    uint64_t magic;
    uint32_t format, n_trays, n_items;
    uint8_t intake, rpc, unused[2]; /* is it there? */
};
struct item {
    uint32_t number, flags;
};

/* ---- messages ---- */

static int send_fds(int to, const void *bytes, size_t len, const int *fds, size_t n)
{
    const struct iovec iov = {(void *)(uintptr_t)bytes, len};
    const ssize_t sent = fd_message_send(to, &iov, 1, fds, n);
    return sent < 0 ? (int)sent : 0;
}

/* A copy of the next message, which stays. Its length; 0: there is none; -errno. */
static ssize_t peek_fds(int from, void *bytes, size_t size, int fds[ITEMS], size_t *n)
{
    const ssize_t got =
        fd_message_receive(from, bytes, size, MSG_PEEK | MSG_DONTWAIT, fds, ITEMS, n);
    return got == -EAGAIN ? 0 : got == -EMSGSIZE ? -EPROTO : got;
}

int parcel_box(int box[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, box) < 0 ? -errno
                                                                                          : 0;
}

/* ---- making one ---- */

struct packing {
    const struct parcel_sending *of;
    struct item item[ITEMS];
    int fd[ITEMS];
    size_t n;
    int tray[PARCEL_TRAYS_MAX], to;    /* the last one's other end */
    uint32_t n_trays, n_items, n_sent; /* messages */
};

static int next_tray(struct packing *p)
{
    int box[2];
    if (p->n_trays == PARCEL_TRAYS_MAX)
        return -EMSGSIZE;
    const int code = parcel_box(box);
    if (code)
        return code;
    if (p->to >= 0)
        close(p->to);
    p->tray[p->n_trays++] = box[0];
    p->to = box[1];
    return 0;
}

static int send_items(struct packing *p)
{
    int code = p->n_sent++ % IN_TRAY ? 0 : next_tray(p);
    if (code == 0)
        code = send_fds(p->to, p->item, p->n * sizeof *p->item, p->fd, p->n);
    p->n_items += (uint32_t)p->n;
    p->n = 0;
    return code;
}

static int pack_fd(void *arg, int fd)
{
    struct packing *p = arg;
    p->item[p->n] =
        (struct item){(uint32_t)fd, p->of->at_rest(p->of->arg, fd) ? PARCEL_AT_REST : 0};
    p->fd[p->n++] = fd;
    return p->n == ITEMS ? send_items(p) : 0;
}

static int send_head(int box, const struct packing *p)
{
    int fds[3 + PARCEL_TRAYS_MAX];
    size_t n = 0;
    const struct head head = {.magic = MAGIC,
                              .format = PARCEL_FORMAT,
                              .n_trays = p->n_trays,
                              .n_items = p->n_items,
                              .intake = p->of->intake >= 0,
                              .rpc = p->of->rpc >= 0};
    fds[n++] = p->of->block;
    if (head.intake)
        fds[n++] = p->of->intake;
    if (head.rpc)
        fds[n++] = p->of->rpc;
    memcpy(fds + n, p->tray, p->n_trays * sizeof *fds);
    return send_fds(box, &head, sizeof head, fds, n + p->n_trays);
}

int parcel_send(int box, const struct parcel_sending *of)
{
    struct packing p = {.of = of, .to = -1};
    int code = state_block_each_fd(of->block, pack_fd, &p);
    if (code == 0 && p.n)
        code = send_items(&p);
    if (code == 0)
        code = send_head(box, &p);
    fd_message_close(p.tray, p.n_trays);
    if (p.to >= 0)
        close(p.to);
    return code;
}

/* ---- reading it ---- */

static bool is_sound(const struct head *h, ssize_t len, size_t n, char *why, size_t size)
{
    if (len != (ssize_t)sizeof *h || h->magic != MAGIC)
        snprintf(why, size, "it is no parcel");
    else if (h->format != PARCEL_FORMAT)
        snprintf(why, size, "it has format %u, and this program reads format %u", h->format,
                 PARCEL_FORMAT);
    else if (h->intake > 1 || h->rpc > 1 || h->n_trays > PARCEL_TRAYS_MAX ||
             n != 1u + h->intake + h->rpc + h->n_trays)
        snprintf(why, size, "it says %u trays, and %zu descriptors came", h->n_trays, n);
    else
        return true;
    return false;
}

int parcel_look(int box, struct parcel *p, char *why, size_t size)
{
    struct head h = {0};
    int fds[ITEMS], off = 0;
    size_t n = 0;
    *p = (struct parcel){.block = -1, .intake = -1, .rpc = -1};
    setsockopt(box, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
    const ssize_t len = peek_fds(box, &h, sizeof h, fds, &n);
    if (len == 0)
        return 0;
    if (len < 0) {
        snprintf(why, size, "it cannot be read: %s", strerror((int)-len));
        return -EPROTO;
    }
    if (!is_sound(&h, len, n, why, size)) {
        fd_message_close(fds, n);
        return -EPROTO;
    }
    n = 0;
    p->block = fds[n++];
    if (h.intake)
        p->intake = fds[n++];
    if (h.rpc)
        p->rpc = fds[n++];
    p->n_items = h.n_items;
    p->n_trays = h.n_trays;
    memcpy(p->tray, fds + n, h.n_trays * sizeof *fds);
    return 1;
}

void parcel_close(struct parcel *p)
{
    const int fds[] = {p->block, p->intake, p->rpc};
    for (size_t i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    fd_message_close(p->tray, p->n_trays);
    *p = (struct parcel){.block = -1, .intake = -1, .rpc = -1};
}

/* Takes fd. */
static bool put_item(struct parcel_items *to, struct item item, int fd)
{
    if (item.number >= to->n && item.number < NUMBERS_MAX) {
        const size_t n = (size_t)item.number + item.number / 2 + 64;
        int *moved = realloc(to->moved, n * sizeof *moved);
        to->moved = moved ? moved : to->moved;
        uint8_t *flags = moved ? realloc(to->flags, n) : NULL;
        to->flags = flags ? flags : to->flags;
        for (size_t i = to->n; flags && i < n; i++)
            moved[i] = -1;
        to->n = flags ? n : to->n;
    }
    if (item.number >= to->n || to->moved[item.number] >= 0) {
        close(fd);
        return false;
    }
    to->moved[item.number] = fd;
    to->flags[item.number] = (uint8_t)item.flags;
    return true;
}

/* 1: there was a message; 0: none any more; -errno. */
static int read_message(int tray, struct parcel_items *to, uint32_t *n_items)
{
    struct item item[ITEMS];
    int fds[ITEMS];
    size_t n;
    const ssize_t len = peek_fds(tray, item, sizeof item, fds, &n);
    if (len <= 0)
        return (int)len;
    bool good = (size_t)len == n * sizeof *item;
    for (size_t i = 0; i < n; i++) {
        if (good)
            good = put_item(to, item[i], fds[i]);
        else
            close(fds[i]);
    }
    *n_items += (uint32_t)n;
    return good ? 1 : -EPROTO;
}

static int read_tray(int tray, struct parcel_items *to, uint32_t *n_items)
{
    const int from = 0;
    int code = setsockopt(tray, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof from) < 0 ? -errno : 1;
    while (code > 0)
        code = read_message(tray, to, n_items);
    return code;
}

int parcel_open(const struct parcel *p, struct parcel_items *to, char *why, size_t size)
{
    uint32_t n_items = 0;
    int code = 0;
    *to = (struct parcel_items){0};
    for (uint32_t i = 0; code == 0 && i < p->n_trays; i++)
        code = read_tray(p->tray[i], to, &n_items);
    if (code == 0 && n_items == p->n_items)
        return 0;
    snprintf(why, size, "%u of its %u descriptors can be had%s%s", n_items, p->n_items,
             code ? ": " : "", code ? strerror(-code) : "");
    parcel_refuse(to);
    return code ? code : -EPROTO;
}

void parcel_forget(struct parcel_items *items)
{
    free(items->moved);
    free(items->flags);
    *items = (struct parcel_items){0};
}

unsigned parcel_refuse(struct parcel_items *items)
{
    static const uint8_t farewell[] = {0x88, 2, 1012 >> 8, 1012 & 0xff};
    unsigned notified = 0;
    for (size_t i = 0; i < items->n; i++) {
        const int fd = items->moved[i];
        if (fd < 0)
            continue;
        if (items->flags[i] & PARCEL_AT_REST)
            notified += send(fd, farewell, sizeof farewell, MSG_NOSIGNAL | MSG_DONTWAIT) ==
                        (ssize_t)sizeof farewell;
        close(fd);
    }
    parcel_forget(items);
    return notified;
}

void parcel_take(int box)
{
    char byte;
    while (recv(box, &byte, 1, MSG_DONTWAIT) > 0)
        ;
}

bool parcel_is_there(int box)
{
    char byte;
    int off = 0;
    setsockopt(box, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
    return recv(box, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}
