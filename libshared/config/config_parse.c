/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_parse: libconfuse does the syntax; each value is checked where it stands, so that all
 * mistakes up to a syntax error are reported, with their lines.
 */
#include "libshared/config/config_parse.h"
#include "polder/edit_distance.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const struct config_section_row config_section_rows[] = {
    {"ops", "", false, 1, CONFIG_SECTION_OPS},
    {"admin", "", false, 1, CONFIG_SECTION_ADMIN},
    {"telemetry", "", false, 1, CONFIG_SECTION_TELEMETRY},
    {"cache", "", false, 1, CONFIG_SECTION_CACHE},
    {"websocket", "", false, 1, CONFIG_SECTION_WEBSOCKET},
    {"upstream", "", true, RUNTIME_SERVERS_MAX, CONFIG_SECTION_UPSTREAM},
    {"limit", "", true, RUNTIME_LIMITS_MAX, CONFIG_SECTION_LIMIT},
    {"route", "", true, RUNTIME_ROUTES_MAX, CONFIG_SECTION_ROUTE},
    {"alert", "", true, CONFIG_ALERTS_MAX, CONFIG_SECTION_ALERT},
    {"cost", "", false, 1, CONFIG_SECTION_COST},
    {"server", "upstream", true, RUNTIME_SERVERS_MAX, CONFIG_SECTION_SERVER},
    {"cache", "route", false, 1, CONFIG_SECTION_CACHE},
    {"websocket", "route", false, 1, CONFIG_SECTION_WEBSOCKET},
    {"poll", "route", false, 1, CONFIG_SECTION_POLL},
    {"fleet", "", false, 1, CONFIG_SECTION_FLEET},
    {"cors", "", false, 1, CONFIG_SECTION_CORS},
    {"cors", "route", false, 1, CONFIG_SECTION_CORS},
};
const size_t config_section_rows_count = sizeof config_section_rows / sizeof *config_section_rows;

/* libconfuse's callbacks carry no argument; one configuration is read at a time in a thread. */
static _Thread_local struct config_parse *current;

