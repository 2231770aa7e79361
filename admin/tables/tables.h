/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tables: answers for people, a form a file. Private to admin/.
 *
 *   print.c    which form an answer has
 *   map.c      lines of name and value; "before" and "after" are the changes between them. A list is a
 *              table, or blocks of such lines where its rows have many members
 *   changes.c  those
 *   list.c     a list of maps as a table; which columns matter for which method
 *   rows.c     a table
 *   value.c    one value, by its key; "file" is what the configuration file says where it differs
 *   name.c     keys as headings, columns
 *   bars.c     values as a line of bars
 *   ws_stats.c, ...  forms of single methods
 *
 * Units are those of polder/units.h.
 */
#ifndef POLDER_ADMIN_TABLES_H
#define POLDER_ADMIN_TABLES_H
#include "admin/polderctl.h"
#include <stdbool.h>

#define TABLE_CELL 512
#define TABLE_NAME 80

/* ---- value.c ---- */
/* Nothing in it reaches the terminal as a command. */
void table_text(const char *text, size_t len, char *out);
/* The same of a text in a map; "" where there is none. Returns out. */
const char *table_text_of(const msgpack_object *map, const char *key, char out[TABLE_CELL]);
void table_value(const char *key, const msgpack_object *o, char *out);
/* The cell of a row; with what the file says where that differs. */
void table_cell(const msgpack_object *row, const char *key, char *out);
bool table_number(const msgpack_object *o, double *n);
/* "key", or "map.key" for what stands in a map of the row. */
const msgpack_object *table_member(const msgpack_object *row, const char *key);
/* Neither absent, nor 0, nor empty; or the file says something else. */
bool table_tells(const msgpack_object *row, const char *key);
bool table_equal(const msgpack_object *a, const msgpack_object *b);
bool table_ends(const char *text, const char *end);

/* ---- name.c ---- */
/* "window_ms" is shown as "window", "maxConnections" as "max connections". */
void table_name(const char *key, char *out);
void table_heading(const char *key, char *out);
bool table_key(const msgpack_object_kv *kv, char *out); /* out[64] */
int table_width(const char *text);                      /* in characters, not bytes */
void table_pad(FILE *to, const char *text, int width, bool right, bool last);

/* ---- bars.c ---- */
bool table_utf8(void); /* may bars of eighths be shown? */
/* One of a line of bars that stand on `low`; NaN is a gap. */
const char *table_bar(double value, double low, double high, bool utf8);

/* ---- rows.c ---- */
bool table_is_rows(const msgpack_object *o); /* a list of maps */
/* columns NULL: those of the first row. */
void table_rows(FILE *to, const msgpack_object *list, const char *columns);

/* ---- list.c, map.c, changes.c ---- */
/* False: it has too many columns, and nothing was printed. */
bool table_columns(FILE *to, enum rpc_method method, const msgpack_object *list);
void table_list(FILE *to, enum rpc_method method, const msgpack_object *list);
void table_map(FILE *to, enum rpc_method method, const msgpack_object *map, const char *indent);
void table_changes(FILE *to, const msgpack_object *before, const msgpack_object *after);

/* ---- forms ---- */
void form_ws_stats(FILE *to, const msgpack_object *result);
void form_history(FILE *to, const msgpack_object *result);
void form_alert_list(FILE *to, const msgpack_object *result);
#endif
