/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rpc: MessagePack-RPC as the admin socket speaks it, and the table of methods.
 *
 * Requests [0, msgid, "noun.verb", [map]] or [0, msgid, "noun.verb", map]; answers
 * [1, msgid, error, result]; notifications [2, method, params]. A message is at most
 * RPC_MESSAGE_MAX bytes and RPC_DEPTH_MAX deep. rpc_scan() walks the bytes before msgpack-c sees
 * them: a 5-byte header that announces 2^27 elements would otherwise make it allocate gigabytes.
 *
 * libshared/tables/methods.def is the one table: dispatch, polderctl's command line, --help and the
 * manual are made from it.
 */
#ifndef POLDER_RPC_H
#define POLDER_RPC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPC_MESSAGE_MAX (1u << 20)
#define RPC_DEPTH_MAX   16

enum rpc_error {
    RPC_OK = 0,
    RPC_BAD_MESSAGE, /* no msgpack-rpc request */
    RPC_NO_METHOD,
    RPC_BAD_ARGUMENT, /* unknown, missing or out of range; the message names it */
    RPC_NOT_FOUND,
    RPC_BUSY, /* try again */
    RPC_FAILED,
    RPC_UNAVAILABLE, /* keeper or supervisor does not answer */
    RPC_DENIED,      /* the caller is not root, not our user, not of the group */
};
const char *
rpc_error_name(enum rpc_error e); /* the "code" member of the error map: {"code","message"} */

enum rpc_error rpc_error_of(const char *name); /* RPC_FAILED where unknown */

/* Length of the first complete message in buf; 0: incomplete; -EMSGSIZE: too long; -ELOOP: too
 * deep; -EPROTO: a byte that is no msgpack (0xc1), or counts that cannot fit in RPC_MESSAGE_MAX. */
int64_t rpc_scan(const uint8_t *buf, size_t len);
/* The same for a message that arrives in pieces, scanning each byte once: start with a zeroed
 * state, and pass everything received so far each time. */
struct rpc_scan_state {
    uint64_t at;
    uint32_t depth, begun;
    uint64_t left[RPC_DEPTH_MAX + 1];
};
int64_t rpc_scan_on(struct rpc_scan_state *state, const uint8_t *buf, size_t len);

enum rpc_method {
#define METHOD(id, noun, verb, args, changes, help) RPC_METHOD_##id,
#include "../../libshared/tables/methods.def"
#undef METHOD
    RPC_METHODS
};
struct rpc_method_info {
    const char *noun,
        *verb;        /* verb "" where the noun stands alone; the method is "noun.verb" or "noun" */
    const char *args; /* as polderctl takes them, see methods.def */
    int changes;      /* logged with the caller's uid and pid */
    const char *help;
};
extern const struct rpc_method_info rpc_methods[RPC_METHODS];
/* -1 where unknown */
int rpc_method_find(const char *name, size_t len);

/* `args`, parsed. */
enum rpc_arg_kind {
    RPC_ARG_WORD,   /* NAME: the next word */
    RPC_ARG_WORDS,  /* NAME...: all further words; a list */
    RPC_ARG_SET,    /* KEY=VALUE...: all further words; a map, under "set" */
    RPC_ARG_OPTION, /* --name X */
    RPC_ARG_FLAG,   /* --name: true or absent */
};
struct rpc_arg {
    enum rpc_arg_kind kind;
    char name[24];   /* of the parameter, lower case */
    char value[24];  /* the value's placeholder in help: "NAME", "P"; "" for a flag */
    bool required;   /* on its own */
    unsigned choice; /* 1, 2, …: exactly one of the parameters of that number; 0: no choice */
};
#define RPC_ARGS_MAX 12
struct rpc_args {
    struct rpc_arg at[RPC_ARGS_MAX];
    unsigned n, choices;
};
/* 0, or -EINVAL for an invalid row of the table. */
int rpc_args_parse(const char *args, struct rpc_args *out);
#endif
