/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * problem: the errors Polder makes itself, as application/problem+json (RFC 9457).
 * The table libshared/tables/problems.def has status, type, title and default detail of each.
 */
#ifndef POLDER_PROBLEM_H
#define POLDER_PROBLEM_H
#include <stddef.h>

enum problem {
#define PROBLEM(id, status, type, title, detail) PROBLEM_##id,
#include "../../libshared/tables/problems.def"
#undef PROBLEM
    PROBLEMS
};
unsigned problem_status(enum problem p);
const char *problem_title(enum problem p);
const char *problem_reason(unsigned status); /* the HTTP reason phrase, "" where unknown */

/* Writes a complete HTTP/1.1 response without Connection handling: status line, Date is NOT
 * included, Content-Type, Content-Length, Cache-Control: no-store, `extra` (complete lines, may be
 * ""), blank line, body. members: further JSON members starting with ',' (may be ""). Returns the
 * length, 0 where out is too small. */
size_t problem_render(enum problem p, const char *extra, const char *members, char *out,
                      size_t size);
#define PROBLEM_RENDER_MAX 2048

/* The JSON alone. Texts must not need JSON escapes. type and members may be NULL. Returns the
 * length, 0 where out is too small. */
#define PROBLEM_TYPE "application/problem+json"
struct problem_body {
    const char *type, *title, *detail, *members;
};
size_t problem_write_body(unsigned status, const struct problem_body *body, char *out, size_t size);
#endif
