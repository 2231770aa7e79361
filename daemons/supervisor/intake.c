/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * intake: runtime_dir/supervisor.sock, where workers hand over clients. A worker is not trusted:
 * lengths and the descriptor are looked at before its client is taken for one (handshake.c).
 */
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/manager.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/fd_message.h"
#include "polder/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

struct worker_link {
    ev_io io;
    LIST_ENTRY(worker_link) entry;
};

/* ---- one message ---- */

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t len = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

/* Whole lines, and no blank one: nothing of a worker's ends the head early. */
static bool lines_sound(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)at[i];
        if (c == '\r'   ? i + 1 >= len || at[i + 1] != '\n'
            : c == '\n' ? i < 2 || at[i - 1] != '\r' || at[i - 2] == '\n'
                        : c < 0x20 || c == 0x7f)
            return false;
    }
    return !len || at[len - 1] == '\n';
}

static bool is_sound(const struct handover *h, const char *rest, size_t len)
{
    const uint64_t want = sizeof *h + (uint64_t)h->route_len + h->id_len + h->limit_len +
                          h->head_len + h->pipelined_len;
    return h->magic == HANDOVER_MAGIC && h->version == HANDOVER_VERSION && want == len &&
           h->limit_len <= HANDOVER_LINES_MAX &&
           lines_sound(rest + h->route_len + h->id_len, h->limit_len);
}

/* A worker has invalidated something. */
static void take_news(struct supervisor *s, const struct handover *h, const char *rest)
{
    char text[2 * 8192];
    const char *tag = text, *id = rest + h->route_len;
    const uint32_t len = h->id_len ? h->id_len : h->head_len;
    if (len >= sizeof text)
        return;
    memcpy(text, h->id_len ? id : id + h->id_len + h->limit_len, len);
    text[len] = 0;
    if (frames_utf8_valid((const uint8_t *)text, len))
        local_invalidated(s, &tag, h->id_len ? 1 : 0, h->id_len ? NULL : len ? text : "/");
}

#define FDS_MAX 4 /* beside a message */

/* 1: go on; 0: nothing more now; -1: the link is finished. */
static int take_message(struct supervisor *s, int link)
{
    static _Alignas(8) char bytes[HANDOVER_MAX];
    int fds[FDS_MAX];
    size_t n_fds;
    const ssize_t n =
        fd_message_receive(link, bytes, sizeof bytes, MSG_DONTWAIT, fds, FDS_MAX, &n_fds);
    if (n < 0 && n != -EMSGSIZE && n != -EMFILE)
        return n == -EAGAIN ? 0 : -1;
    struct handover h;
    bool good = n >= (ssize_t)sizeof h;
    if (good) {
        memcpy(&h, bytes, sizeof h);
        good = is_sound(&h, bytes + sizeof h, (size_t)n);
    }
    if (good && (h.flags & HANDOVER_TELLS) && n_fds == 0) {
        take_news(s, &h, bytes + sizeof h);
        return 1;
    }
    if (good && (h.flags & HANDOVER_SERVERS) && n_fds == 1) {
        servers_take_table(s, fds[0]);
        return 1;
    }
    if (good && (h.flags & HANDOVER_SLOTS) && n_fds == 2) {
        ws_fleet_take_page(s, fds[0], fds[1]);
        return 1;
    }
    if (good && !(h.flags & (HANDOVER_TELLS | HANDOVER_SERVERS | HANDOVER_SLOTS)) && h.head_len &&
        n_fds == 1 && is_stream(fds[0])) {
        handshake_take(s, &h, bytes + sizeof h, (size_t)n - sizeof h, fds[0]);
        return 1;
    }
    fd_message_close(fds, n_fds);
    if (n > 0)
        log_warning("intake: a malformed handover of %zd bytes was dropped", n);
    else if (n < 0)
        log_warning("intake: a handover was dropped: %s", strerror((int)-n));
    return n == 0 ? -1 : 1;
}

/* ---- links ---- */

static void link_close(struct supervisor *s, struct worker_link *l)
{
    ev_io_stop(s->loop, &l->io);
    survive_link_closed(s, l->io.fd);
    survive_close(s, l->io.fd);
    LIST_REMOVE(l, entry);
    free(l);
}

static void on_link(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)revents;
    for (int i = 0; i < 32; i++) {
        const int code = take_message(s, w->fd);
        if (code < 0)
            link_close(s, (struct worker_link *)(void *)w);
        if (code <= 0)
            return;
    }
}

void intake_take_link(struct supervisor *s, int fd)
{
    struct worker_link *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return;
    }
    LIST_INSERT_HEAD(&s->links, l, entry);
    ev_io_init(&l->io, on_link, fd, EV_READ);
    ev_io_start(s->loop, &l->io);
    survive_link(s, fd);
}

static void on_accepted(void *arg, int fd, const struct sockaddr *sa)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    (void)sa;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ||
        (peer.uid && peer.uid != geteuid())) {
        log_warning("intake: a connection of another user was refused");
        close(fd);
        return;
    }
    intake_take_link(arg, fd);
}

void intake_each_link(const struct supervisor *s, void (*fn)(void *arg, int fd), void *arg)
{
    const struct worker_link *l;
    LIST_FOREACH (l, &s->links, entry)
        fn(arg, l->io.fd);
}

