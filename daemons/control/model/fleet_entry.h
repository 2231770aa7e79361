/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_entry: an entry of the fleet's log as bytes.
 *
 *   version, kind, flags (1: soft, 2: waited), length of the host's name: a byte each
 *   instance of the host, and the number of inval.h there before its own mark: 8 bytes each, little
 *   endian
 *   the host's name, the text
 *   the first 16 bytes of HMAC-SHA256 over all before, keyed by the fleet's name and secret
 *
 * What is signed otherwise is a stranger's. What is signed right and cannot be understood comes from
 * a newer version: it may have invalidated anything.
 */
#ifndef POLDER_CONTROL_FLEET_ENTRY_H
#define POLDER_CONTROL_FLEET_ENTRY_H
#include "polder/fleet.h"
#include <stddef.h>
#include <stdint.h>

#ifndef FLEET_ENTRY_VERSION
#define FLEET_ENTRY_VERSION 3
#endif
#define FLEET_TEXT_MAX  16384
#define FLEET_ENTRY_MAX (20 + FLEET_HOST_SIZE + FLEET_TEXT_MAX + FLEET_MAC)
#define FLEET_MAC       16

struct fleet_key {
    uint8_t bytes[32];
};
/* From name and secret. */
void fleet_key_make(struct fleet_key *key, const char *name, const char *secret);

struct fleet_entry {
    enum fleet_kind kind;
    bool soft;
    bool waited;       /* a caller waits there until all have it */
    uint64_t instance; /* of the host that wrote it */
    uint64_t before;   /* its own mark there has a larger number */
    char host[FLEET_HOST_SIZE];
    size_t len;
    const char *text; /* of len bytes, not terminated; into the bytes that were read */
};
/* The length; 0: the text or the name is too long. */
size_t fleet_entry_write(const struct fleet_entry *e, const struct fleet_key *key,
                         uint8_t out[FLEET_ENTRY_MAX]);
/* 0; -EPERM: not signed with that key; -ENOTSUP: signed, but of an unknown version or kind, or
 * malformed. */
int fleet_entry_read(const uint8_t *bytes, size_t len, const struct fleet_key *key,
                     struct fleet_entry *e);
#endif
