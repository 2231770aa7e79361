/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * listeners: the sockets clients connect to, held by the master so that a dead worker loses only
 * what it had in its hands.
 *
 * Each TCP address has K sockets with SO_REUSEPORT, and worker w accepts from those with number
 * = w mod N; K is N * ceil(8 / N), and sockets of an address are never closed while the address is
 * configured, so the number of workers may change. A UNIX socket is one for all. Sockets that
 * systemd passed win over `listen`; several of one address are spread in the same way.
 */
#include "daemons/master/master.h"
#include "polder/log.h"
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG          4096
#define SOCKETS_AT_LEAST 8 /* an address */

static bool sa_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
        return x->sin6_port == y->sin6_port && x->sin6_scope_id == y->sin6_scope_id &&
               memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
    }
    const struct sockaddr_un *x = (const void *)a, *y = (const void *)b;
    return strncmp(x->sun_path, y->sun_path, sizeof x->sun_path) == 0;
}

static uint16_t sa_port(const struct sockaddr_storage *sa)
{
    if (sa->ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)sa)->sin_port);
    if (sa->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)sa)->sin6_port);
    return 0;
}

static void sa_text(const struct sockaddr_storage *sa, socklen_t len, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN + 16], port[8];
    if (sa->ss_family == AF_UNIX)
        snprintf(out, size, "unix:%.107s",
                 ((const struct sockaddr_un *)(const void *)sa)->sun_path);
    else if (getnameinfo((const struct sockaddr *)sa, len, host, sizeof host, port, sizeof port,
                         NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, size, "?");
    else
        snprintf(out, size, sa->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static uint32_t sockets_of(const struct listeners *l, const struct sockaddr_storage *wanted)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->count; i++)
        n += sa_equal(&l->socket[i].wanted, wanted);
    return n;
}

/* ---- systemd ---- */

static int socket_adopt(struct listeners *l, int fd)
{
    struct master_socket *s = &l->socket[l->count];
    int listening = 0;
    socklen_t optlen = sizeof listening;
    *s = (struct master_socket){.fd = fd, .from_systemd = true, .len = sizeof s->bound};
    if (getsockname(fd, (struct sockaddr *)&s->bound, &s->len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &optlen) < 0 || !listening) {
        log_error("listeners: descriptor %d from systemd is no listening stream socket", fd);
        return -EINVAL;
    }
    s->wanted = s->bound;
    s->number = sockets_of(l, &s->wanted);
    l->count++;
    return 0;
}

int listeners_adopt(struct listeners *l, const int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        const int rc = socket_adopt(l, fds[i]);
        if (rc < 0)
            return rc;
    }
    l->from_systemd = n > 0;
    return 0;
}

/* ---- bind ---- */

/* An IPv6 wildcard would take the IPv4 port as well. */
static bool v6_alone(const struct config *config, const struct config_address *a)
{
    for (uint32_t i = 0; i < config->n_listen; i++)
        if (config->listen[i].sa.ss_family == AF_INET &&
            sa_port(&config->listen[i].sa) == sa_port(&a->sa))
            return true;
    return false;
}

