/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_import: stored responses on their way to the store of the fleet and back. There their times are
 * the store's, and nothing in them depends on this host's secret; here they are what a worker would have
 * stored, with CACHE_FROM_FLEET.
 */
#ifndef POLDER_CONTROL_FLEET_IMPORT_H
#define POLDER_CONTROL_FLEET_IMPORT_H
#include "daemons/control/model/fleet_object.h"
#include "polder/field.h"

struct control;
struct fleet;

struct fleet_handed {
    const char *payload; /* of FLEET_SHARE_PUT */
    size_t len;
    struct str body; /* that came in chunks */
};
/* The length; 0: it is not for the store (any more). *name: of its URL, ""
 * where there is none. *ms: how long it is fresh. */
size_t fleet_export(struct fleet *f, const struct fleet_key *key, const struct fleet_handed *handed,
                    uint8_t out[FLEET_OBJECT_MAX], struct fleet_object_name *name, uint64_t *ms);

struct fleet_question {
    const char *url;
    size_t url_len;
    const struct fleet_ask *ask;
    const struct fetch_permit *permit;
    const struct fleet_object_name *name;
};
enum fleet_import_result {
    FLEET_IMPORT_TAKEN,     /* it is with the keeper, which releases the permit */
    FLEET_IMPORT_OVERTAKEN, /* invalidated since, stale, of another history or other rules */
    FLEET_IMPORT_STRANGE,   /* signed otherwise, or not what it should be */
    FLEET_IMPORT_FULL,      /* there is no room in the ring */
};
enum fleet_import_result fleet_import(struct control *c, struct fleet *f,
                                      const struct fleet_key *key, const struct fleet_question *q,
                                      const uint8_t *bytes, size_t len);
#endif
