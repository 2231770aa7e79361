/* SPDX-License-Identifier: BSD-2-Clause */
/* config_types: what each type of value may be, and what it means. */
#include "libshared/config/config_parse.h"
#include "polder/log.h"
#include "polder/server_check.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Digits with an optional fraction, then a unit of the table; overflow is -ERANGE. */
struct unit {
    const char *name;
    uint64_t factor;
};

static int parse_scaled(const char *text, const struct unit *units, uint64_t bare, uint64_t *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    const double n = strtod(text, &end);
    if (strspn(text, "0123456789.") != (size_t)(end - text) || end[-1] == '.')
        return -EINVAL;
    uint64_t factor = *end ? 0 : bare;
    for (const struct unit *u = units; *end && u->name; u++)
        if (!strcmp(end, u->name))
            factor = u->factor;
    if (!factor)
        return -EINVAL;
    if (!isfinite(n) || n * (double)factor >= 9e18)
        return -ERANGE;
    if (!memchr(text, '.', (size_t)(end - text))) /* exact for whole numbers */
        *out = strtoull(text, NULL, 10) * factor;
    else
        *out = (uint64_t)(n * (double)factor + 0.5);
    return 0;
}

int config_parse_duration(const char *text, uint64_t *ms)
{
    static const struct unit units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                        {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
    return parse_scaled(text, units, 1000, ms);
}

int config_parse_size(const char *text, uint64_t *bytes)
{
    static const struct unit units[] = {
        {"K", 1u << 10}, {"M", 1u << 20}, {"G", 1u << 30}, {"T", UINT64_C(1) << 40}, {NULL, 0}};
    return parse_scaled(text, units, 1, bytes);
}

static int parse_count(const char *text, uint64_t *out)
{
    if (!*text || strspn(text, "0123456789") != strlen(text))
        return -EINVAL;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno ? -ERANGE : 0;
}

static int parse_number(const char *text, double *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -EINVAL;
    *out = strtod(text, &end);
    return *end || !isfinite(*out) || strpbrk(text, "xXpP") ? -EINVAL : 0;
}

/* Index of a word among NULL-terminated ones; -1. */
static int word_index(const char *text, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (!strcmp(text, words[i]))
            return i;
    return -1;
}

static const char *const bool_words[] = {"false", "true", "no", "yes", "off", "on", "0", "1", NULL};
/* in the order of their enums */
static const char *const algorithm_words[] = {"sliding", "fixed", "gcra", NULL};
static const char *const heartbeat_words[] = {"off", "ping", "json", "both", NULL};
static const char *const half_close_words[] = {"auto", "answer", "abort", NULL};
static const char *const missing_words[] = {"client", "refuse", "skip", NULL};
static const char *const cut_off_words[] = {"serve", "revalidate", "bypass", NULL};
static const char *const limit_cut_off_words[] = {"share", "open", "closed", NULL};
static const char *const scope_words[] = {"host", "fleet", NULL};
static const char *const severity_words[] = {"info", "warning", "critical", NULL};

static const char *const balance_words[] = {"weighted", "least_conn", NULL};

static const char *const *words_of(enum config_type type)
{
    switch (type) {
    case TYPE_ALGORITHM:
        return algorithm_words;
    case TYPE_HEARTBEAT:
        return heartbeat_words;
    case TYPE_HALF_CLOSE:
        return half_close_words;
    case TYPE_MISSING:
        return missing_words;
    case TYPE_CUT_OFF:
        return cut_off_words;
    case TYPE_LIMIT_CUT_OFF:
        return limit_cut_off_words;
    case TYPE_SCOPE:
        return scope_words;
    case TYPE_SEVERITY:
        return severity_words;
    case TYPE_BALANCE:
        return balance_words;
    default:
        return NULL;
    }
}

/* "sliding, fixed or gcra" */
static const char *words_text(const char *const *words)
{
    static _Thread_local char text[160];
    size_t n = 0;
    for (size_t i = 0; words[i] && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s",
                              !i             ? ""
                              : words[i + 1] ? ", "
                                             : " or ",
                              words[i]);
    return text;
}

static const char *word_value(const char *text, const char *const *words, uint64_t *number)
{
    const int i = word_index(text, words);
    if (i < 0)
        return words_text(words);
    *number = (uint64_t)i;
    return NULL;
}

static const char *bool_value(const char *text, uint64_t *number)
{
    const int i = word_index(text, bool_words);
    *number = i > 0 && i & 1;
    return i < 0 ? "true or false" : NULL;
}

/* The words of a bool, and one more. */
static const char *share_value(const char *text, uint64_t *number)
{
    if (!bool_value(text, number)) {
        *number = *number ? CONFIG_SHARE_ALL : CONFIG_SHARE_STATED;
        return NULL;
    }
    *number = CONFIG_SHARE_RFC;
    return strcmp(text, "rfc") ? "false, true or \"rfc\"" : NULL;
}

/* In the largest unit that says it exactly. */
static void duration_text(uint64_t ms, char *out, size_t size)
{
    static const struct {
        uint64_t ms;
        const char *name;
    } unit[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t i = 0;
    while (ms == 0 ? i < 3 : ms % unit[i].ms)
        i++;
    snprintf(out, size, "%llu%s", (unsigned long long)(ms / unit[i].ms), unit[i].name);
}

static void size_text(uint64_t bytes, char *out, size_t size)
{
    static const char units[] = "TGMK";
    unsigned i = 0;
    while (i < 4 && (!bytes || bytes % (UINT64_C(1) << (40 - 10 * i))))
        i++;
    snprintf(out, size, "%llu%.1s", (unsigned long long)(bytes >> (40 - 10 * i)), units + i);
}

void config_number_text(const struct config_row *row, uint64_t number, char out[CONFIG_NUMBER_TEXT])
{
    const char *word = config_word(row, number);
    if (word)
        snprintf(out, CONFIG_NUMBER_TEXT, "%s", word);
    else if (row->type == TYPE_BOOL)
        snprintf(out, CONFIG_NUMBER_TEXT, "%s", number ? "true" : "false");
    else if (row->type == TYPE_TTL && number == RUNTIME_TTL_HEURISTIC)
        snprintf(out, CONFIG_NUMBER_TEXT, "heuristic");
    else if (row->type == TYPE_DURATION || row->type == TYPE_TTL)
        duration_text(number, out, CONFIG_NUMBER_TEXT);
    else if (row->type == TYPE_SIZE)
        size_text(number, out, CONFIG_NUMBER_TEXT);
    else
        snprintf(out, CONFIG_NUMBER_TEXT, "%llu", (unsigned long long)number);
}

static const char *range_text(const struct config_row *row)
{
    static _Thread_local char text[160];
    const char *what = row->type == TYPE_DURATION || row->type == TYPE_TTL ? "a duration"
                       : row->type == TYPE_SIZE                            ? "a size"
                       : row->type == TYPE_NUMBER                          ? "a number"
                                                                           : "a whole number";
    char min[CONFIG_NUMBER_TEXT], max[CONFIG_NUMBER_TEXT];
    config_number_text(row, row->min, min);
    config_number_text(row, row->max, max);
    if (row->min)
        snprintf(text, sizeof text, "%s between %s and %s", what, min, max);
    else
        snprintf(text, sizeof text, "%s up to %s", what, max);
    return text;
}

static const char *number_value(const struct config_row *row, const char *text, uint64_t *number)
{
    int code;
    const char *right;
    switch (row->type) {
    case TYPE_TTL:
        if (!strcmp(text, "heuristic")) {
            *number = UINT64_MAX;
            return NULL;
        }
        code = config_parse_duration(text, number);
        right =
            "a duration such as \"250ms\", \"30s\", \"5m\", \"12h\" or \"7d\", or \"heuristic\"";
        break;
    case TYPE_DURATION:
        code = config_parse_duration(text, number);
        right = "a duration such as \"250ms\", \"30s\", \"5m\", \"12h\" or \"7d\"";
        break;
    case TYPE_SIZE:
        code = config_parse_size(text, number);
        right = "a size such as \"64K\", \"256M\" or \"2G\"";
        break;
    default:
        code = parse_count(text, number);
        right = "a whole number";
        break;
    }
    if (code == -EINVAL)
        return right;
    return code || *number < row->min || *number > row->max ? range_text(row) : NULL;
}

const char *config_word(const struct config_row *row, uint64_t number)
{
    const char *const *words = words_of(row->type);
    for (uint64_t i = 0; words && words[i]; i++)
        if (i == number)
            return words[i];
    return NULL;
}

const char *config_number_check(const struct config_row *row, uint64_t number)
{
    const char *const *words = words_of(row->type);
    if (words)
        return config_word(row, number) ? NULL : words_text(words);
    if (row->type == TYPE_BOOL)
        return number > 1 ? "true or false" : NULL;
    if (row->type == TYPE_TTL && number == UINT64_MAX)
        return NULL;
    return number < row->min || number > row->max ? range_text(row) : NULL;
}

static const char *mode_value(const char *text, uint64_t *number)
{
    if (!*text || strspn(text, "01234567") != strlen(text) || strlen(text) > 4)
        return "an octal mode such as \"0660\"";
    *number = strtoul(text, NULL, 8);
    return *number > 0777 ? "an octal mode up to 0777" : NULL;
}

static const char *access_log_value(const char *text, uint64_t *number)
{
    if (!strcmp(text, "off"))
        *number = CONFIG_LOG_OFF;
    else if (!strcmp(text, "stderr"))
        *number = CONFIG_LOG_STDERR;
    else if (!strncmp(text, "json:/", 6))
        *number = CONFIG_LOG_JSON;
    else if (!strncmp(text, "combined:/", 10))
        *number = CONFIG_LOG_COMBINED;
    else
        return "\"off\", \"stderr\", \"json:/path\" or \"combined:/path\"";
    return NULL;
}

static const char *log_level_value(const char *text, uint64_t *number)
{
    enum log_level level;
    if (!log_level_parse(text, &level))
        return "error, warning, info or debug";
    *number = (uint64_t)level;
    return NULL;
}

static const char *real_value(const struct config_row *row, const char *text, double *real)
{
    if (parse_number(text, real))
        return "a number such as 0.25";
    return *real < (double)row->min || *real > (double)row->max ? range_text(row) : NULL;
}

const char *config_value(const struct config_row *row, const char *text, uint64_t *number,
                         double *real)
{
    uint64_t n = 0;
    double r = 0;
    const char *why = NULL;
    struct config_key keys[CONFIG_KEY_PARTS_MAX];
    struct clientip_net net;
    struct config_address address;
    struct server_check_statuses statuses;
    switch (row->type) {
    case TYPE_STRING:
    case TYPE_STRINGS:
    case TYPE_NAME:
    case TYPE_NAMES:
    case TYPE_CODINGS:
    case TYPE_EXEMPT:
    case TYPE_DROP_HEADERS:
        break;
    case TYPE_BOOL:
        why = bool_value(text, &n);
        break;
    case TYPE_COUNT:
    case TYPE_DURATION:
    case TYPE_TTL:
    case TYPE_SIZE:
        why = number_value(row, text, &n);
        break;
    case TYPE_NUMBER:
        why = real_value(row, text, &r);
        break;
    case TYPE_MODE:
        why = mode_value(text, &n);
        break;
    case TYPE_ADDRESS:
    case TYPE_ADDRESSES:
        config_address_parse(NULL, text, false, &address, &why);
        break;
    case TYPE_NETS:
        why = clientip_net_parse(text, &net) ? "a network such as \"10.0.0.0/8\" or an address"
                                             : NULL;
        break;
    case TYPE_PATH:
        why = *text == '/' ? NULL : "an absolute path";
        break;
    case TYPE_URL_PATH:
        why = *text == '/' ? NULL : "a path that starts with \"/\"";
        break;
    case TYPE_KEYS:
        if (*text)
            config_parse_key(NULL, text, keys, CONFIG_KEY_PARTS_MAX, &why);
        break;
    case TYPE_ACCESS_LOG:
        why = access_log_value(text, &n);
        break;
    case TYPE_LOG_LEVEL:
        why = log_level_value(text, &n);
        break;
    case TYPE_ALGORITHM:
    case TYPE_HEARTBEAT:
    case TYPE_HALF_CLOSE:
    case TYPE_MISSING:
    case TYPE_CUT_OFF:
    case TYPE_LIMIT_CUT_OFF:
    case TYPE_SCOPE:
    case TYPE_SEVERITY:
    case TYPE_BALANCE:
        why = word_value(text, words_of(row->type), &n);
        break;
    case TYPE_SHARE:
        why = share_value(text, &n);
        break;
    case TYPE_STICKY:
        why = config_parse_sticky(NULL, text, keys);
        break;
    case TYPE_STATUSES:
        why = server_check_parse_statuses(text, &statuses)
                  ? NULL
                  : "statuses such as \"200-299\" or \"200,204,301-303\", at most 16 of them";
        break;
    }
    if (number)
        *number = n;
    if (real)
        *real = r;
    return why;
}
