/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_text: the file as bytes and as tokens, before libconfuse sees it.
 *
 * What libconfuse takes without a word is refused here: a variable that is not set (it puts the
 * empty string there), '*' and '+' outside quotes and escapes that make a NUL (it drops them),
 * strings and comments without an end (its lexer, which is one a process, stays inside them for the
 * next file). Comments become blanks, for libconfuse 3.3 counts the lines of some twice.
 */
#include "libshared/config/config_parse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX       (1u << 20)
#define NAME_MAX_BYTES 127
/* what ends an unquoted word */
#define STOPS " #\"'\t\n\r={}()+,*"

static ssize_t read_all(int fd, char *text, size_t size)
{
    size_t len = 0;
    while (len < size) {
        const ssize_t n = read(fd, text + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static int shared_text = -1;

void config_text_share(int fd)
{
    shared_text = fd;
}

static bool text_is_shared(void)
{
    struct stat st;
    return shared_text >= 0 && fstat(shared_text, &st) == 0 && st.st_size > 0 &&
           lseek(shared_text, 0, SEEK_SET) == 0;
}

/* Half of it would be another one. */
static void text_keep(const char *text, size_t len)
{
    if (shared_text >= 0 && pwrite(shared_text, text, len, 0) != (ssize_t)len &&
        ftruncate(shared_text, 0) < 0)
        shared_text = -1;
}

static ssize_t file_read(const char *path, char *text)
{
    const bool shared = text_is_shared();
    const int fd = shared ? shared_text : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    const ssize_t n = fd >= 0 ? read_all(fd, text, TEXT_MAX + 1) : -errno;
    if (fd >= 0 && !shared)
        close(fd);
    if (n > 0 && !shared)
        text_keep(text, (size_t)n);
    return n;
}

char *config_text_read(struct config_parse *p)
{
    char *text = calloc(1, TEXT_MAX + 2);
    const ssize_t n = text ? file_read(p->path, text) : -ENOMEM;
    if (n < 0)
        config_complain(p, 0, "cannot read it: %s", strerror((int)-n));
    else if (n > (ssize_t)TEXT_MAX)
        config_complain(p, 0, "is larger than 1 MiB; a configuration is some kilobytes of text");
    else if (memchr(text, 0, (size_t)n))
        config_complain(p, 1, "has a NUL byte; a configuration is text");
    if (p->errors || !text) {
        free(text);
        return NULL;
    }
    if (!memcmp(text, "\xef\xbb\xbf", 3)) /* what some editors put before UTF-8 */
        memset(text, ' ', 3);
    return text;
}

static void broken(struct config_lexer *l, int line, const char *what)
{
    l->broken = true;
    config_complain(l->p, line, "%s", what);
}

static void blank_comment(struct config_lexer *l)
{
    const bool block = l->at[0] == '/' && l->at[1] == '*';
    const char *end = block ? strstr(l->at + 2, "*/") : strchr(l->at, '\n');
    if (!end && block)
        broken(l, l->line,
               "a comment that starts here has no end; expected \"*/\", or quotes around "
               "what is no comment");
    end = !end ? l->at + strlen(l->at) : block ? end + 2 : end;
    for (; l->at < end; l->at++) {
        l->line += *l->at == '\n';
        if (*l->at != '\n')
            *l->at = ' ';
    }
}

/* ---- variables ---- */

static size_t name_len(const char *at)
{
    size_t n = 0;
    while ((at[n] >= 'A' && at[n] <= 'Z') || (at[n] >= 'a' && at[n] <= 'z') || at[n] == '_' ||
           (n && at[n] >= '0' && at[n] <= '9'))
        n++;
    return n;
}

/* No further messages about a line with a missing variable: they would be about "". */
static void mute(struct config_parse *p, int line)
{
    int *grown = realloc(p->muted, (p->n_muted + 1) * sizeof *grown);
    if (!grown)
        return;
    p->muted = grown;
    grown[p->n_muted++] = line;
}

/* At "${": checks it and moves behind its "}". */
static void take_variable(struct config_lexer *l)
{
    char name[NAME_MAX_BYTES + 1];
    const size_t len = name_len(l->at + 2), room = strcspn(l->at, "}\n");
    const char *after = l->at + 2 + len;
    const bool has_default = !strncmp(after, ":-", 2);
    if (l->at[room] != '}' || len == 0 || len > NAME_MAX_BYTES || (*after != '}' && !has_default)) {
        broken(l, l->line,
               "\"${\" begins a variable; expected \"${NAME}\" or \"${NAME:-default}\" on one "
               "line, or single quotes around other text");
        l->at += 2;
        return;
    }
    const char *nested = strstr(l->at + 2, "${");
    if (nested && nested < l->at + room) {
        broken(l, l->line, "a variable stands in another one's default; expected plain text");
        l->at += room + 1;
        return;
    }
    memcpy(name, l->at + 2, len);
    name[len] = 0;
    if (!has_default && !getenv(name)) {
        config_complain(l->p, l->line,
                        "the environment has no %s; set it, or write \"${%s:-default}\"", name,
                        name);
        mute(l->p, l->line);
    }
    l->at += room + 1;
}

/* ---- strings ---- */

/* At a backslash in a double-quoted string: those that libconfuse would refuse, or read as NUL. */
static void take_escape(struct config_lexer *l)
{
    static const char digits[] = "0123456789", octal[] = "01234567",
                      hex[] = "0123456789abcdefABCDEF";
    const size_t n = strspn(l->at + 1, digits);
    bool bad = false;
    if (n) {
        const unsigned long value = strtoul(l->at + 1, NULL, 8);
        bad = n > 3 || strspn(l->at + 1, octal) != n || value == 0 || value > 255;
    } else if (l->at[1] == 'x') {
        const size_t digits_of_it = strspn(l->at + 2, hex);
        bad = digits_of_it && l->at[2] == '0' && (digits_of_it == 1 || l->at[3] == '0');
    }
    if (bad)
        broken(l, l->line,
               "a backslash with a number that is no character; expected \\001 to \\377");
    l->line += l->at[1] == '\n';
    l->at += l->at[1] ? 2 : 1;
}

/* What follows cannot be told from what was to be in a string. */
static void end_of_text(struct config_lexer *l)
{
    l->at += strlen(l->at);
    l->lost = true;
}

static void take_string(struct config_lexer *l, char quote)
{
    const int began = l->line;
    for (l->at++; *l->at && *l->at != quote;) {
        if (*l->at == '\\' && quote == '"') {
            take_escape(l);
        } else if (*l->at == '\\' && l->at[1]) {
            l->line += l->at[1] == '\n';
            l->at += 2;
        } else if (quote == '"' && l->at[0] == '$' && l->at[1] == '{') {
            take_variable(l);
        } else if (*l->at == '\n') {
            end_of_text(l);
        } else {
            l->at++;
        }
    }
    if (*l->at)
        l->at++;
    else
        broken(l, began,
               quote == '"'
                   ? "a string that starts here does not end on its line; expected a closing \""
                   : "a string that starts here does not end on its line; expected a closing '");
}

/* ---- tokens ---- */

static void take_word(struct config_lexer *l)
{
    if (l->at[0] == '$' && l->at[1] == '{') {
        take_variable(l);
        if (*l->at == '$' || !strchr(STOPS, *l->at))
            broken(l, l->line, "a value of which ${NAME} is only a part has to stand in quotes");
        return;
    }
    l->at += strcspn(l->at, STOPS);
    if (l->at[-1] == '$' && *l->at == '{')
        broken(l, l->line, "a value of which ${NAME} is only a part has to stand in quotes");
}

static void skip_blanks(struct config_lexer *l)
{
    for (;;) {
        if (*l->at == '#' || (*l->at == '/' && (l->at[1] == '/' || l->at[1] == '*')))
            blank_comment(l);
        else if (*l->at == ' ' || *l->at == '\t' || *l->at == '\r' || *l->at == '\n')
            l->line += *l->at++ == '\n';
        else
            return;
    }
}

struct config_token config_token_next(struct config_lexer *l)
{
    skip_blanks(l);
    struct config_token t = {.at = l->at, .line = l->line, .kind = TOKEN_END};
    const char c = *l->at;
    if (!c)
        return t;
    if (c == '"' || c == '\'') {
        t.kind = TOKEN_TEXT;
        take_string(l, c);
    } else if (c == '*' || (c == '+' && l->at[1] != '=')) {
        t.kind = TOKEN_OTHER;
        l->at++;
        broken(l, l->line,
               c == '*' ? "\"*\" outside quotes; expected quotes around the value"
                        : "\"+\" outside quotes; expected quotes around the value");
    } else if (strchr("={}(),+", c)) {
        t.kind = c == '=' || c == '+' ? TOKEN_ASSIGN
                 : c == '{'           ? TOKEN_OPEN
                 : c == '}'           ? TOKEN_CLOSE
                                      : TOKEN_OTHER;
        t.kind = c == ',' ? TOKEN_COMMA : t.kind;
        l->at += c == '+' ? 2 : 1;
    } else {
        t.kind = TOKEN_TEXT;
        take_word(l);
    }
    t.len = (size_t)(l->at - t.at);
    return t;
}
