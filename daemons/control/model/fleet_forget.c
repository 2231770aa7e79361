/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_forget: see fleet_forget.h. */
#include "daemons/control/model/fleet_forget.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct forgetting {
    fleet_forgot_fn done;
    void *arg;
};

/* [WORD, N] */
static void on_forgotten(void *arg, const redisReply *r)
{
    static const char *const words[] = {"forgotten", "lives", "unknown"};
    struct forgetting *f = arg;
    enum fleet_forgotten what = FLEET_FORGET_FAILED;
    uint64_t n = 0;
    const char *word = r ? fleet_reply_text(r, 0) : NULL;
    for (unsigned i = 0; word && i < sizeof words / sizeof *words; i++)
        if (!strcmp(word, words[i]) && fleet_reply_number(r, 1, &n))
            what = (enum fleet_forgotten)i;
    f->done(f->arg, what, n);
    free(f);
}

void fleet_forget(struct fleet *f, const char *host, fleet_forgot_fn done, void *arg)
{
    struct fleet_identity id;
    struct forgetting *requested = malloc(sizeof *requested);
    char hosts[96], holders[128], lease[16];
    fleet_identity(f, &id);
    snprintf(hosts, sizeof hosts, "polder:{%s}:hosts", id.name);
    snprintf(holders, sizeof holders, "polder:{%s}:slots:%" PRIu64 ":holders", id.name,
             fleet_epoch(f));
    snprintf(lease, sizeof lease, "%d", FLEET_LEASE_MS);
    const char *argv[] = {hosts, holders, host, lease};
    if (requested)
        *requested = (struct forgetting){done, arg};
    if (requested && fleet_run(f, FLEET_SCRIPT_FORGET, 2, 4, argv, on_forgotten, requested))
        return;
    free(requested);
    done(arg, FLEET_FORGET_FAILED, 0);
}