int intake_adopt(struct supervisor *s, int fd, const char *path)
{
    listener_init(&s->intake, s->loop, on_accepted, s);
    return listener_adopt_path(&s->intake, fd, path, SOCK_SEQPACKET);
}

static bool is_box(int fd, const char *name)
{
    return !strcmp(name, CUSTODIAN_STORE) && sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 0) > 0;
}

/* What an earlier process has stored comes behind the sockets. Returns how many of those there are. */
static int take_stored(char **names, int n, int *box)
{
    int sockets = 0;
    for (int i = 0; i < n; i++) {
        const int fd = SD_LISTEN_FDS_START + i;
        if (sd_is_socket(fd, AF_UNSPEC, 0, 1) > 0 || !names || !strcmp(names[i], "unknown")) {
            sockets++;
        } else if (*box < 0 && is_box(fd, names[i])) {
            *box = fd;
        } else {
            log_warning("intake: the descriptor \"%.64s\" that was passed is not ours", names[i]);
            manager_remove(names[i]);
            close(fd);
        }
    }
    return sockets;
}

static int count_passed(int *box)
{
    char **names = NULL;
    const int n = sd_listen_fds_with_names(0, &names);
    const int sockets = n > 0 ? take_stored(names, n, box) : n;
    for (char **name = names; name && *name; name++)
        free(*name);
    free(names);
    return sockets;
}

/* Those who connect from now on see our credentials, and not those of systemd, which has bound it:
 * adopting it calls listen() once more. Its path is for finding it, and not ours to remove. */
int intake_take_passed(struct supervisor *s, int *box)
{
    struct unix_socket u;
    char path[sizeof u.path];
    *box = -1;
    const int n = count_passed(box), fd = SD_LISTEN_FDS_START;
    snprintf(path, sizeof path, "%s/supervisor.sock", s->config->runtime_dir);
    if (n == 0)
        return 0;
    if (n < 0) {
        const char *fds = getenv("LISTEN_FDS");
        log_error("intake: LISTEN_FDS=%s does not name sockets that were passed to us: %s; start "
                  "without it, or by a socket unit",
                  fds ? fds : "", strerror(-n));
        return n;
    }
    if (n != 1 || sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, path, 0) <= 0) {
        log_error("intake: systemd passes %d sockets; expected one, ListenSequentialPacket=%s", n,
                  path);
        return -EINVAL;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    const int code = unix_socket_adopt(&u, fd, "", SOCK_SEQPACKET);
    if (code) {
        log_error("intake: cannot listen on the socket of systemd: %s", strerror(-code));
        return code;
    }
    memcpy(u.path, path, sizeof path);
    unix_socket_inherit(&u);
    s->intake_passed = true;
    return 0;
}

/* What is written there is read by our successor. -1: it cannot be. */
static int connect_to_next(const struct supervisor *s)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const int room = HANDOVER_MAX * 4;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%.90s/supervisor.sock", s->config->runtime_dir);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (connect(fd, (const struct sockaddr *)&un, sizeof un) == 0)
        return fd;
    close(fd);
    return -1;
}

/* What has come and was not read: our successor reads it. */
static void pass_on_all(int link, int to)
{
    static _Alignas(8) char bytes[HANDOVER_MAX];
    int fds[FDS_MAX];
    size_t n_fds;
    struct iovec iov = {.iov_base = bytes};
    ssize_t n;
    while ((n = fd_message_receive(link, bytes, sizeof bytes, MSG_DONTWAIT, fds, FDS_MAX, &n_fds)) >
           0) {
        iov.iov_len = (size_t)n;
        n = fd_message_send(to, &iov, 1, fds, n_fds);
        fd_message_close(fds, n_fds);
        if (n < 0) /* there is no room */
            return;
    }
}

/* Workers that have something to say connect anew, and wait for our successor in the queue of the
 * socket that systemd holds; what they have said already goes there, too. */
void intake_leave(struct supervisor *s)
{
    if (!s->intake_passed || !s->intake.open)
        return; /* nothing would hold the queue */
    listener_close(&s->intake);
    const int next = connect_to_next(s);
    for (struct worker_link *l = LIST_FIRST(&s->links), *after; l; l = after) {
        after = LIST_NEXT(l, entry);
        shutdown(l->io.fd, SHUT_RD);
        if (next >= 0)
            pass_on_all(l->io.fd, next);
        while (take_message(s, l->io.fd) > 0)
            ;
        link_close(s, l);
    }
    if (next >= 0)
        close(next);
}

int intake_open(struct supervisor *s)
{
    char path[sizeof s->intake.socket.path];
    snprintf(path, sizeof path, "%s/supervisor.sock", s->config->runtime_dir);
    mkdir(s->config->runtime_dir, 0755);
    listener_init(&s->intake, s->loop, on_accepted, s);
    const int code = listener_open_path(&s->intake, path, SOCK_SEQPACKET, 0600, (gid_t)-1);
    if (code == -EADDRINUSE)
        log_error("intake: another polder-supervisor answers on %s", path);
    else if (code)
        log_error("intake: cannot listen on %s: %s", path, strerror(-code));
    return code;
}

void intake_close(struct supervisor *s)
{
    while (!LIST_EMPTY(&s->links))
        link_close(s, LIST_FIRST(&s->links)); /* NOLINT(clang-analyzer-unix.Malloc) */
    listener_close(&s->intake);
}