static int tcp_bind(const struct sockaddr_storage *sa, socklen_t len, bool v6only, bool shared)
{
    const int on = 1, only = v6only;
    const int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (shared)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (sa->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    if (bind(fd, (const struct sockaddr *)sa, len) < 0) {
        const int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static bool port_is_ours(const struct listeners *l, uint16_t port)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (sa_port(&l->socket[i].bound) == port)
            return true;
    return false;
}

/* SO_REUSEPORT would silently share the port with a foreign process of the same user, which then
 * gets part of our connections. A plain bind first finds it. */
static int tcp_probe(const struct listeners *l, const struct config_address *a, bool v6only)
{
    if (sa_port(&a->sa) == 0 || port_is_ours(l, sa_port(&a->sa)))
        return 0;
    const int fd = tcp_bind(&a->sa, a->len, v6only, false);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static int socket_add(struct listeners *l, int fd, const struct config_address *a)
{
    if (l->count == PROCESS_LISTENERS_MAX) {
        close(fd);
        return -EMFILE;
    }
    struct master_socket *s = &l->socket[l->count];
    *s = (struct master_socket){.fd = fd, .fresh = true, .wanted = a->sa, .len = sizeof s->bound};
    s->number = sockets_of(l, &a->sa);
    getsockname(fd, (struct sockaddr *)&s->bound, &s->len);
    l->count++;
    return 0;
}

/* Of an address that is open already, or NULL. Says which port a configured port 0 became. */
static const struct master_socket *socket_like(const struct listeners *l,
                                               const struct sockaddr_storage *wanted)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (sa_equal(&l->socket[i].wanted, wanted))
            return &l->socket[i];
    return NULL;
}

static int tcp_open(struct listeners *l, const struct config *config,
                    const struct config_address *a)
{
    const uint32_t per_worker = (SOCKETS_AT_LEAST + config->workers - 1) / config->workers;
    const uint32_t wanted = config->workers * per_worker;
    const bool v6only = a->sa.ss_family == AF_INET6 && v6_alone(config, a);
    int rc = 0;
    for (uint32_t n = sockets_of(l, &a->sa); rc == 0 && n < wanted; n++) {
        const struct master_socket *like = socket_like(l, &a->sa);
        const int fd = like ? tcp_bind(&like->bound, like->len, v6only, true)
                            : tcp_bind(&a->sa, a->len, v6only, true);
        rc = fd < 0 ? fd : socket_add(l, fd, a);
    }
    return rc;
}

/* A socket file without a process refuses connections; that of a living one must not be removed. */
static int unix_clear_stale(const struct config_address *a)
{
    const struct sockaddr_un *un = (const void *)&a->sa;
    struct stat st;
    if (lstat(un->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    const int rc = connect(fd, (const struct sockaddr *)&a->sa, a->len) < 0 ? errno : 0;
    close(fd);
    if (rc != ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(un->sun_path) < 0 ? -errno : 0;
}

static int unix_open(struct listeners *l, const struct config_address *a)
{
    const struct sockaddr_un *un = (const void *)&a->sa;
    int rc = unix_clear_stale(a);
    if (rc < 0)
        return rc;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&a->sa, a->len) < 0) {
        rc = -errno;
        close(fd);
        return rc;
    }
    chmod(un->sun_path, 0666); /* a public listener like any other; its directory may be stricter */
    return socket_add(l, fd, a);
}

static int address_open(struct listeners *l, const struct config *config,
                        const struct config_address *a)
{
    if (a->sa.ss_family != AF_UNIX)
        return tcp_open(l, config, a);
    return sockets_of(l, &a->sa) ? 0 : unix_open(l, a);
}

static void bind_explain(const struct config_address *a, int rc, char *why, size_t size)
{
    const char *hint = "";
    if (rc == -EADDRINUSE)
        hint = "; another process listens there";
    else if (rc == -EACCES)
        hint = "; ports below 1024 need root or a systemd socket";
    else if (rc == -EMFILE)
        hint = "; fewer listeners or workers are needed";
    snprintf(why, size, "cannot listen on %s: %s%s", a->text, strerror(-rc), hint);
}

/* The other address of a name, on a host without IPv6. */
static bool is_lacking(const struct config_address *a, int rc)
{
    return a->may_lack && (rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT);
}

int listeners_open(struct listeners *l, const struct config *config, char *why, size_t size)
{
    int rc = 0;
    if (l->from_systemd)
        return 0;
    /* All probes before the first bind: our own sockets must not look like those of another
     * process. */
    for (uint32_t i = 0; i < config->n_listen && rc == 0; i++) {
        const struct config_address *a = &config->listen[i];
        if (a->sa.ss_family != AF_UNIX && (rc = tcp_probe(l, a, v6_alone(config, a))) < 0)
            bind_explain(a, rc, why, size);
        rc = is_lacking(a, rc) ? 0 : rc;
    }
    for (uint32_t i = 0; i < config->n_listen && rc == 0; i++) {
        const struct config_address *a = &config->listen[i];
        if ((rc = address_open(l, config, a)) < 0)
            bind_explain(a, rc, why, size);
        rc = is_lacking(a, rc) ? 0 : rc;
    }
    if (rc < 0)
        listeners_revert(l);
    return rc;
}

int listeners_probe_ops(const struct config *now, const struct config *then, char *why, size_t size)
{
    const struct config_address *a = &then->ops_listen;
    if (!a->len || a->sa.ss_family == AF_UNIX)
        return 0;
    /* control has that port, and lets go of it before it takes the new address */
    if (now->ops_listen.len && sa_port(&a->sa) == sa_port(&now->ops_listen.sa))
        return 0;
    const int fd = tcp_bind(&a->sa, a->len, a->sa.ss_family == AF_INET6, false);
    if (fd < 0) {
        bind_explain(a, fd, why, size);
        return fd;
    }
    close(fd);
    return 0;
}

/* A bound socket gets no connections yet. It begins to listen only when a worker is about to accept
 * from it: what the kernel queues on it until then would wait, or be reset if a reload fails. */
int listeners_listen(struct listeners *l, char *why, size_t size)
{
    for (uint32_t i = 0; i < l->count; i++) {
        struct master_socket *s = &l->socket[i];
        char text[160];
        if (!s->fresh || listen(s->fd, BACKLOG) == 0)
            continue;
        const int rc = -errno;
        sa_text(&s->bound, s->len, text, sizeof text);
        snprintf(why, size, "cannot listen on %s: %s", text, strerror(-rc));
        return rc;
    }
    return 0;
}

/* ---- the life of the table ---- */

static void socket_close(struct master_socket *s)
{
    if (s->bound.ss_family == AF_UNIX && !s->from_systemd)
        unlink(((const struct sockaddr_un *)(const void *)&s->bound)->sun_path);
    close(s->fd);
}

void listeners_keep(struct listeners *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        l->socket[i].fresh = false;
}

void listeners_revert(struct listeners *l)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->count; i++)
        if (l->socket[i].fresh)
            socket_close(&l->socket[i]);
        else
            l->socket[kept++] = l->socket[i];
    l->count = kept;
}

static const struct config_address *address_of(const struct config *config,
                                               const struct master_socket *s)
{
    for (uint32_t i = 0; i < config->n_listen; i++)
        if (sa_equal(&config->listen[i].sa, &s->wanted))
            return &config->listen[i];
    return NULL;
}

void listeners_assign(const struct listeners *l, const struct config *config, struct generation *g)
{
    g->n_listeners = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        const struct master_socket *s = &l->socket[i];
        const struct config_address *a = s->from_systemd ? NULL : address_of(config, s);
        if (!a && !s->from_systemd)
            continue; /* to be pruned when the old generation has left */
        /* Too few for all workers: all of them share, so that none stands idle. */
        const bool shared = s->bound.ss_family == AF_UNIX || sockets_of(l, &s->wanted) < g->workers;
        g->listeners[g->n_listeners++] = (struct process_listener){
            .fd = s->fd,
            .worker = shared ? UINT32_MAX : s->number % g->workers,
            .address = a,
        };
    }
}

