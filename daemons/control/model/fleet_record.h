/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_record: what a host says of itself in the store's list of hosts, as words of text:
 *
 *   INSTANCE EPOCH APPLIED UNTIL   of its lease; UNTIL is the store's, in ms of its clock
 *   FORMAT                         of all keys of the fleet; 1 says nothing after UNTIL
 *   SEQ                            larger in each renewal of an instance
 *   ENTRY OBJECT PROGRAM           versions: of what it writes to the log, of shared objects, of polderd
 *   MAC                            the first 16 bytes of HMAC-SHA256 over the host's name and all words
 *                                  but UNTIL, keyed by the fleet's name and secret
 *
 * This never changes, but that more words may come before MAC: hosts of all formats read each other's.
 */
#ifndef POLDER_CONTROL_FLEET_RECORD_H
#define POLDER_CONTROL_FLEET_RECORD_H
#include "daemons/control/model/fleet_entry.h"

/* Of keys and scripts. Hosts of one format are members at a time; the log's entries and the shared objects have
 * versions of their own, with which hosts live side by side. */
#ifndef FLEET_FORMAT
#define FLEET_FORMAT 2
#endif
#define FLEET_PROGRAM_SIZE 32
#define FLEET_RECORD_MAX   256 /* bytes of one */
#define FLEET_TAIL_SIZE    160 /* from FORMAT on */

struct fleet_record {
    uint64_t instance, epoch, applied, until_ms, seq;
    uint32_t format, entry, object;
    char program[FLEET_PROGRAM_SIZE];
};
void fleet_record_key(const struct fleet_key *fleet, struct fleet_key *key);
/* What stands behind UNTIL in a record of this program; of *r the instance, epoch, applied and seq. */
void fleet_record_tail(const struct fleet_record *r, const char *host, const struct fleet_key *key,
                       char out[FLEET_TAIL_SIZE]);
/* 0; -EPERM: it is a record, and not signed with that key; -EINVAL: it is none. */
int fleet_record_read(const char *host, size_t host_len, const char *text, size_t len,
                      const struct fleet_key *key, struct fleet_record *out);
#endif
