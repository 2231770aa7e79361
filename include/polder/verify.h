/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verify: the token of `polderctl verify` probes, in shared memory.
 *
 * Control hands out one token at a time: 128 random bits, valid until a time that the running
 * polderctl extends every few seconds. A request that carries it in the field Polder-Verify is a
 * probe: its counts, charges and stored responses are kept apart from those of clients. With an
 * invalid token it is an ordinary request. The field is never sent to a backend.
 *
 * Control alone writes: token and number first, until_ms last (release); a reader looks at until_ms
 * first (acquire). If control dies in between, no token is valid, and polderctl asks again. If
 * polderctl dies, the token is valid for VERIFY_LEASE_MS more.
 */
#ifndef POLDER_VERIFY_H
#define POLDER_VERIFY_H
#include "polder/field.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VERIFY_FIELD      "Polder-Verify"
#define VERIFY_LEASE_MS   15000
#define VERIFY_TOKEN_SIZE 33  /* 32 hexadecimal digits and a NUL */
#define VERIFY_HOST_SIZE  32  /* "verify-<16 digits>.invalid" and a NUL */
#define VERIFY_CLIENTS    254 /* that probes may pretend to be: 192.0.2.1 to 192.0.2.254 */

struct verify_lease {
    _Atomic uint64_t until_ms; /* mono; 0: no run */
    _Atomic uint64_t token[2];
    _Atomic uint64_t run; /* names its copies in the store, and its counts of limits; not secret */
};

enum verify_kind {
    VERIFY_NONE,    /* an ordinary request */
    VERIFY_REQUEST, /* handled as any request, but charged to no limit */
    VERIFY_LIMIT,   /* charged to the limits of its route and answered here: 204 or 429 */
    VERIFY_LOCAL    /* a WebSocket that no backend is asked for */
};
struct verify_probe {
    enum verify_kind kind;
    uint8_t client; /* 1 to VERIFY_CLIENTS */
    uint64_t run;
};

/* What a Polder-Verify field says: TOKEN[;client=N][;limit|;local]. kind VERIFY_NONE: nothing. */
struct verify_probe verify_look(const struct verify_lease *lease, uint64_t now_ms,
                                struct str value);
/* The host under which a run's copies are stored; its length. */
unsigned verify_host(uint64_t run, char out[VERIFY_HOST_SIZE]);
/* Is that the URL of such a copy? */
bool verify_is_url(const char *url, size_t len);

/* ---- for control ---- */
/* 0; -EBUSY: another run is under way; or another negative errno. */
int verify_begin(struct verify_lease *lease, uint64_t now_ms, char token[VERIFY_TOKEN_SIZE]);
/* Extends the lease; false: that token is not valid (any more). */
bool verify_keep(struct verify_lease *lease, uint64_t now_ms, struct str token);
/* Invalidates the token. */
void verify_end(struct verify_lease *lease);
/* The number of a run whose lease has expired; 0: there is none. */
uint64_t verify_expired(const struct verify_lease *lease, uint64_t now_ms);
#endif
