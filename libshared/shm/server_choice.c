/* SPDX-License-Identifier: BSD-2-Clause */
/* server_choice: see server_choice.h. */
#include "polder/server_choice.h"
#include "polder/stats.h"

#define LATE_MS        10000 /* overdue for this long: any request may be the trial */
#define TRIAL_SPARE_MS 1000

static bool option_is_up(const struct server_option *o)
{
    return !o->row || server_is_up(o->row);
}

/* It is down with a trial due, which this request becomes. */
static bool try_it(const struct server_choice *c, const struct server_option *o, uint64_t *lease_ms)
{
    const struct config_upstream *u = c->upstream;
    const uint64_t lasts_ms = (uint64_t)u->connect_timeout_ms + u->timeout_ms + TRIAL_SPARE_MS;
    if (!option_is_up(o) && o->weight && !o->tried && !o->full &&
        server_try(o->row, c->now_ms, c->repeatable ? 0 : LATE_MS, lasts_ms, lease_ms))
        return true;
    *lease_ms = 0;
    return false;
}

static int trial(const struct server_choice *c, uint64_t *lease_ms)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (try_it(c, &c->option[i], lease_ms))
            return (int)i;
    return SERVER_CHOICE_NONE;
}

/* Who may have a turn: the first kind of which there is one. */
enum rank { RANK_UP, RANK_BACKUP, RANK_DRAINS, RANK_ANY, RANKS };

static bool option_has_rank(const struct server_option *o, enum rank rank)
{
    if (!o->weight || o->tried)
        return false;
    if (rank == RANK_ANY)
        return true;
    if (o->avoid || !option_is_up(o))
        return false;
    const bool drains = o->row && server_drains(o->row);
    return rank == RANK_DRAINS ? drains : !drains && o->backup == (rank == RANK_BACKUP);
}

/* One that is down keeps its share, for when it is back: then it warms up. */
static int64_t share_of(const struct server_choice *c, const struct server_option *o)
{
    if (!o->row)
        return (int64_t)o->weight * SERVER_SHARE * 100;
    const uint32_t percent = server_drains(o->row) ? 100 : server_percent(o->row);
    const uint32_t warmth = server_is_up(o->row)
                                ? server_warmth(o->row, c->upstream->slow_start_ms, c->now_ms)
                                : SERVER_SHARE;
    return (int64_t)o->weight * percent * warmth;
}

/* Is its turn before that of the best one so far? */
static bool is_before(const struct server_choice *c, const struct server_option *o, int64_t share,
                      const struct server_option *best, int64_t best_share)
{
    if (c->upstream->balance == CONFIG_BALANCE_FEWEST) {
        const double busy = (double)o->busy * (double)best_share;
        const double than = (double)best->busy * (double)share;
        if (busy < than || busy > than)
            return busy < than;
    }
    return *o->turn > *best->turn;
}

/* Turns that were not taken, because others had less to do, are not saved up. */
static void bound_turns(const struct server_choice *c, int64_t total)
{
    for (uint32_t i = 0; i < c->n; i++) {
        int64_t *at = c->option[i].turn;
        *at = *at > total ? total : *at < -total ? -total : *at;
    }
}

/* One turn among those of the rank. */
static int turn(const struct server_choice *c, enum rank rank)
{
    int best = SERVER_CHOICE_NONE;
    int64_t total = 0, best_share = 0;
    bool full = false;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct server_option *o = &c->option[i];
        if (!option_has_rank(o, rank))
            continue;
        full |= o->full;
        if (o->full)
            continue;
        const int64_t share = share_of(c, o);
        *o->turn += share;
        total += share;
        if (best < 0 || is_before(c, o, share, &c->option[best], best_share)) {
            best = (int)i;
            best_share = share;
        }
    }
    if (best >= 0)
        *c->option[best].turn -= total;
    if (c->upstream->balance == CONFIG_BALANCE_FEWEST)
        bound_turns(c, total);
    return best < 0 && full ? SERVER_CHOICE_FULL : best;
}

/* ---- by a key ---- */

/* That of the key, among those that are asked while all is well; a session's own also while it
 * drains. only_up: and that take a request now. */
static int keeper(const struct server_choice *c, bool only_up)
{
    int best = SERVER_CHOICE_NONE;
    double lowest = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct server_option *o = &c->option[i];
        if (!o->weight || o->tried || (only_up && (o->full || !option_is_up(o))))
            continue;
        const uint64_t id = stats_server_id(&c->upstream->servers[i]);
        if (c->sticky->server == sticky_server_part(id))
            return (int)i;
        if (o->backup || (o->row && server_drains(o->row)))
            continue;
        const double score = sticky_score(c->sticky->hash, id, (double)share_of(c, o));
        if (best < 0 || score < lowest) {
            best = (int)i;
            lowest = score;
        }
    }
    return best;
}

/* A kept connection that was closed says nothing of its server: `avoid` does not count. */
static int by_key(const struct server_choice *c, uint64_t *lease_ms)
{
    const int i = c->sticky && c->sticky->hash ? keeper(c, false) : SERVER_CHOICE_NONE;
    *lease_ms = 0;
    if (i < 0 || (option_is_up(&c->option[i]) && !c->option[i].full) ||
        try_it(c, &c->option[i], lease_ms))
        return i;
    return keeper(c, true);
}

int server_choose(const struct server_choice *choice, uint64_t *lease_ms)
{
    int i = by_key(choice, lease_ms);
    if (i == SERVER_CHOICE_NONE)
        i = trial(choice, lease_ms);
    for (enum rank rank = RANK_UP; i == SERVER_CHOICE_NONE && rank < RANKS; rank++)
        i = turn(choice, rank);
    return i;
}

bool server_choice_has_other(const struct server_choice *choice, uint32_t than)
{
    for (uint32_t i = 0; i < choice->n; i++) {
        const struct server_option *o = &choice->option[i];
        if (i != than && o->weight && option_is_up(o) && !(o->row && server_drains(o->row)))
            return true;
    }
    return false;
}

bool server_choice_stays_ejected(const struct server_choice *choice, uint32_t i)
{
    atomic_thread_fence(memory_order_seq_cst); /* of two that look, one sees both moves */
    if (server_choice_has_other(choice, i))
        return true;
    server_readmit(choice->option[i].row, choice->now_ms);
    return false;
}

void server_choice_error(const struct server_choice *choice, uint32_t i,
                         const struct server_name *name, bool trial)
{
    const bool others = choice->upstream->eject && server_choice_has_other(choice, i);
    if (server_report_error(name, trial, others, choice->now_ms) &&
        server_choice_stays_ejected(choice, i))
        server_report_ejection(name, SERVER_STATUS);
}
