/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_object: a stored response as bytes in the store of the fleet.
 *
 *   version, coding (0 none, 1 zstd): a byte each; 2 bytes of nothing; length of the origin, 2 bytes,
 *   2 of nothing; length of the rest before it was encoded, 4 bytes, 4 of nothing; epoch, and number
 *   of the log when it was fetched, 8 bytes each; all little endian
 *   struct cache_record, url, vary, head, short body, origin, long body: encoded as a whole
 *   the first 16 bytes of HMAC-SHA256 over the name that it lies under and all before
 *
 * The times in its record are the store's. The name is made of the URL, its partition, and the text that
 * selects the variant, with the fleet's secret and the version: other versions have other names. Under the
 * name of a URL that varies lies a vary_record, as in a host's own store.
 */
#ifndef POLDER_CONTROL_FLEET_OBJECT_H
#define POLDER_CONTROL_FLEET_OBJECT_H
#include "daemons/control/model/fleet_entry.h"
#include "polder/cache.h"
#include "polder/field.h"
#include "polder/ring.h"

#ifndef FLEET_OBJECT_VERSION
#define FLEET_OBJECT_VERSION 2
#endif
#define FLEET_OBJECT_HEAD  32
#define FLEET_OBJECT_PLAIN (RING_RECORD_MAX + FLEET_BODY_MAX)
#define FLEET_OBJECT_MAX   (FLEET_OBJECT_HEAD + FLEET_OBJECT_PLAIN + FLEET_MAC)

struct fleet_object_name {
    char hex[33];
};
/* From that of the fleet: for names and objects alone. */
void fleet_object_key(const struct fleet_key *fleet, struct fleet_key *key);
/* What it is made of. vary: "" for the URL itself. */
struct fleet_object_of {
    struct str url, partition, vary;
};
void fleet_object_name_of(const struct fleet_key *key, const struct fleet_object_of *what,
                          struct fleet_object_name *name);

struct fleet_object {
    uint64_t epoch, applied;
    const struct cache_record *record; /* url, vary, head and body behind it */
    size_t record_len;
    const char *origin;
    size_t origin_len;
    const char *body; /* of a record with CACHE_CHUNKED_BODY */
    size_t body_len;
};
/* Whether all lengths fit, and it is nothing that only one client may have. The record is aligned. */
bool fleet_object_is_sound(const struct fleet_object *o);
/* The length; 0: it is not sound. */
size_t fleet_object_write(const struct fleet_object *o, const struct fleet_key *key,
                          const struct fleet_object_name *name, uint8_t out[FLEET_OBJECT_MAX]);
/* 0; -EPERM: not signed with that key for that name; -ENOTSUP: of another version, or not sound. space:
 * aligned, FLEET_OBJECT_PLAIN bytes, which *o leads into. */
int fleet_object_read(const uint8_t *bytes, size_t len, const struct fleet_key *key,
                      const struct fleet_object_name *name, char *space, struct fleet_object *o);
#endif
