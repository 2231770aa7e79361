/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * polderctl: the admin command line. Private to admin/.
 *
 *   main.c        options, one call, exit status
 *   command.c     words to method and parameters
 *   rpc_client.c  the call, blocking, with a deadline
 *   tables/       answers for people: tables/tables.h
 *   try.c         waits for the report of limit try
 *   upgrade.c     waits for the end of an upgrade
 *   ws_upgrade.c  the part of it that is polder-supervisor's
 *   top/          the service at a glance: top/top.h
 *   watch.c       what happens, live
 *   smoke.c       requests to a server before it gets traffic
 *   json.c        answers for programs
 *   help.c        --help, from the table of methods; completion.c: for shells, from the same
 *   verify/       the probes of verify
 *
 * Commands, their arguments and their help are libshared/tables/methods.def; nothing here knows a
 * command by name but where its answer is worth a form of its own (tables/).
 */
#ifndef POLDER_ADMIN_POLDERCTL_H
#define POLDER_ADMIN_POLDERCTL_H
#include "polder/rpc.h"
#include "polder/rpc_out.h"
#include <msgpack.h>
#include <stdio.h>

enum ctl_exit { CTL_DONE, CTL_FAILED, CTL_USAGE, CTL_NO_DAEMON };

/* ---- command.c ---- */
#define COMMAND_WHY 1024
/* The method that words[0..n) begin with, and how many words name it. -1: why says what is wrong
 * and what is expected. */
int command_find(char *const *words, int n, int *used, char *why);
/* The parameters: one map. false: why says what is wrong. */
bool command_params(enum rpc_method method, char *const *words, int n, struct rpc_out *out,
                    char *why);
/* "cache invalidate" */
const char *command_name(enum rpc_method method, char *out, size_t size);
bool command_is_noun(const char *word);

/* ---- help.c ---- */
void help_all(FILE *to);
void help_noun(FILE *to, const char *noun);
void help_method(FILE *to, enum rpc_method method);

/* ---- completion.c ---- */
/* The script for that shell; the exit status. */
int completion_print(FILE *to, const char *shell);

/* ---- rpc_client.c ---- */
struct ctl_answer {
    msgpack_unpacked space;
    char *bytes;
    const msgpack_object *error, *result; /* one of them; the other is nil */
    char why[512];                        /* where there is no answer */
};
/* 0; or CTL_NO_DAEMON or CTL_FAILED with why. */
int ctl_call(const char *socket, enum rpc_method method, const struct rpc_out *params,
             unsigned timeout_ms, struct ctl_answer *answer);
void ctl_answer_free(struct ctl_answer *answer);
/* Writes the error of an answer; the exit status that it means. */
int ctl_show_error(const struct ctl_answer *answer);

/* ---- commands that are more than one call and its answer ---- */
struct ctl_run {
    const char *socket;
    unsigned timeout_ms; /* of each call */
    bool json;
    char *const *words; /* behind the command's name */
    int n;
};
int top_run(const struct ctl_run *run);
int watch_run(const struct ctl_run *run);

/* ---- try.c ---- */
struct ctl_try {
    const char *socket;
    char name[256];
    uint64_t run, left_ms;
};
/* Whether that answer says that a try has begun. */
bool try_begun(const struct ctl_answer *answer, struct ctl_try *t);
/* Waits until it is over, and asks for its report. As ctl_call(). */
int try_report(struct ctl_try *t, unsigned timeout_ms, struct ctl_answer *report);

/* ---- smoke.c ---- */
#define SMOKE_MAX 16
struct ctl_smoke {
    const char *url[SMOKE_MAX];
    unsigned n;
};
/* Takes each --smoke URL out of the words. False: one has no URL, or there are more than SMOKE_MAX.
 */
bool smoke_take(char **words, int *n, struct ctl_smoke *out);
/* Asks the server that the parameters name. False: it has printed why. */
bool smoke_passes(const struct ctl_smoke *smoke, const struct rpc_out *params);

/* ---- upgrade.c ---- */
/* Whether that answer says that an upgrade has begun, and which. */
bool upgrade_begun(const struct ctl_answer *answer, uint64_t *number);
/* Waits until it is over, although the daemon cannot be reached for moments meanwhile; answer: its
 * state. As ctl_call(); CTL_FAILED too where another daemon answers than the one that had begun. */
int upgrade_follow(const char *socket, uint64_t number, unsigned timeout_ms,
                   struct ctl_answer *answer);
/* Whether that state says that the last one has failed. */
bool upgrade_failed(const struct ctl_answer *answer);

struct ws_upgrade;
/* How both went, as one object; status: of the calls that brought answer. */
bool upgrade_print_json(FILE *to, int status, const struct ctl_answer *answer,
                        const struct ws_upgrade *websockets);

/* ---- ws_upgrade.c ---- */
enum ws_upgraded {
    WS_UPGRADE_NONE, /* it does not answer */
    WS_UPGRADE_SAME, /* what is on disk runs */
    WS_UPGRADE_BEGUN,
    WS_UPGRADED,
    WS_UPGRADE_FAILED
};
struct ws_upgrade {
    enum ws_upgraded result;
    char from[32], to[32], why[512];
};
void ws_upgrade(const char *socket, bool wait, struct ws_upgrade *u);
void ws_upgrade_show(const struct ws_upgrade *u);
void ws_upgrade_put(const struct ws_upgrade *u, struct rpc_out *o, const char *key);

/* ---- tables/print.c, json.c ---- */
void table_print(FILE *to, enum rpc_method method, const msgpack_object *result);
bool json_print(FILE *to, const msgpack_object *result);
bool json_print_line(FILE *to, const msgpack_object *result); /* the same in one line */
#endif
