/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * servers: weights of backends, and their conditions: each second, states in the table of servers
 * become conditions. The process that marks a server DOWN or UP raises and clears the condition at
 * once; this repeats it, because a process may die between the two, and a configuration may have
 * dropped the server.
 */
#ifndef POLDER_CONTROL_SERVERS_H
#define POLDER_CONTROL_SERVERS_H
#include <stdint.h>

struct config;
struct config_server;
struct config_upstream;
struct control;
struct server_row;

void servers_follow(struct control *c); /* each second */
const struct config_server *servers_find(const struct config *config, const char *upstream,
                                         const char *server);
/* "up", "down", "ejected", "slow start", "draining": it asks for no more in its health answers, or
 * "drained": of weight 0, whatever its state. row NULL: its state is unknown. */
const char *servers_state_name(const struct config_server *server, const struct server_row *row,
                               uint32_t weight);
/* Of all servers of an upstream, in their order, in one step: in every configuration that is
 * served, and in the supervisor. */
void servers_set_weights(struct control *c, const struct config_upstream *upstream,
                         const uint32_t *weight);
/* In every configuration that is served, and in the supervisor: WebSockets go to the same servers.
 * Returns the weight before. */
uint32_t servers_set_weight(struct control *c, const struct config_server *server, uint32_t weight);
/* Tells the supervisor, which knows those of the file and what was made permanent. */
void servers_tell_weights(struct control *c);
#endif
