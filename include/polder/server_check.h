/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_check: what active checks have found out about a server, in its shared row
 * (server_state.h).
 *
 * Control alone makes checks and writes here, by single stores; all others read. A control that
 * takes over finds the last state, and counts passes and failures in a row from 0 again.
 */
#ifndef POLDER_SERVER_CHECK_H
#define POLDER_SERVER_CHECK_H
#include "polder/field.h"
#include "polder/server_state.h"

/* How a check ended. CHECK(id, metric label, text of the condition) */
#define SERVER_CHECK_TABLE(CHECK)                                                                  \
    CHECK(PASSED, "passed", "passed")                                                              \
    CHECK(STATUS, "status", "unexpected status")                                                   \
    CHECK(BODY, "body", "unexpected body")                                                         \
    CHECK(TIMEOUT, "timeout", "no answer in time")                                                 \
    CHECK(CONNECT, "connect", "no connection")                                                     \
    CHECK(MALFORMED, "malformed", "malformed answer")                                              \
    CHECK(NO_ADDRESS, "no_address", "name without an address")
enum server_check_result {
#define CHECK(id, label, text) SERVER_CHECK_##id,
    SERVER_CHECK_TABLE(CHECK)
#undef CHECK
        SERVER_CHECK_RESULTS
};
const char *server_check_label(enum server_check_result result);
const char *server_check_text(enum server_check_result result);

struct server_check {
    bool known; /* there have been checks, and all else here is of them */
    bool down, drain;
    enum server_check_result last; /* UP: of the last check that failed, or PASSED */
    uint32_t percent;              /* of its weight that it asks for */
    uint64_t since_ms;             /* is down, or not, since then (mono) */
};
struct server_check server_check_read(const struct server_row *row);
/* Why it gets no requests: "connection refused", "health check: unexpected status". row NULL: "-".
 */
#define SERVER_WHY 64
const char *server_why_down(const struct server_row *row, char out[SERVER_WHY]);

/* ---- control ---- */
/* Results in a row. */
struct server_check_trend {
    uint32_t passed, failed;
};
/* A check has ended. True: it is down by that, or not any more. */
bool server_check_note(struct server_row *row, struct server_check_trend *trend,
                       enum server_check_result result, uint32_t rise, uint32_t fall,
                       uint64_t now_ms);
/* What an answer says in Polder-Weight: "0" to "100", with or without "%", or "drain". False: it
 * cannot be read. */
bool server_check_parse_weight(struct str text, uint32_t *percent, bool *drain);
/* True: that is something else than before. */
bool server_check_set_weight(struct server_row *row, uint32_t percent, bool drain);
/* Of a table that is kept: what cannot be is as if it had never been checked. */
void server_check_mend(struct server_row *row, uint64_t now_ms);
/* It is checked no more. True: it was down by checks. */
bool server_check_end(struct server_row *row);

/* ---- the configuration ---- */
/* "200-299,304": statuses that pass. */
#define SERVER_CHECK_STATUSES 16
struct server_check_statuses {
    uint32_t n;
    struct {
        uint16_t from, to;
    } range[SERVER_CHECK_STATUSES];
};
/* False: it is none such. */
bool server_check_parse_statuses(const char *text, struct server_check_statuses *out);
bool server_check_passes(const struct server_check_statuses *list, unsigned status);
#endif
