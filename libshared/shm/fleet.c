/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet: see polder/fleet.h. */
#include "polder/fleet.h"
#include "polder/random.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define MEANING 1 /* of fields whose places are the same */

uint64_t fleet_page_layout(void)
{
    return (uint64_t)sizeof(struct fleet_page) << 32 | offsetof(struct fleet_page, cause) << 16 |
           sizeof(struct fleet_cause) << 4 | MEANING;
}

static bool is_of_this_boot(const struct fleet_page *page)
{
    uint8_t boot[16];
    return shm_boot_id(boot) == 0 && !memcmp(boot, page->header.boot_id, sizeof boot);
}

static void forget(struct fleet_page *page, bool reused, uint64_t file)
{
    atomic_store(&page->epoch, 0);
    atomic_store(&page->applied, 0);
    atomic_store(&page->unsent, reused);
    atomic_store(&page->marks_from, 0);
    atomic_store(&page->remembered, 0);
    memset(page->cause, 0, sizeof page->cause);
    atomic_store(&page->file, file);
}

/* After a crash of the machine the page may be newer on disk than the marks, or older than what was not
 * told to others; not if it was closed. A machine or a container may be made from an image of another
 * one that is a host of the fleet: that is another instance. */
void fleet_page_open(struct fleet_page *page, bool reused, uint64_t file)
{
    const bool same_file = reused && atomic_load(&page->file) == file,
               same_boot = reused && is_of_this_boot(page);
    atomic_store(&page->until_ms, 0);
    atomic_store(&page->since_ms, 0);
    if (!same_file)
        atomic_store(&page->limits_share, 0);
    if (!same_file || !same_boot)
        atomic_store(&page->instance, 0);
    if (!same_file || (!same_boot && !atomic_load(&page->closed)))
        forget(page, reused, file);
    if (reused && !same_boot)
        shm_boot_id(page->header.boot_id);
    if (atomic_exchange(&page->closed, 0))
        msync(page, sizeof *page, MS_SYNC); /* a crash may come at any time now */
    uint64_t instance = atomic_load(&page->instance);
    while (!instance)
        random_fill(&instance, sizeof instance);
    atomic_store(&page->instance, instance);
    atomic_store(&page->shared_is_quick, 0);
}

int fleet_page_close(struct fleet_page *page)
{
    atomic_store(&page->closed, 1);
    return msync(page, sizeof *page, MS_SYNC) < 0 ? -errno : 0;
}

void fleet_note_cause(struct fleet_page *page, uint64_t seq, uint64_t id, const char *host)
{
    const uint64_t n = atomic_fetch_add(&page->causes, 1);
    struct fleet_cause *c = &page->cause[n % FLEET_CAUSES];
    atomic_store(&c->seq, 0);
    atomic_store(&c->id, id);
    snprintf(c->host, sizeof c->host, "%s", host);
    atomic_store(&c->seq, seq);
}

bool fleet_cause_of(const struct fleet_page *page, uint64_t seq, uint64_t *id,
                    char host[FLEET_HOST_SIZE])
{
    for (size_t i = 0; seq && i < FLEET_CAUSES; i++) {
        const struct fleet_cause *c = &page->cause[i];
        if (atomic_load(&c->seq) != seq)
            continue;
        *id = atomic_load(&c->id);
        memcpy(host, c->host, FLEET_HOST_SIZE);
        host[FLEET_HOST_SIZE - 1] = 0;
        return atomic_load(&c->seq) == seq;
    }
    return false;
}
