/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_outline: which keys and sections a file has, found by a walk over its tokens before
 * libconfuse parses it. libconfuse stops at the first unknown key and does not tell where a section
 * began. Here all unknown and repeated ones are reported, and blanked, so that the rest can be
 * parsed and checked too. Where the syntax is wrong the walk ends without a word: libconfuse finds
 * it again and says what it is.
 */
#include "libshared/config/config_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX 4096
#define WORD_SIZE 64

struct outline {
    struct config_parse *p;
    struct config_lexer lexer;
    uint32_t tops;  /* sections at the top so far */
    int value_line; /* of the last value */
};

/* Where the walk is: in a section, or at the top (row NULL). */
struct place {
    const struct config_section_row *row;
    uint32_t ordinal; /* of the section at the top that it lies in, from 1 */
    int opened;       /* line */
};

static enum config_section keys_of(const struct place *in)
{
    return in->row ? in->row->keys : CONFIG_SECTION_TOP;
}

static void blank(struct outline *o, const struct config_token *from)
{
    for (char *c = from->at; c < o->lexer.at; c++)
        if (*c != '\n')
            *c = ' ';
}

/* The text of a token without its quotes. */
static struct config_token inner(const struct config_token *t)
{
    struct config_token i = *t;
    if (t->len > 1 && (*t->at == '"' || *t->at == '\'')) {
        i.at++;
        i.len -= 2;
    }
    return i;
}

/* The same as a string, cut to what can be a name. */
static const char *word_of(const struct config_token *t, char word[WORD_SIZE])
{
    const struct config_token i = inner(t);
    const size_t keep = i.len < WORD_SIZE ? i.len : WORD_SIZE - 1;
    memcpy(word, i.at, keep);
    word[keep] = 0;
    return word;
}

/* ---- what is known ---- */

static const struct config_section_row *section_find(const struct place *in,
                                                     const struct config_token *name)
{
    char word[WORD_SIZE];
    const char *parent = in ? in->row ? in->row->name : "" : "";
    word_of(name, word);
    for (size_t i = 0; i < config_section_rows_count; i++)
        if (!strcmp(config_section_rows[i].parent, parent) &&
            !strcmp(config_section_rows[i].name, word))
            return &config_section_rows[i];
    return NULL;
}

/* ---- values ---- */

static bool skip_list(struct outline *o)
{
    uint32_t items = 0;
    for (struct config_token t = config_token_next(&o->lexer);;) {
        if (t.kind == TOKEN_CLOSE)
            return true;
        if (t.kind != TOKEN_TEXT)
            return false;
        if (++items == ITEMS_MAX + 1) {
            config_complain(o->p, t.line, "a list with more than %d values; expected fewer",
                            ITEMS_MAX);
            o->lexer.broken = true;
        }
        t = config_token_next(&o->lexer);
        if (t.kind == TOKEN_COMMA)
            t = config_token_next(&o->lexer);
        else if (t.kind != TOKEN_CLOSE)
            return false;
    }
}

/* Returns its first token; of another kind than TEXT and OPEN: the syntax is wrong. */
static struct config_token skip_value(struct outline *o)
{
    struct config_token t = config_token_next(&o->lexer);
    if (t.kind == TOKEN_OPEN && !skip_list(o))
        t.kind = TOKEN_OTHER;
    o->value_line = o->lexer.line;
    return t;
}

static void complain_open(struct outline *o, int line)
{
    if (o->lexer.lost)
        return;
    config_complain(o->p, line, "the section that begins here is not closed; expected a closing }");
    o->lexer.broken = true;
}

/* After the "{" of an unknown section. */
static bool skip_section(struct outline *o, int opened)
{
    for (uint32_t depth = 1; depth;) {
        const struct config_token t = config_token_next(&o->lexer);
        if (t.kind == TOKEN_END) {
            complain_open(o, opened);
            return false;
        }
        depth += t.kind == TOKEN_OPEN;
        depth -= t.kind == TOKEN_CLOSE;
    }
    return true;
}

/* ---- keys ---- */

static void add(char *out, size_t size, const char *a, const char *b)
{
    const size_t n = strlen(out);
    if (n < size)
        snprintf(out + n, size - n, "%s%s", a, b);
}

/* Where a key or a section of that name would be understood: "upstream { } or websocket { }". */
static bool homes_of(const char *name, char *out, size_t size)
{
    *out = 0;
    for (size_t i = CONFIG_ROWS; i-- > 0;) /* the more special ones first */
        if (config_rows[i].section != CONFIG_SECTION_TOP && !strcmp(config_rows[i].key, name))
            add(out, size, *out ? " { } or " : "", config_section_names[config_rows[i].section]);
    for (size_t i = 0; !*out && i < config_section_rows_count; i++)
        if (*config_section_rows[i].parent && !strcmp(config_section_rows[i].name, name))
            add(out, size, "", config_section_rows[i].parent);
    return *out;
}

