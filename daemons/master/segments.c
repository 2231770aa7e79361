/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * segments: what was passed at the start, and the descriptors that systemd keeps for the next one.
 *
 * systemd passes the sockets of polder.socket and, from the descriptor store of the unit
 * (FileDescriptorStoreMax=), the segments of shared memory that an earlier run has stored there. The
 * store outlives a restart and a crash, not a stop. Sockets are told from segments by what they are,
 * not by their names: a socket unit may give any name. A segment that is used again is in the store
 * already; each new one is stored at once, so that any later death finds it there.
 */
#include "daemons/master/master.h"
#include "polder/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* $FDSTORE is how many descriptors are kept, and is set by systemd 254 and later. Where an earlier
 * one runs us, the unit is taken to have a store, as ours has. */
static bool store_is_there(void)
{
    const char *size = getenv("FDSTORE");
    return getenv("NOTIFY_SOCKET") && (!size || atoi(size) > 0);
}

static void found_add(struct segments *s, int fd, const char *name)
{
    if (s->n_found == SEGMENTS_FOUND_MAX || strlen(name) >= sizeof s->found[0].name) {
        log_warning("segments: the descriptor \"%.32s\" that was passed is not ours", name);
        close(fd);
        return;
    }
    struct shared_found *f = &s->found[s->n_found++];
    snprintf(f->name, sizeof f->name, "%s", name);
    f->fd = fd;
}

static void names_free(char **names)
{
    for (char **n = names; names && *n; n++)
        free(*n);
    free(names);
}

int segments_adopt(struct segments *s, int *sockets, uint32_t max)
{
    char fds[32], **names = NULL;
    struct stat st;
    int n_sockets = 0;
    const char *value = getenv("LISTEN_FDS");
    snprintf(fds, sizeof fds, "%s", value ? value : "");
    s->has_store = store_is_there();
    const int n = sd_listen_fds_with_names(1, &names); /* sets CLOEXEC, clears the environment */
    if (n < 0)
        log_error(
            "listeners: LISTEN_FDS=%s does not name sockets that were passed to us: %s; start "
            "without it, or by a socket unit",
            fds, strerror(-n));
    for (int i = 0; i < n; i++) {
        const int fd = SD_LISTEN_FDS_START + i;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            found_add(s, fd, names[i]);
        else if (n_sockets++ < (int)max)
            sockets[n_sockets - 1] = fd;
    }
    names_free(names);
    if (n >= 0 && n_sockets > (int)max) {
        log_error("listeners: systemd passed %d sockets, more than %u", n_sockets, max);
        return -E2BIG;
    }
    return n < 0 ? n : n_sockets;
}

/* ---- the store ---- */

static void store_remove(const char *name)
{
    sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

static void store_put(const struct shared_segment *seg)
{
    char text[80];
    const int fd = seg->shm.fd;
    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s", seg->name);
    const int rc = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
    if (rc < 0)
        log_warning("segments: systemd does not take %s: %s; a restart will lose it", seg->name,
                    strerror(-rc));
}

static bool is_in_use(const struct shared *sh, const char *name)
{
    for (size_t i = 0; i < sh->segs; i++)
        if (sh->seg[i].found && !strcmp(sh->seg[i].name, name))
            return true;
    return false;
}

void segments_store(struct segments *s, const struct shared *sh)
{
    for (size_t i = 0; i < s->n_found; i++) {
        if (s->found[i].fd >= 0)
            close(s->found[i].fd);
        if (!is_in_use(sh, s->found[i].name))
            store_remove(s->found[i].name);
    }
    s->n_found = 0;
    for (size_t i = 0; s->has_store && i < sh->segs; i++)
        if (sh->seg[i].keep && !sh->seg[i].found)
            store_put(&sh->seg[i]);
}
