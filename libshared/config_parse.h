/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_parse: what the parts of the configuration reader share. Private to libshared/config_*.c.
 *
 * The way of a file: config_text.c reads it and walks over its tokens (lines of sections, unset
 * variables), config_parse.c lets libconfuse parse it and checks each value where it stands,
 * config_build.c makes the tree and checks what values have to do with each other.
 */
#ifndef POLDER_CONFIG_PARSE_H
#define POLDER_CONFIG_PARSE_H
#include "polder/config.h"

#include <confuse.h>

enum config_type {
    TYPE_STRING,
    TYPE_STRINGS,
    TYPE_BOOL,
    TYPE_COUNT,
    TYPE_NUMBER,
    TYPE_DURATION,
    TYPE_TTL, /* duration or "heuristic" */
    TYPE_SIZE,
    TYPE_MODE,
    TYPE_ADDRESS,
    TYPE_ADDRESSES,
    TYPE_NETS,
    TYPE_PATH,     /* of a file, absolute */
    TYPE_URL_PATH, /* starts with '/' */
    TYPE_KEYS,
    TYPE_ACCESS_LOG,
    TYPE_ALGORITHM,
    TYPE_HEARTBEAT,
    TYPE_MISSING,
    TYPE_SEVERITY,
};

struct config_row {
    const char *section, *key;
    enum config_type type;
    uint64_t least, most;
    const char *initial, *help;
};
extern const struct config_row config_rows[];
extern const size_t config_rows_count;
const struct config_row *config_row_find(const char *section, const char *key);

/* Where a key or a section was written. */
struct config_place {
    const cfg_t *section;
    const char *key;
    int line;
};
struct config_section_line {
    char name[16];
    uint32_t parent; /* ordinal of the enclosing section among its kind; 0 at the top */
    int line;
};

struct config_parse {
    const char *path;
    struct config_arena *arena;
    config_error_fn on_error;
    void *arg;
    int errors;
    cfg_t *root;
    struct config_place *places;
    size_t n_places;
    struct config_section_line *sections;
    size_t n_sections;
};

void config_complain(struct config_parse *p, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* config_text.c: the file's bytes, NUL-terminated, malloc()ed; NULL after a complaint. */
char *config_text_read(struct config_parse *p);
/* Finds unset variables, fills p->sections, blanks comments. */
void config_text_scan(struct config_parse *p, char *text);
/* Line of the nth section of that name (below the parent-th enclosing one). */
int config_section_line(const struct config_parse *p, const char *name, uint32_t parent,
                        uint32_t nth);

/* config_types.c: a value as text. Returns NULL and sets *number or *real (either may be NULL), or
 * says what would be right. */
const char *config_value(const struct config_row *row, const char *text, uint64_t *number,
                         double *real);
int config_address_parse(struct config_arena *arena, const char *text, bool resolve,
                         struct config_address *address, const char **why);

/* config_parse.c */
cfg_t *config_parse_text(struct config_parse *p, const char *text);
int config_line_of(const struct config_parse *p, const cfg_t *section, const char *key);
const char *config_nearest(const char *word, const char *section);

/* config_build.c */
struct config *config_build(struct config_parse *p);
#endif