/* "key: value" and "section:", as other languages have it. False: it is not that. */
static bool complain_colon(struct outline *o, const struct config_token *name,
                           const struct place *in)
{
    char word[WORD_SIZE];
    struct config_token t = inner(name);
    if (t.len < 2 || t.at[t.len - 1] != ':')
        return false;
    t.len--;
    word_of(&t, word);
    const char *section = config_section_names[keys_of(in)];
    const struct config_section_row *row = section_find(in, &t);
    if (!row && !config_row_of(keys_of(in), word))
        return false;
    config_complain(o->p, name->line, "unknown key \"%s:\"%s%s; expected %s%s", word,
                    *section ? " in " : "", section, word,
                    !row          ? " = VALUE"
                    : row->titled ? " \"TITLE\" { }"
                                  : " { }");
    return true;
}

static void complain_unknown(struct outline *o, const struct config_token *name,
                             const struct place *in)
{
    char word[WORD_SIZE], homes[256];
    const char *section = config_section_names[keys_of(in)],
               *near = config_nearest(word_of(name, word), keys_of(in));
    const bool home = homes_of(word, homes, sizeof homes);
    if (complain_colon(o, name, in))
        return;
    if (!near && in->row && config_row_of(CONFIG_SECTION_TOP, word))
        config_complain(o->p, name->line,
                        "%s belongs to the top level; expected a } that closes the section of "
                        "line %d before it",
                        word, in->opened);
    else if (home)
        config_complain(o->p, name->line, "unknown key \"%s\"%s%s; it belongs to %s { }%s%s%s",
                        word, *section ? " in " : "", section, homes,
                        near ? "; or did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    else if (!strcmp(word, "include"))
        config_complain(o->p, name->line,
                        "unknown key \"include\"; there is none: one file holds everything, and "
                        "${NAME} takes values from the environment");
    else
        config_complain(o->p, name->line, "unknown key \"%s\"%s%s%s%s%s", word,
                        *section ? " in " : "", section, near ? "; did you mean \"" : "",
                        near ? near : "", near ? "\"?" : "");
}

/* seen: lines by the row's number, of this section alone */
static void note_key(struct outline *o, const struct config_token *name,
                     const struct config_token *assign, const struct place *in, int *seen,
                     bool list)
{
    char word[WORD_SIZE];
    const struct config_row *row = config_row_of(keys_of(in), word_of(name, word));
    if (!row) {
        complain_unknown(o, name, in);
        blank(o, name);
        return;
    }
    if (list && !config_row_is_list(row)) {
        config_complain(o->p, name->line, "%s takes one value; expected %s = VALUE", word, word);
        blank(o, name);
        return;
    }
    int *line = &seen[row - config_rows];
    if (*line && *assign->at == '=') {
        config_complain(o->p, name->line, "a second %s; line %d has one already", word, *line);
        blank(o, name);
        return;
    }
    *line = name->line;
}

/* ---- sections ---- */

/* There is one of the same kind and title in the same place, or as many as there may be. */
static bool is_repeated(struct outline *o, const struct config_section_row *row, uint32_t parent,
                        const struct config_token *name, const struct config_token *title)
{
    char word[WORD_SIZE];
    uint32_t n = 0;
    for (size_t i = 0; i < o->p->n_sections; i++) {
        const struct config_section_line *s = &o->p->sections[i];
        if (s->row != row || s->parent != parent)
            continue;
        n++;
        if (s->title_len != title->len || memcmp(s->title, title->at, title->len))
            continue;
        word_of(title, word);
        config_complain(o->p, name->line, "a second %s%s%s%s; line %d has one already", row->name,
                        row->titled ? " \"" : " section", word, row->titled ? "\"" : "", s->line);
        return true;
    }
    if (n >= row->max)
        config_complain(o->p, name->line, "one %s too many; expected at most %u", row->name,
                        row->max);
    return n >= row->max;
}

static bool note_section(struct outline *o, const struct config_section_row *row, uint32_t parent,
                         const struct config_token *name, const struct config_token *title)
{
    struct config_parse *p = o->p;
    if (p->n_sections == p->sections_room) {
        const size_t room = p->sections_room ? 2 * p->sections_room : 64;
        struct config_section_line *grown = realloc(p->sections, room * sizeof *grown);
        if (!grown)
            return false;
        p->sections = grown;
        p->sections_room = room;
    }
    p->sections[p->n_sections++] =
        (struct config_section_line){row, parent, name->line, title->at, title->len};
    return true;
}

static bool walk(struct outline *o, const struct place *in);

/* Its "{" has been read; title is empty if the section has none. */
static bool enter_section(struct outline *o, const struct place *in,
                          const struct config_section_row *row, const struct config_token *name,
                          const struct config_token *title)
{
    const uint32_t parent = in->row ? in->ordinal : 0;
    if (row && !is_repeated(o, row, parent, name, title)) {
        const struct place inside = {row, in->row ? parent : ++o->tops, name->line};
        return note_section(o, row, parent, name, title) && walk(o, &inside);
    }
    if (!row)
        complain_unknown(o, name, in);
    const bool closed = skip_section(o, name->line);
    blank(o, name);
    return closed;
}

/* Behind the name: an optional title and "{". False: the syntax is wrong. */
static bool take_section(struct outline *o, const struct place *in, const struct config_token *name,
                         struct config_token t)
{
    const struct config_section_row *row = section_find(in, name);
    const bool titled = t.kind == TOKEN_TEXT;
    struct config_token title = {.at = t.at};
    if (titled) {
        title = inner(&t);
        t = config_token_next(&o->lexer);
    }
    char word[WORD_SIZE];
    if (t.kind != TOKEN_OPEN && !row && !config_row_of(keys_of(in), word_of(name, word))) {
        if (name->line == o->value_line)
            config_complain(o->p, name->line,
                            "\"%s\" follows a value on its line; expected quotes around a value "
                            "with spaces, or KEY = VALUE",
                            word);
        else
            complain_unknown(o, name, in);
        o->lexer.broken = true;
    }
    if (t.kind != TOKEN_OPEN || (row && row->titled != titled))
        return false;
    if (!row && in->row && section_find(NULL, name)) {
        config_complain(o->p, name->line,
                        "%.*s cannot stand in %s; expected a } that closes the section of line %d "
                        "before it",
                        (int)name->len, name->at, in->row->name, in->opened);
        o->lexer.broken = true;
        return false;
    }
    return enter_section(o, in, row, name, &title);
}

/* Behind "KEY =". False: the syntax is wrong. */
static bool take_value(struct outline *o, const struct place *in, const struct config_token *name,
                       const struct config_token *assign, int *seen)
{
    const struct config_section_row *row = section_find(in, name);
    if (row) {
        config_complain(o->p, name->line, "%s is a section; expected %s%s { }", row->name,
                        row->name, row->titled ? " \"TITLE\"" : "");
        o->lexer.broken = true;
        return false;
    }
    const struct config_token value = skip_value(o);
    if (value.kind != TOKEN_TEXT && value.kind != TOKEN_OPEN)
        return false;
    note_key(o, name, assign, in, seen, value.kind == TOKEN_OPEN);
    return true;
}

/* One section, or the file. */
static bool walk(struct outline *o, const struct place *in)
{
    int seen[CONFIG_ROWS] = {0};
    while (o->p->errors < CONFIG_ERRORS_MAX) {
        const struct config_token name = config_token_next(&o->lexer);
        if (name.kind == TOKEN_END && in->row)
            complain_open(o, in->opened);
        if (name.kind != TOKEN_TEXT)
            return name.kind == (in->row ? TOKEN_CLOSE : TOKEN_END);
        const struct config_token t = config_token_next(&o->lexer);
        if (t.kind == TOKEN_ASSIGN ? !take_value(o, in, &name, &t, seen)
                                   : !take_section(o, in, &name, t))
            return false;
    }
    o->lexer.broken = true;
    return false;
}

bool config_outline(struct config_parse *p, char *text)
{
    struct outline o = {.p = p, .lexer = {.p = p, .at = text, .line = 1}};
    const struct place top = {0};
    p->understood = walk(&o, &top);
    while (!p->understood && config_token_next(&o.lexer).kind != TOKEN_END)
        ; /* libconfuse must not see a string without an end, wherever it is */
    return !o.lexer.broken;
}

int config_section_line(const struct config_parse *p, const char *name, uint32_t parent,
                        uint32_t nth)
{
    int last = 0;
    for (size_t i = 0; i < p->n_sections; i++) {
        const struct config_section_line *s = &p->sections[i];
        if (s->parent != parent || strcmp(s->row->name, name))
            continue;
        last = s->line;
        if (nth-- == 0)
            break;
    }
    return last;
}
