/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_query: parses which families of /metrics a scraper wants, and in which form.
 *
 *   ?scope=cache,limits        families of these scopes alone
 *   ?metrics=cache_items       families of these names alone, with or without "polder_" and suffix
 *   ?metrics=-route_*          and not these; a '*' at the end stands for any rest
 *
 * The form is the one that Accept prefers. Knows nothing of control.
 */
#ifndef POLDER_CONTROL_METRICS_QUERY_H
#define POLDER_CONTROL_METRICS_QUERY_H
#include "daemons/control/ops/metrics_family.h"
#include "polder/field.h"

#define METRICS_NAMES_MAX 64
#define METRICS_QUERY_MAX 2048

enum metrics_form { METRICS_TEXT, METRICS_OPENMETRICS, METRICS_PROTOBUF, METRICS_FORMS };

struct metrics_name {
    const char *at; /* in the query's text */
    uint16_t len;
    bool any_rest; /* what begins so */
    bool out;      /* not these */
};
struct metrics_query {
    uint32_t scopes; /* bits; 0: all */
    struct metrics_name name[METRICS_NAMES_MAX];
    uint32_t names;
    bool chosen; /* some are asked for by name: only those */
    char text[METRICS_QUERY_MAX];
};

/* NULL, or what is wrong, for the client. query: without '?'. */
const char *metrics_query_parse(struct metrics_query *q, struct str query);
bool metrics_query_wants(const struct metrics_query *q, const char *family);
/* accept: all its lines, joined. */
enum metrics_form metrics_form_of(struct str accept);
const char *metrics_form_type(enum metrics_form form);
#endif
