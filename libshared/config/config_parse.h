/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_parse: what the parts of the configuration reader share. Private to libshared/config_*.c.
 *
 * The way of a file: config_text.c reads it and makes tokens of it (unset variables, strings
 * without an end), config_outline.c walks over them (unknown and repeated keys, lines of sections),
 * config_parse.c lets libconfuse parse it and checks each value where it stands (config_types.c,
 * config_key_parts.c, config_address.c), config_build.c
 * and the files beside it (config_build.h) make the tree and check what values have to do with each
 * other.
 */
#ifndef POLDER_LIBSHARED_CONFIG_CONFIG_PARSE_H
#define POLDER_LIBSHARED_CONFIG_CONFIG_PARSE_H
#include "polder/config.h"
#include "polder/config_keys.h"

#include <confuse.h>

#define CONFIG_ERRORS_MAX   100
#define CONFIG_WARNINGS_MAX 64

/* A section and what it may stand in. */
struct config_section_row {
    const char *name, *parent;
    bool titled;
    uint32_t max;
    enum config_section keys; /* which it has */
};
extern const struct config_section_row config_section_rows[];
extern const size_t config_section_rows_count;

/* Where a value or a section was written. */
struct config_place {
    const cfg_t *section;
    const char *key;
    uint32_t nth; /* of a list */
    int line;
};
struct config_section_line {
    const struct config_section_row *row;
    uint32_t parent; /* ordinal of the enclosing section among those at the top; 0 at the top */
    int line;
    const char *title; /* in the text, title_len bytes */
    size_t title_len;
};

struct config_parse {
    const char *path;
    struct config_arena *arena;
    config_error_fn on_error;
    void *arg;
    int errors;
    bool understood; /* the outline is complete: libconfuse should have no complaints */
    cfg_t *root;
    struct config_place *places;
    size_t n_places, places_room;
    struct config_section_line *sections;
    size_t n_sections, sections_room;
    int *muted; /* lines that get no further message */
    size_t n_muted;
    uint64_t said; /* hash of the last complaint: a value may be looked at twice */
    const char *warnings[CONFIG_WARNINGS_MAX]; /* in the arena */
    uint32_t n_warnings;
};

/* line 0: the file as a whole */
void config_complain(struct config_parse *p, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* What is valid but probably not meant: goes into config.warnings. line 0: the file as a whole */
void config_warn(struct config_parse *p, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* config_text.c: the file's bytes, NUL-terminated, malloc()ed; NULL after a complaint. */
char *config_text_read(struct config_parse *p);

enum config_token_kind {
    TOKEN_END,
    TOKEN_TEXT,
    TOKEN_ASSIGN, /* "=" or "+=" */
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_OTHER,
};
struct config_token {
    enum config_token_kind kind;
    char *at; /* as written, with quotes */
    size_t len;
    int line;
};
struct config_lexer {
    struct config_parse *p;
    char *at;
    int line;
    bool broken; /* libconfuse must not see it */
    bool lost;   /* ended before the text does */
};
/* The next one as libconfuse's lexer would make it; blanks comments on its way. */
struct config_token config_token_next(struct config_lexer *lexer);

/* config_outline.c: fills p->sections, reports and blanks unknown and repeated keys. False:
 * libconfuse must not see the text, and there has been a complaint. */
bool config_outline(struct config_parse *p, char *text);
/* Line of the nth section of that name (below the parent-th enclosing one). */
int config_section_line(const struct config_parse *p, const char *name, uint32_t parent,
                        uint32_t nth);

/* config_key_parts.c: `sticky`. NULL, or what is expected. arena NULL: only checked. */
const char *config_parse_sticky(struct config_arena *arena, const char *text,
                                struct config_key *key);
/* config_address.c: "HOST:PORT", "[V6]:PORT", "unix:/PATH". arena NULL: only checked. names: HOST may be
 * a name; then address->len is 0. */
int config_address_parse(struct config_arena *arena, const char *text, bool names,
                         struct config_address *address, const char **why);

/* config_parse.c: NULL after a complaint about the syntax. */
cfg_t *config_parse_text(struct config_parse *p, const char *text);
/* Line of a key's last value, and of the nth of a list; 0 where the file does not state it. */
int config_line_of(const struct config_parse *p, const cfg_t *section, const char *key);
int config_line_of_nth(const struct config_parse *p, const cfg_t *section, const char *key,
                       uint32_t nth);
/* "key = {a, b}" is right. */
bool config_row_is_list(const struct config_row *row);
/* A key or section that may stand where the keys of the section stand and is spelled almost like word;
 * NULL: none. */
const char *config_nearest(const char *word, enum config_section section);
/* Takes known for *best if it is nearer to word; *fewest starts with CONFIG_NEAR_EDITS. */
#define CONFIG_NEAR_EDITS 4
void config_nearer(const char *word, const char *known, const char **best, unsigned *fewest);

/* config_build.c */
struct config *config_build(struct config_parse *p);
#endif
