/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upgrade: replaces the program of this process, with everything that it owns, by the one that
 * stands now where it was started from.
 *
 *   1. A child runs the new program with a copy of the state block and the configuration. It says
 *      whether it understands both, or cannot even do that; after PROOF_S it is ended. All relaying
 *      goes on meanwhile.
 *   2. Answers of the admin socket that are under way get out.
 *   3. The state block is written anew, all descriptors stay open, and execve() puts the new program
 *      in our place. Messages wait from here on, in the kernel.
 *   4. It reads the configuration and the block (carry/carry.h), and its loop runs.
 *
 * Whatever goes wrong before the execve() leaves all as it was: the condition upgrade_failed and the
 * log say why.
 */
#ifndef POLDER_SUPERVISOR_UPGRADE_H
#define POLDER_SUPERVISOR_UPGRADE_H
#include "daemons/supervisor/supervisor.h"

struct rpc_call;

#define UPGRADE_PROOF_S 5
#define UPGRADE_OK      "ok " /* then the version */

/* call: is answered when the proof is over; NULL. then: what to do where it fails; NULL. */
void upgrade_begin(struct supervisor *s, const struct rpc_call *call,
                   void (*failed)(struct supervisor *s));

/* In the child of 1: its exit status. */
int upgrade_prove(const char *config_path);
/* The same for what the custodian leaves to its next program. */
int upgrade_prove_custodian(const char *config_path);
/* The same for what is left to another process. */
int upgrade_prove_follower(const char *config_path);
/* One that is under way fails. */
void upgrade_give_up(struct supervisor *s, const char *why);
/* The program of the custodian is this version now; or stays as it was: why. */
void upgrade_of_custodian(struct supervisor *s, uint32_t says, const char *text);
/* This process was forked by the custodian, whose program it has, after so many upgrades. */
void upgrade_begin_forked(struct supervisor *s, uint64_t upgrades);
/* In the program of 4, before its loop runs: 0, or the exit status of a process that cannot go on. */
int upgrade_resume(struct supervisor *s);
#endif
