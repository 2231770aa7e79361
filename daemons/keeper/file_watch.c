/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * file_watch: detects access to data.mdb and lock.mdb other than by LMDB through its maps.
 *
 * Workers verify a record once, so bytes that change afterwards under the map would be served; and
 * a worker that finds another lock file is a reader that the keeper does not see, whose pages are
 * used again. The kernel tells of every write(), truncate() and unlink() of the files, by any
 * process, and never of a change through the map: at the first foreign access the store is given
 * up. Without inotify, only checksums at the first use and those of the sweep remain.
 */
#include "daemons/keeper/keeper.h"
#include "polder/log.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* The process that opens lock.mdb first makes it as large as workers need it. */
static const struct {
    const char *name;
    uint32_t mask;
} files[WATCH_FILES] = {{"data.mdb", IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF},
                        {"lock.mdb", IN_ATTRIB | IN_MOVE_SELF}};

static void path_of(const struct keeper *k, unsigned i, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%.4000s/%s", k->store.dir, files[i].name);
}

/* The path must still name the open file: the next process must open the same one. */
static bool is_there(const struct keeper *k, unsigned i)
{
    char path[PATH_MAX];
    struct stat st;
    const struct watch_file *f = &k->file_watch.file[i];
    path_of(k, i, path);
    return stat(path, &st) == 0 && st.st_ino == f->inode && st.st_dev == f->device;
}

static void note(struct file_watch *w, const struct inotify_event *e)
{
    for (unsigned i = 0; i < WATCH_FILES; i++)
        if (e->wd == w->file[i].wd) /* else of a store before this one */
            w->file[i].seen |= e->mask;
}

static void events_read(struct file_watch *w)
{
    _Alignas(struct inotify_event) char buf[4096];
    ssize_t n;
    while ((n = read(w->io.fd, buf, sizeof buf)) > 0)
        for (ssize_t at = 0; at + (ssize_t)sizeof(struct inotify_event) <= n;) {
            const struct inotify_event *e = (const struct inotify_event *)(buf + at);
            note(w, e);
            at += (ssize_t)(sizeof *e + e->len);
        }
}

static void on_sign(struct ev_loop *loop, ev_io *io, int revents)
{
    struct keeper *k = io->data;
    char why[64];
    (void)loop;
    (void)revents;
    events_read(&k->file_watch);
    for (unsigned i = 0; i < WATCH_FILES && k->store.env; i++) {
        const uint32_t seen = k->file_watch.file[i].seen;
        k->file_watch.file[i].seen = 0;
        if (seen & IN_MODIFY)
            snprintf(why, sizeof why, "another process has written to %s", files[i].name);
        else if (seen & (IN_ATTRIB | IN_MOVE_SELF) && !is_there(k, i))
            snprintf(why, sizeof why, "%s was moved or removed", files[i].name);
        else
            continue;
        k->file_watch.on_touched(k, why);
        return;
    }
}

void file_watch_open(struct keeper *k, void (*on_touched)(struct keeper *, const char *))
{
    struct file_watch *w = &k->file_watch;
    w->on_touched = on_touched;
    for (unsigned i = 0; i < WATCH_FILES; i++)
        w->file[i].wd = -1;
    const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        log_info("cache: cannot watch data.mdb for foreign writes: %s", strerror(errno));
    ev_io_init(&w->io, on_sign, fd, EV_READ);
    w->io.data = k;
    if (fd >= 0)
        ev_io_start(k->loop, &w->io);
}

void file_watch_close(struct keeper *k)
{
    ev_io_stop(k->loop, &k->file_watch.io);
    if (k->file_watch.io.fd >= 0)
        close(k->file_watch.io.fd);
}

void file_watch_end(struct keeper *k)
{
    struct file_watch *w = &k->file_watch;
    for (unsigned i = 0; i < WATCH_FILES; i++) {
        if (w->file[i].wd >= 0)
            inotify_rm_watch(w->io.fd, w->file[i].wd);
        w->file[i] = (struct watch_file){.wd = -1};
    }
}

void file_watch_begin(struct keeper *k)
{
    char path[PATH_MAX];
    struct stat st;
    file_watch_end(k);
    for (unsigned i = 0; i < WATCH_FILES && k->file_watch.io.fd >= 0; i++) {
        struct watch_file *f = &k->file_watch.file[i];
        path_of(k, i, path);
        if (stat(path, &st) < 0)
            continue;
        f->inode = st.st_ino;
        f->device = st.st_dev;
        f->wd = inotify_add_watch(k->file_watch.io.fd, path, files[i].mask);
    }
}
