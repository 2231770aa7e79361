/* SPDX-License-Identifier: BSD-2-Clause */
/* command: words of the command line to a method and its parameters, by the table of methods. */
#include "admin/polderctl.h"
#include "polder/edit_distance.h"

#include <string.h>

/* ---- what was meant ---- */

static void add(char *why, const char *text)
{
    const size_t at = strlen(why);
    snprintf(why + at, COMMAND_WHY - at, "%s", text);
}

bool command_is_noun(const char *word)
{
    for (int i = 0; i < RPC_METHODS; i++)
        if (!strcmp(rpc_methods[i].noun, word))
            return true;
    return false;
}

/* What others call it. */
static const char *other_word(const char *word, const char *noun)
{
    static const struct {
        const char *noun, *word, *ours;
    } words[] = {{"cache", "purge", "invalidate"},
                 {"cache", "clear", "invalidate"},
                 {"cache", "flush", "invalidate"},
                 {"cache", "ban", "invalidate"},
                 {"cache", "delete", "invalidate"}};
    for (size_t i = 0; noun && i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i].noun, noun) && !strcmp(words[i].word, word))
            return words[i].ours;
    return NULL;
}

/* noun NULL: of all nouns; else of its verbs. "" where nothing is near. */
static const char *nearest(const char *word, const char *noun)
{
    if (other_word(word, noun))
        return other_word(word, noun);
    const char *best = "";
    unsigned fewest = strlen(word) < 4 ? 2 : 3;
    for (int i = 0; i < RPC_METHODS; i++) {
        const char *candidate = noun ? rpc_methods[i].verb : rpc_methods[i].noun;
        if (noun && strcmp(rpc_methods[i].noun, noun))
            continue;
        const unsigned d = *candidate ? edit_distance(word, candidate) : fewest;
        if (d < fewest) {
            fewest = d;
            best = candidate;
        }
    }
    return best;
}

static void list_nouns(char *why)
{
    for (int i = 0; i < RPC_METHODS; i++)
        if (i == 0 || strcmp(rpc_methods[i].noun, rpc_methods[i - 1].noun)) {
            add(why, i ? ", " : "; there is ");
            add(why, rpc_methods[i].noun);
        }
}

static void list_verbs(char *why, const char *noun)
{
    bool first = true;
    for (int i = 0; i < RPC_METHODS; i++)
        if (!strcmp(rpc_methods[i].noun, noun)) {
            add(why, first ? "; there is " : ", ");
            add(why, noun);
            add(why, " ");
            add(why, rpc_methods[i].verb);
            first = false;
        }
}

static int unknown(char *why, const char *word, const char *noun)
{
    const char *guess = nearest(word, noun);
    snprintf(why, COMMAND_WHY, "unknown command \"%s%s%.100s\"", noun ? noun : "", noun ? " " : "",
             word);
    if (*guess) {
        add(why, "; did you mean \"");
        add(why, noun ? noun : "");
        add(why, noun ? " " : "");
        add(why, guess);
        add(why, "\"?");
    } else if (noun) {
        list_verbs(why, noun);
    } else {
        list_nouns(why);
    }
    return -1;
}

int command_find(char *const *words, int n, int *used, char *why)
{
    if (!command_is_noun(words[0]))
        return unknown(why, words[0], NULL);
    for (int i = 0; i < RPC_METHODS; i++) {
        const struct rpc_method_info *m = &rpc_methods[i];
        if (strcmp(m->noun, words[0]) || (*m->verb && (n < 2 || strcmp(m->verb, words[1]))))
            continue;
        *used = *m->verb ? 2 : 1;
        return i;
    }
    if (n > 1)
        return unknown(why, words[1], words[0]);
    snprintf(why, COMMAND_WHY, "%s needs a verb", words[0]);
    list_verbs(why, words[0]);
    return -1;
}

const char *command_name(enum rpc_method method, char *out, size_t size)
{
    const struct rpc_method_info *m = &rpc_methods[method];
    snprintf(out, size, "%s%s%s", m->noun, *m->verb ? " " : "", m->verb);
    return out;
}

/* ---- parameters ---- */

struct reader {
    struct rpc_args args;
    struct rpc_out *out;
    char *why;
    enum rpc_method method;
    char name[64]; /* of the command */
    unsigned seen; /* bit per argument */
    bool literal;  /* "--" has come: no options any more */
};

static bool wrong(struct reader *r, const char *what, const char *word)
{
    snprintf(r->why, COMMAND_WHY, "%s: %s%s%.200s%s; see polderctl %s --help", r->name, what,
             *word ? " \"" : "", word, *word ? "\"" : "", r->name);
    return false;
}

static struct rpc_arg *option_named(struct reader *r, const char *name, size_t len)
{
    for (unsigned i = 0; i < r->args.n; i++) {
        struct rpc_arg *a = &r->args.at[i];
        if ((a->kind == RPC_ARG_FLAG || a->kind == RPC_ARG_OPTION) && strlen(a->name) == len &&
            !memcmp(a->name, name, len))
            return a;
    }
    return NULL;
}

static bool mark(struct reader *r, const struct rpc_arg *a)
{
    const unsigned bit = 1u << (a - r->args.at);
    if (r->seen & bit)
        return wrong(r, "given twice:", a->name);
    r->seen |= bit;
    return true;
}

