/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc_args: takes the words of a method's `args` apart; see libshared/tables/methods.def. */
#include "polder/rpc.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool copy(char *out, size_t size, const char *from, size_t len, bool lower)
{
    if (len == 0 || len >= size)
        return false;
    for (size_t i = 0; i < len; i++)
        out[i] = lower ? (char)tolower((unsigned char)from[i]) : from[i];
    out[len] = 0;
    return true;
}

static bool read_positional(const char *word, size_t len, struct rpc_arg *a)
{
    if (len == 12 && !memcmp(word, "KEY=VALUE...", len)) {
        a->kind = RPC_ARG_SET;
        strcpy(a->name, "set");
        return copy(a->value, sizeof a->value, word, len, false);
    }
    a->kind = RPC_ARG_WORD;
    if (len > 3 && !memcmp(word + len - 3, "...", 3)) {
        a->kind = RPC_ARG_WORDS;
        len -= 3;
    }
    return copy(a->name, sizeof a->name, word, len, true) &&
           copy(a->value, sizeof a->value, word, len, false);
}

/* A parameter begins at `at`; one word, or two where an option has a value. */
static const char *read_parameter(const char *at, struct rpc_arg *a)
{
    size_t len = strcspn(at, " ])");
    if (strncmp(at, "--", 2))
        return read_positional(at, len, a) ? at + len : NULL;
    if (!copy(a->name, sizeof a->name, at + 2, len - 2, true))
        return NULL;
    a->kind = RPC_ARG_FLAG;
    at += len;
    if (at[0] != ' ' || !isupper((unsigned char)at[1]))
        return at;
    a->kind = RPC_ARG_OPTION;
    len = strcspn(++at, " ])");
    return copy(a->value, sizeof a->value, at, len, false) ? at + len : NULL;
}

int rpc_args_parse(const char *args, struct rpc_args *out)
{
    unsigned choice = 0;
    bool optional = false;
    memset(out, 0, sizeof *out);
    for (const char *at = args; at && *at;) {
        if (*at == ' ' || *at == '|') {
            at++;
        } else if (*at == '[' || *at == ']') {
            optional = *at++ == '[';
        } else if (*at == '(' || *at == ')') {
            choice = *at++ == '(' ? ++out->choices : 0;
        } else {
            if (out->n == RPC_ARGS_MAX)
                return -EINVAL;
            struct rpc_arg *a = &out->at[out->n++];
            if (!(at = read_parameter(at, a)))
                return -EINVAL;
            a->choice = choice;
            a->required = !optional && !choice;
        }
    }
    return 0;
}
