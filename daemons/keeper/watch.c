/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * watch: nobody but LMDB, through its map, has any business in data.mdb.
 *
 * What workers have verified once they do not verify again, so bytes that change afterwards under
 * the map would be served. The kernel tells of every write(), truncate() and unlink() of the file,
 * by whomever, and never of a change through the map: at the first sign of a stranger the store is
 * given up. Where inotify is not to be had, checksums at the first use and the sweep's remain.
 */
#include "daemons/keeper/keeper.h"
#include "polder/log.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static void data_path(const struct keeper *k, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%.4000s/data.mdb", k->store.dir);
}

/* The file that is open, and no other one in its place: who opens it next must find the same. */
static bool data_is_there(const struct keeper *k)
{
    char path[PATH_MAX];
    struct stat there, ours;
    int fd;
    data_path(k, path);
    return stat(path, &there) == 0 && mdb_env_get_fd(k->store.env, &fd) == 0 &&
           fstat(fd, &ours) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev;
}

/* What the queue holds about this store: a mask, 0: nothing of interest. */
static uint32_t events_read(struct watch *w)
{
    _Alignas(struct inotify_event) char buf[4096];
    uint32_t mask = 0;
    ssize_t n;
    while ((n = read(w->io.fd, buf, sizeof buf)) > 0)
        for (ssize_t at = 0; at + (ssize_t)sizeof(struct inotify_event) <= n;) {
            const struct inotify_event *e = (const struct inotify_event *)(buf + at);
            if (e->wd == w->wd) /* else of a store before this one */
                mask |= e->mask;
            at += (ssize_t)(sizeof *e + e->len);
        }
    return mask;
}

static void on_sign(struct ev_loop *loop, ev_io *io, int revents)
{
    struct keeper *k = io->data;
    (void)loop;
    (void)revents;
    const uint32_t mask = events_read(&k->watch);
    if (!k->store.env || k->watch.wd < 0)
        return;
    keeper_time(k);
    if (mask & IN_MODIFY)
        rotate_now(k, "somebody else has written to data.mdb");
    else if (mask & (IN_ATTRIB | IN_MOVE_SELF) && !data_is_there(k))
        rotate_now(k, "somebody has taken data.mdb away");
}

void watch_open(struct keeper *k)
{
    struct watch *w = &k->watch;
    w->wd = -1;
    const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        log_info("cache: cannot watch data.mdb for strangers: %s", strerror(errno));
    ev_io_init(&w->io, on_sign, fd, EV_READ);
    w->io.data = k;
    if (fd >= 0)
        ev_io_start(k->loop, &w->io);
}

void watch_close(struct keeper *k)
{
    ev_io_stop(k->loop, &k->watch.io);
    if (k->watch.io.fd >= 0)
        close(k->watch.io.fd);
}

void watch_end(struct keeper *k)
{
    struct watch *w = &k->watch;
    if (w->wd >= 0)
        inotify_rm_watch(w->io.fd, w->wd);
    w->wd = -1;
}

void watch_begin(struct keeper *k)
{
    char path[PATH_MAX];
    watch_end(k);
    if (k->watch.io.fd < 0)
        return;
    data_path(k, path);
    k->watch.wd = inotify_add_watch(k->watch.io.fd, path, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF);
}
