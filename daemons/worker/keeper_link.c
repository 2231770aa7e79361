/* SPDX-License-Identifier: BSD-2-Clause */
/* keeper_link: see keeper_link.h. */
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/permit.h"
#include "daemons/worker/worker.h"
#include "polder/cache.h"

int keeper_link_push(struct worker *w, enum ring_type type, uint64_t stream, struct permit *permit,
                     const struct iovec *iov, int n)
{
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    const struct ring_record head = {.len = (uint32_t)len,
                                     .type = (uint16_t)type,
                                     .incarnation = w->process->incarnation,
                                     .stream = stream,
                                     .permit = permit && permit_is_held(permit) ? permit->lock
                                                                                : FETCH_LOCK_NONE};
    const int rc = ring_push(w->keeper.ring, &head, iov, n, w->shared->keeper_event);
    if (permit && rc == 0)
        permit_pass_on(w, permit);
    return rc;
}

void keeper_link_delete(struct worker *w, const struct cache_key *key)
{
    const struct iovec iov = {(void *)key, sizeof *key};
    keeper_link_push(w, RING_DELETE, 0, NULL, &iov, 1);
}

void keeper_link_delete_object(struct worker *w, const struct cache_key *key, uint64_t obj_id)
{
    const struct iovec iov[2] = {{(void *)(uintptr_t)key, sizeof *key}, {&obj_id, sizeof obj_id}};
    keeper_link_push(w, RING_DELETE, 0, NULL, iov, 2);
}

void keeper_link_flush(struct worker *w)
{
    while (w->keeper.n_aborts) {
        if (keeper_link_push(w, RING_ABORT, w->keeper.aborts[w->keeper.n_aborts - 1], NULL, NULL,
                             0) < 0)
            return;
        w->keeper.n_aborts--;
    }
}

void keeper_link_abort(struct worker *w, uint64_t stream)
{
    if (keeper_link_push(w, RING_ABORT, stream, NULL, NULL, 0) == 0)
        return;
    if (w->keeper.n_aborts < sizeof w->keeper.aborts / sizeof *w->keeper.aborts)
        w->keeper.aborts[w->keeper.n_aborts++] = stream;
}
