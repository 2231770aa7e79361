/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_text: the file before libconfuse sees it. libconfuse puts the empty string where a
 * variable is not set and does not tell on which line a section began; a walk over the tokens finds
 * both.
 */
#include "libshared/config_parse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX (1u << 20)

char *config_text_read(struct config_parse *p)
{
    struct stat st;
    const int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st)) {
        config_complain(p, 0, "cannot read it: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    char *text = calloc(1, TEXT_MAX + 2);
    size_t len = 0;
    ssize_t n = 0;
    while (text && len <= TEXT_MAX && (n = read(fd, text + len, TEXT_MAX + 1 - len)) > 0)
        len += (size_t)n;
    if (!text || n < 0)
        config_complain(p, 0, "cannot read it: %s", text ? strerror(errno) : "no memory");
    else if (len > TEXT_MAX)
        config_complain(p, 0, "is larger than 1 MiB; a configuration is some kilobytes of text");
    else if (memchr(text, 0, len))
        config_complain(p, 1, "has a NUL byte; a configuration is text");
    close(fd);
    if (p->errors) {
        free(text);
        return NULL;
    }
    return text;
}

struct scan {
    struct config_parse *p;
    char *at;
    int line;
    uint32_t depth;
    bool after_equals;
    char word[16]; /* the last bare word that may name a section */
    int word_line;
    uint32_t parent, parents; /* ordinal of the enclosing top-level section */
};

/* Comments become blanks: libconfuse 3.3 counts the lines of some twice. */
static void blank_comment(struct scan *s)
{
    const bool block = s->at[0] == '/' && s->at[1] == '*';
    const char *end = block ? strstr(s->at + 2, "*/") : strchr(s->at, '\n');
    end = !end ? s->at + strlen(s->at) : block ? end + 2 : end;
    for (; s->at < end; s->at++) {
        s->line += *s->at == '\n';
        if (*s->at != '\n')
            *s->at = ' ';
    }
}

/* "${NAME}" without a default, of which the environment has none */
static void check_variable(struct scan *s)
{
    char name[128];
    const size_t len = strcspn(s->at + 2, "}:\n\" ");
    if (len == 0 || len >= sizeof name) {
        config_complain(
            s->p, s->line,
            "\"${\" without a name; \"${NAME}\" or \"${NAME:-default}\" would be right");
        return;
    }
    memcpy(name, s->at + 2, len);
    name[len] = 0;
    const char *after = s->at + 2 + len;
    if (*after != '}' && strncmp(after, ":-", 2))
        config_complain(s->p, s->line,
                        "\"${%s\" does not end; \"${%s}\" or \"${%s:-default}\" would be right",
                        name, name, name);
    else if (*after == '}' && !getenv(name))
        config_complain(s->p, s->line,
                        "the environment has no %s; set it, or write \"${%s:-default}\"", name,
                        name);
}

static void skip_string(struct scan *s, char quote)
{
    const int began = s->line;
    for (s->at++; *s->at && *s->at != quote; s->at++) {
        s->line += *s->at == '\n';
        if (*s->at == '\\' && s->at[1])
            s->line += *++s->at == '\n';
        else if (quote == '"' && s->at[0] == '$' && s->at[1] == '{')
            check_variable(s);
    }
    if (!*s->at)
        config_complain(s->p, began,
                        "a string that starts here has no end; a closing %c would be right", quote);
    else
        s->at++;
}

static void open_section(struct scan *s)
{
    struct config_parse *p = s->p;
    if (s->depth++ == 0)
        s->parent = s->parents++;
    struct config_section_line *grown = realloc(p->sections, (p->n_sections + 1) * sizeof *grown);
    if (!grown)
        return;
    p->sections = grown;
    grown += p->n_sections++;
    memcpy(grown->name, s->word, sizeof grown->name);
    grown->parent = s->depth > 1 ? s->parent + 1 : 0;
    grown->line = s->word_line;
}

static void take_word(struct scan *s)
{
    const size_t len = strcspn(s->at, " \t\r\n={}(),+\"'#");
    for (char *c = s->at; c < s->at + len; c++)
        if (c[0] == '$' && c[1] == '{') { /* an unquoted value; it ends at the brace */
            char *end = strpbrk(c, "}\n");
            s->at = c;
            check_variable(s);
            s->at = end ? end + (*end == '}') : c + strlen(c);
            return;
        }
    if (!s->after_equals) {
        const size_t keep = len < sizeof s->word - 1 ? len : sizeof s->word - 1;
        memcpy(s->word, s->at, keep);
        s->word[keep] = 0;
        s->word_line = s->line;
    }
    s->after_equals = false;
    s->at += len ? len : 1;
}

static void skip_list(struct scan *s)
{
    for (s->at++; *s->at && *s->at != '}';) {
        if (*s->at == '"' || *s->at == '\'')
            skip_string(s, *s->at);
        else if (*s->at == '#' || !strncmp(s->at, "//", 2) || !strncmp(s->at, "/*", 2))
            blank_comment(s);
        else if (s->at[0] == '$' && s->at[1] == '{') {
            check_variable(s);
            s->at += strcspn(s->at, "}\n");
            s->at += *s->at == '}';
        } else
            s->line += *s->at++ == '\n';
    }
    s->at += *s->at == '}';
}

static void scan_token(struct scan *s)
{
    const char c = *s->at;
    if (c == '\n' || c == ' ' || c == '\t' || c == '\r') {
        s->line += c == '\n';
        s->at++;
    } else if (c == '#' || (c == '/' && (s->at[1] == '/' || s->at[1] == '*'))) {
        blank_comment(s);
    } else if (c == '"' || c == '\'') {
        skip_string(s, c);
        s->after_equals = false;
    } else if (c == '=') {
        s->after_equals = true;
        s->at++;
    } else if (c == '{' && s->after_equals) {
        skip_list(s);
        s->after_equals = false;
    } else if (c == '{') {
        open_section(s);
        s->at++;
    } else if (c == '}') {
        s->depth -= s->depth > 0;
        s->at++;
    } else {
        take_word(s);
    }
}

void config_text_scan(struct config_parse *p, char *text)
{
    struct scan s = {.p = p, .at = text, .line = 1};
    while (*s.at && p->errors < 100)
        scan_token(&s);
    if (s.depth)
        config_complain(p, s.line, "a section is not closed; a closing } would be right");
}

int config_section_line(const struct config_parse *p, const char *name, uint32_t parent,
                        uint32_t nth)
{
    int last = 0;
    for (size_t i = 0; i < p->n_sections; i++) {
        const struct config_section_line *s = &p->sections[i];
        if (s->parent != parent || strcmp(s->name, name))
            continue;
        last = s->line;
        if (nth-- == 0)
            break;
    }
    return last;
}
