/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ops: pages for people and monitoring, over HTTP. From the bottom up:
 *
 *   text.c       a growing text
 *   page.c       how a page answers
 *   health.c     /healthz, /readyz and the conditions document
 *   query.c      parameters of a page
 *   history.c    the last 24 hours
 *   telemetry.c  the other documents under /api/telemetry; telemetry_limits.c, telemetry_routes.c,
 *                telemetry_upstreams.c, telemetry_openapi.c, overview.c
 *   sections.c   those of the dashboard; sample.c and tail.c: its other data
 *   live.c       /events: sections as they change
 *   dashboard.c  the dashboard and the runbook, as they were built from ../dashboard/
 *   host.c       checks the Host of requests
 *   metrics.c    /metrics; beside it metrics_X.c: names and types (family), what is asked for
 *                (query), forms (writer, protobuf), rows (names, rows)
 *   pages.c      the table of pages, and the index
 *   ops.c        the addresses where they are served
 *
 * A page is a function `void x_page(struct control *, const struct http_call *)` and a row of the
 * table in pages.c: routing, the index and the texts of 404 come from that.
 */
#ifndef POLDER_CONTROL_OPS_H
#define POLDER_CONTROL_OPS_H

struct control;
struct ops;

struct ops *ops_new(struct control *c);
void ops_free(struct ops *ops);
void ops_follow(struct ops *ops); /* opens what the configuration wants, closes what it does not */
void ops_tick(struct ops *ops);   /* each second */
#endif