/* "FILE:LINE: kind..." */
static void say(const struct config_parse *p, int line, const char *kind, const char *fmt,
                va_list ap, char text[1024])
{
    const size_t size = 1024;
    int n = line ? snprintf(text, size, "%s:%d: %s", p->path, line, kind)
                 : snprintf(text, size, "%s: %s", p->path, kind);
    if (n < 0 || (size_t)n >= size)
        n = 0;
    vsnprintf(text + n, size - (size_t)n, fmt, ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

void config_complain(struct config_parse *p, int line, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    for (size_t i = 0; i < p->n_muted; i++)
        if (line && p->muted[i] == line) {
            p->errors++;
            return;
        }
    if (p->errors++ >= CONFIG_ERRORS_MAX)
        return;
    va_start(ap, fmt);
    say(p, line, "", fmt, ap, text);
    va_end(ap);
    const uint64_t hash = XXH3_64bits(text, strlen(text));
    if (hash != p->said)
        p->on_error(p->arg, text);
    p->said = hash;
}

void config_warn(struct config_parse *p, int line, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    say(p, line, "warning: ", fmt, ap, text);
    va_end(ap);
    for (uint32_t i = 0; i < p->n_warnings; i++)
        if (!strcmp(p->warnings[i], text))
            return;
    const char *copy =
        p->n_warnings < CONFIG_WARNINGS_MAX ? config_arena_strdup(p->arena, text) : NULL;
    if (copy)
        p->warnings[p->n_warnings++] = copy;
}

/* ---- the nearest known word ---- */

void config_nearer(const char *word, const char *known, const char **best, unsigned *fewest)
{
    const unsigned e = edit_distance(word, known);
    if (e < *fewest && e <= (strlen(known) + 1) / 2) {
        *best = known;
        *fewest = e;
    }
}

const char *config_nearest(const char *word, enum config_section section)
{
    const char *best = NULL, *name = config_section_names[section];
    unsigned fewest = CONFIG_NEAR_EDITS;
    if (section == CONFIG_SECTION_SERVER)
        name = "server";
    for (const struct config_row *row = NULL; (row = config_row_next(section, row));)
        config_nearer(word, row->key, &best, &fewest);
    for (size_t i = 0; i < config_section_rows_count; i++)
        if (!strcmp(config_section_rows[i].parent, name))
            config_nearer(word, config_section_rows[i].name, &best, &fewest);
    return best;
}

/* ---- what libconfuse calls ---- */

static enum config_section keys_of(const cfg_t *section)
{
    const char *name = cfg_name((cfg_t *)section);
    for (size_t i = 0; name && i < config_section_rows_count; i++)
        if (!strcmp(config_section_rows[i].name, name))
            return config_section_rows[i].keys;
    return CONFIG_SECTION_TOP;
}

/* What is expected, for an error text of libconfuse. */
static const char *syntax_advice(const char *text)
{
    static const struct {
        const char *begins, *right;
    } rows[] = {
        {"missing equal sign", "expected KEY = VALUE"},
        {"attempt to append", "expected \"=\"; \"+=\" is for lists"},
        {"missing opening brace", "expected \"{\", after a title if the section has one"},
        {"missing title", "expected a \"TITLE\" before the \"{\""},
        {"unexpected closing brace", "there is no section to close; remove it"},
        {"unexpected token", "expected KEY = VALUE, KEY = {VALUE, VALUE} or SECTION { }"},
        {"premature end", "expected a value or a closing }"},
        {"found duplicate title", "expected another title"},
        {"no such option", "expected a key of polder.conf(5)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strncmp(text, rows[i].begins, strlen(rows[i].begins)))
            return rows[i].right;
    return "see polder.conf(5)";
}

static void on_syntax_error(cfg_t *cfg, const char *fmt, va_list ap)
{
    char text[512];
    if (!current)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    config_complain(current, cfg->line, "%s; %s", text, syntax_advice(text));
}

static void remember_place(struct config_parse *p, struct config_place place)
{
    if (p->n_places == p->places_room) {
        const size_t room = p->places_room ? 2 * p->places_room : 64;
        struct config_place *grown = realloc(p->places, room * sizeof *grown);
        if (!grown)
            return;
        p->places = grown;
        p->places_room = room;
    }
    p->places[p->n_places++] = place; /* NOLINT(clang-analyzer-core.NullDereference): it has room */
}

int config_line_of(const struct config_parse *p, const cfg_t *section, const char *key)
{
    for (size_t i = p->n_places; i-- > 0;)
        if (p->places[i].section == section && !strcmp(p->places[i].key, key))
            return p->places[i].line;
    return 0;
}

int config_line_of_nth(const struct config_parse *p, const cfg_t *section, const char *key,
                       uint32_t nth)
{
    for (size_t i = p->n_places; i-- > 0;)
        if (p->places[i].section == section && p->places[i].nth == nth &&
            !strcmp(p->places[i].key, key))
            return p->places[i].line;
    return 0;
}

static bool ends_in_semicolon(const char *text)
{
    const size_t len = text ? strlen(text) : 0;
    return len && text[len - 1] == ';';
}

/* After each value, and once more at the end of a list in braces; the last value is the new one. */
static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    struct config_parse *p = current;
    const struct config_row *row = config_row_of(keys_of(cfg), opt->name);
    const unsigned n = cfg_opt_size(opt);
    if (!p || !row || n == 0)
        return 0;
    const struct config_place *last = p->n_places ? &p->places[p->n_places - 1] : NULL;
    if (last && last->section == cfg && last->key == row->key && last->nth == n - 1)
        return 0;
    remember_place(p, (struct config_place){cfg, row->key, n - 1, cfg->line});
    const char *text = cfg_opt_getnstr(opt, n - 1);
    const char *right = config_value(row, text ? text : "", NULL, NULL);
    if (right && text && text[0] == '$' && isalpha((unsigned char)text[1]))
        config_complain(p, cfg->line,
                        "%s: \"%.100s\" is taken literally; ${%.100s} would be the environment's",
                        row->key, text, text + 1);
    else if (right)
        config_complain(p, cfg->line, "%s: \"%.100s\" is wrong; expected %s%s", row->key,
                        text ? text : "", right,
                        ends_in_semicolon(text) ? ", and no \";\" behind it" : "");
    return 0;
}

/* A key has its several parts in one text. */
bool config_row_is_list(const struct config_row *row)
{
    return row->count_at && row->type != TYPE_KEYS;
}

/* ---- options of a section, from the tables ---- */

#define OPTIONS_MAX 64

static void free_options(cfg_opt_t *options)
{
    for (cfg_opt_t *o = options; o && o->name; o++)
        if (o->type == CFGT_SEC)
            free_options(o->subopts);
    free(options);
}

static cfg_opt_t *make_options(const char *section, enum config_section keys)
{
    cfg_opt_t *options = calloc(OPTIONS_MAX, sizeof *options);
    size_t n = 0;
    if (!options)
        return NULL;
    for (const struct config_row *row = NULL; (row = config_row_next(keys, row));) {
        cfg_opt_t list = CFG_STR_LIST(row->key, NULL, CFGF_NODEFAULT),
                  one = CFG_STR(row->key, NULL, CFGF_NODEFAULT);
        options[n] = config_row_is_list(row) ? list : one;
        options[n++].validcb = on_value;
    }
    for (size_t i = 0; i < config_section_rows_count; i++) {
        const struct config_section_row *s = &config_section_rows[i];
        if (strcmp(s->parent, section))
            continue;
        cfg_opt_t *inner = make_options(s->name, s->keys);
        if (!inner) {
            free_options(options);
            return NULL;
        }
        const cfg_flag_t flags =
            s->titled ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES : CFGF_MULTI;
        cfg_opt_t sub = CFG_SEC(s->name, inner, flags);
        options[n++] = sub;
    }
    return options;
}

/* "cache" within "route" has no sections of its own, and neither has "route" within anything. */
cfg_t *config_parse_text(struct config_parse *p, const char *text)
{
    cfg_opt_t *options = make_options("", CONFIG_SECTION_TOP);
    cfg_t *cfg = options ? cfg_init(options, CFGF_NONE) : NULL;
    if (!cfg) {
        config_complain(p, 0, "no memory to parse it");
        free_options(options);
        return NULL;
    }
    current = p;
    cfg_set_error_function(cfg, on_syntax_error);
    const int before = p->errors, code = cfg_parse_buf(cfg, text);
    if ((code != CFG_SUCCESS || !p->understood) && p->errors == before)
        config_complain(p, 0, "cannot be parsed; see polder.conf(5)");
    current = NULL;
    free_options(options); /* libconfuse has copied them */
    if (code == CFG_SUCCESS && p->understood)
        return cfg;
    cfg_free(cfg);
    return NULL;
}