static int unknown_option(struct reader *r, const char *word)
{
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    for (unsigned i = 0; i < r->args.n; i++) { /* the beginning of one is nearer than any other */
        const struct rpc_arg *a = &r->args.at[i];
        if ((a->kind == RPC_ARG_FLAG || a->kind == RPC_ARG_OPTION) && *text &&
            !strncmp(a->name, text, strlen(text))) {
            snprintf(r->why, COMMAND_WHY, "%s: unknown option \"%.100s\"; did you mean --%s?",
                     r->name, word, a->name);
            return 0;
        }
    }
    for (unsigned i = 0; i < r->args.n; i++) {
        const struct rpc_arg *a = &r->args.at[i];
        if ((a->kind == RPC_ARG_FLAG || a->kind == RPC_ARG_OPTION) &&
            edit_distance(text, a->name) < 3) {
            snprintf(r->why, COMMAND_WHY, "%s: unknown option \"%.100s\"; did you mean --%s?",
                     r->name, word, a->name);
            return 0;
        }
    }
    return wrong(r, "unknown option", word);
}

/* Words it took, 0: wrong. */
static int read_option(struct reader *r, char *const *words, int n)
{
    const char *name = words[0] + 2;
    const size_t len = strcspn(name, "=");
    const struct rpc_arg *a = option_named(r, name, len);
    if (!a)
        return unknown_option(r, words[0]);
    if (!mark(r, a))
        return 0;
    if (a->kind == RPC_ARG_FLAG) {
        if (name[len])
            return wrong(r, "takes no value:", words[0]);
        rpc_out_bool(r->out, a->name, true);
        return 1;
    }
    if (name[len] == '=') {
        rpc_out_str(r->out, a->name, name + len + 1);
        return 1;
    }
    if (n < 2)
        return wrong(r, "a value is missing after", words[0]);
    rpc_out_str(r->out, a->name, words[1]);
    return 2;
}

static bool is_option(const struct reader *r, const char *word)
{
    return !r->literal && !strncmp(word, "--", 2);
}

static bool put_pair(struct reader *r, char *const *words, int i)
{
    char key[64];
    const char *word = words[i];
    const size_t len = strcspn(word, "=");
    if (!word[len] || len == 0 || len >= sizeof key)
        return wrong(r, "KEY=VALUE is needed, not", word);
    for (int before = 0; before < i; before++)
        if (!is_option(r, words[before]) && !strncmp(words[before], word, len + 1))
            return wrong(r, "given twice:", word);
    memcpy(key, word, len);
    key[len] = 0;
    rpc_out_str(r->out, key, word + len + 1);
    return true;
}

/* KEY=VALUE… or NAME…: all words that are no options, to the end; those are left for later. */
static bool read_many(struct reader *r, const struct rpc_arg *a, char *const *words, int n)
{
    const bool set = a->kind == RPC_ARG_SET;
    if (set)
        rpc_out_map(r->out, a->name);
    else
        rpc_out_list(r->out, a->name);
    for (int i = 0; i < n; i++) {
        if (!r->literal && !strcmp(words[i], "--"))
            continue;
        if (is_option(r, words[i])) {
            const struct rpc_arg *o = option_named(r, words[i] + 2, strcspn(words[i] + 2, "="));
            i += o && o->kind == RPC_ARG_OPTION && !strchr(words[i], '=');
        } else if (!set) {
            rpc_out_str(r->out, NULL, words[i]);
        } else if (!put_pair(r, words, i)) {
            return false;
        }
    }
    rpc_out_end(r->out);
    return true;
}

static struct rpc_arg *next_positional(struct reader *r)
{
    for (unsigned i = 0; i < r->args.n; i++) {
        struct rpc_arg *a = &r->args.at[i];
        if (a->kind != RPC_ARG_FLAG && a->kind != RPC_ARG_OPTION && !(r->seen & 1u << i))
            return a;
    }
    return NULL;
}

static bool read_words(struct reader *r, char *const *words, int n)
{
    bool many = false;
    for (int i = 0, step; i < n; i += step) {
        step = 1;
        if (!r->literal && !strcmp(words[i], "--")) {
            r->literal = true;
        } else if (is_option(r, words[i])) {
            if (!(step = read_option(r, words + i, n - i)))
                return false;
        } else if (!many) {
            const struct rpc_arg *a = next_positional(r);
            if (!a)
                return wrong(r, "too many words, from", words[i]);
            mark(r, a);
            many = a->kind != RPC_ARG_WORD;
            if (!many)
                rpc_out_str(r->out, a->name, words[i]);
            else if (!read_many(r, a, words + i, n - i))
                return false;
        }
    }
    return true;
}

static bool complete(struct reader *r)
{
    for (unsigned i = 0; i < r->args.n; i++)
        if (r->args.at[i].required && !(r->seen & 1u << i))
            return wrong(r, "this is missing:", r->args.at[i].value);
    for (unsigned choice = 1; choice <= r->args.choices; choice++) {
        unsigned given = 0;
        for (unsigned i = 0; i < r->args.n; i++)
            given += r->args.at[i].choice == choice && (r->seen & 1u << i);
        if (given != 1)
            return wrong(r, given ? "only one of these can be given:" : "one of these is needed:",
                         rpc_methods[r->method].args);
    }
    return true;
}

bool command_params(enum rpc_method method, char *const *words, int n, struct rpc_out *out,
                    char *why)
{
    struct reader r = {.method = method, .out = out, .why = why};
    rpc_out_init(out);
    command_name(method, r.name, sizeof r.name);
    if (rpc_args_parse(rpc_methods[method].args, &r.args))
        return wrong(&r, "the table of methods is wrong", "");
    rpc_out_map(out, NULL);
    if (!read_words(&r, words, n) || !complete(&r))
        return false;
    rpc_out_end(out);
    return true;
}
