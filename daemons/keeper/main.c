/* SPDX-License-Identifier: BSD-2-Clause */
/* main: the keeper's first and last steps. */
#include "daemons/keeper/keeper.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/sandbox.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct keeper *keeper_new(const struct process *process)
{
    struct keeper *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->process = process;
    k->shared = process->shared;
    k->slot = &k->shared->proc->slot[process->slot];
    k->stats = &k->shared->stats[process->slot];
    snprintf(k->state_dir, sizeof k->state_dir, "%s", process->region->config->state_dir);
    snprintf(k->runtime_dir, sizeof k->runtime_dir, "%s", process->region->config->runtime_dir);
    k->region = UINT32_MAX;
    k->rotate.lock = -1;
    k->store.inval = k->shared->inval;
    k->store.shared = k->shared->cache;
    k->store.ref = k->shared->ref;
    k->store.stats = k->stats;
    if (store_init(&k->store) == 0 && intake_init(k) == 0 && keeper_loop_open(k) == 0)
        return k;
    store_fini(&k->store);
    intake_fini(k);
    free(k);
    return NULL;
}

static void keeper_free(struct keeper *k)
{
    keeper_loop_close(k);
    intake_fini(k);
    store_fini(&k->store);
    if (k->rotate.lock >= 0)
        close(k->rotate.lock);
    free(k);
}

static bool lmdb_is_known(const struct keeper *k)
{
    const char *version = store_unknown_format();
    if (!version)
        return true;
    log_error("keeper: LMDB %s has another file format than 0.9; serving without storing", version);
    condition_raise(k->shared->conditions, COND_STORE_OFF, NULL, "LMDB has another file format",
                    clock_real_ms());
    return false;
}

int keeper_run(const struct process *process)
{
    process_start(process, "keeper");
    struct keeper *k = keeper_new(process);
    if (!k) {
        log_error("keeper: cannot start: %s", strerror(errno));
        return 1;
    }
    map_fault_install(k->shared, process->slot);
    map_fault_enter();
    /* Before it opens the store, which is not trusted. */
    sandbox_enter_or_warn(SANDBOX_KEEPER, process->region->config->sandbox);
    keeper_time(k);
    keeper_follow_limits(k);
    if (lmdb_is_known(k))
        rotate_start(k);
    else
        k->rotate.retry_ms = UINT64_MAX;
    keeper_gauges(k);
    const int rc = inspect_open(k);
    if (rc < 0)
        log_warning("keeper: cannot listen on %s/keeper.sock: %s; cache list and cache show will "
                    "not work",
                    k->runtime_dir, strerror(-rc));
    process_ready(process);
    keeper_loop(k);
    inspect_close(k);
    rotate_stop(k);
    keeper_free(k);
    return 0;
}