void listeners_prune(struct listeners *l, const struct config *config)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->count; i++)
        if (l->socket[i].from_systemd || address_of(config, &l->socket[i]))
            l->socket[kept++] = l->socket[i];
        else
            socket_close(&l->socket[i]);
    l->count = kept;
}

void listeners_close_others(const struct listeners *l, const struct generation *g)
{
    for (uint32_t i = 0; i < l->count; i++) {
        bool used = false;
        for (uint32_t k = 0; g && k < g->n_listeners && !used; k++)
            used = g->listeners[k].fd == l->socket[i].fd;
        if (!used)
            close(l->socket[i].fd);
    }
}

void listeners_close(struct listeners *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        socket_close(&l->socket[i]);
    l->count = 0;
}

void listeners_describe(const struct listeners *l, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < l->count; i++) {
        const struct master_socket *s = &l->socket[i];
        char text[160];
        if (s->number != 0)
            continue;
        sa_text(&s->bound, s->len, text, sizeof text);
        const int n = snprintf(out + used, size - used, "%s%s", used ? ", " : "", text);
        if (n < 0 || (size_t)n >= size - used)
            return;
        used += (size_t)n;
    }
}

void listeners_tell(const struct listeners *l, const struct config *config)
{
    if (l->from_systemd)
        log_info("service: the sockets come from systemd: `listen` of %s is not used",
                 config->path);
}

/* First line "systemd" or "polderd": which has made them; then one per line. */
static void publish_file(const char *path, const struct listeners *l, const char *text)
{
    char fresh[PATH_MAX];
    if (snprintf(fresh, sizeof fresh, "%s~", path) >= (int)sizeof fresh)
        return;
    FILE *f = fopen(fresh, "we");
    if (!f)
        return; /* only told by it */
    fputs(l->from_systemd ? "systemd\n" : "polderd\n", f);
    for (; *text; text++)
        if (*text != ' ')
            fputc(*text == ',' ? '\n' : *text, f);
    fputc('\n', f);
    if (fclose(f) != 0 || rename(fresh, path) < 0)
        unlink(fresh);
}

void listeners_publish(const struct master *m)
{
    struct proc_table *proc = m->shared.proc;
    char text[sizeof proc->listeners] = "", path[PATH_MAX];
    listeners_describe(&m->listeners, text, sizeof text);
    proc->sockets_from_systemd = m->listeners.from_systemd;
    memcpy(proc->listeners, text, sizeof text);
    snprintf(path, sizeof path, "%.4000s/listeners", master_config(m)->runtime_dir);
    publish_file(path, &m->listeners, text);
}
