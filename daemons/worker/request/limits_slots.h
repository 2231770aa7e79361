/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits_slots: requests under way (`concurrent`) of limits that hold over all hosts of the fleet
 * (polder/fleet_slots.h). Where this host holds too few the request waits (limits_wait.h).
 */
#ifndef POLDER_WORKER_REQUEST_LIMITS_SLOTS_H
#define POLDER_WORKER_REQUEST_LIMITS_SLOTS_H
#include "daemons/worker/request/limits.h"
#include "polder/fleet_slots.h"

enum limits_slots {
    LIMITS_SLOTS_ENTERED, /* and noted in client.inside */
    LIMITS_SLOTS_REFUSES,
    LIMITS_SLOTS_WAITS,
};
/* known: only hashed keys are; then it must go the long way. */
enum limits_slots limits_slots_enter(struct worker *w, const struct request *r,
                                     const struct config_limit *l,
                                     const struct runtime_limit *value, bool known,
                                     struct limit_bill *bill);
/* The store has answered since its row had so many answers, or will not. */
bool limits_slots_is_due(const struct worker *w, uint64_t id, uint32_t answers, uint64_t now_ms);
/* Each second: what this host held has ended, and with it the requests that have it. */
void limits_slots_follow(struct worker *w);
#endif
