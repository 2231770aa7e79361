/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_import: stored responses on their way to the store of the fleet and back. There their times are
 * the store's, and nothing in them depends on this host's secret; here they are what a worker would have
 * stored, with CACHE_FROM_FLEET.
 *
 * An object is kept there for as long as it is of use, and longer where it may be stale or can be
 * validated: then a host that has nothing takes it, and asks the backend whether it is still good.
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
struct fleet_exported {
    struct fleet_object_name url, name; /* "": it has none. name: of its variant, or the URL's */
    uint64_t ms;                        /* how long it is kept */
    const uint8_t *bytes, *marks;       /* marks: the vary_record of the URL; both until the next */
    size_t len, marks_len;              /* 0: none */
};
/* len 0: it is not for the store (any more). */
void fleet_export(struct fleet *f, const struct fleet_key *key, const struct fleet_handed *handed,
                  struct fleet_exported *out);

struct fleet_question {
    struct fleet_object_of what;
    const struct fleet_ask *ask;
    const struct fetch_permit *permit;
    const struct fleet_object_name *name;
};
/* The first three: it is with the keeper, which releases the permit. */
enum fleet_import_result {
    FLEET_IMPORT_TAKEN,
    FLEET_IMPORT_VARIES,    /* now it is known here that the URL varies */
    FLEET_IMPORT_STALE,     /* it may be stale, or can be validated */
    FLEET_IMPORT_OLD,       /* no better than what is here */
    FLEET_IMPORT_AHEAD,     /* of what is applied here of the log, which is on its way */
    FLEET_IMPORT_OVERTAKEN, /* invalidated since, of another history or other rules */
    FLEET_IMPORT_STRANGE,   /* signed otherwise, or not what it should be */
    FLEET_IMPORT_FULL,      /* there is no room in the ring */
};
enum fleet_import_result fleet_import(struct control *c, struct fleet *f,
                                      const struct fleet_key *key, const struct fleet_question *q,
                                      const uint8_t *bytes, size_t len);
#endif
