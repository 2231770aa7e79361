/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * http_server: a small HTTP/1.1 server for a daemon's own pages.
 *
 * It answers GET and HEAD; other methods get 405. A connection answers one request after
 * the other; one that waits for its page is not read. Heads must come within HEAD_S, answers must
 * be taken within WRITE_S. When there are too many connections, each new one closes another: the
 * oldest without a complete request, else the one that has not read from its answer for longest:
 * clients that do not read cannot lock out others. After the last answer of a connection further
 * input is read and dropped for a while, because a reset would destroy the answer.
 *
 * The handler is called once a request and answers with http_answer() or http_answer_problem(), at
 * once or later: a request outlives its connection (the answer is then thrown away) and has to be
 * answered exactly once, before the server is freed or after.
 *
 * A page may also be a stream (of events, say): http_stream_begin() instead of an answer, then
 * parts as they come, until the client is gone. Its unsent data is
 * bounded: a client that does not keep up, or with a dead host, is disconnected. Streams do not
 * count as connections and are not closed to make room: their creator bounds their number.
 *
 * A long page is an answer in parts (http_answer_parts()), each made when the one before was sent.
 * It keeps its connection where the client speaks HTTP/1.1, and counts as any other.
 */
#ifndef POLDER_DAEMONS_NET_HTTP_SERVER_H
#define POLDER_DAEMONS_NET_HTTP_SERVER_H
#include "daemons/http/h1.h"
#include <ev.h>

struct http_server;
struct http_request; /* one that waits for its answer */

struct http_call {
    struct http_request *request;
    const struct h1_head *head; /* gone when the handler returns */
    unsigned origin;            /* origin of http_server_add() */
};
typedef void (*http_handler)(void *arg, const struct http_call *call);

struct http_server *http_server_new(struct ev_loop *loop, http_handler handler, void *arg);
/* Closes all connections. */
void http_server_free(struct http_server *server);
/* Takes an accepted connection; origin: where it came in, for the handler. */
void http_server_add(struct http_server *server, int fd, unsigned origin);

/* Exactly once a request, now or later; body is copied. */
void http_answer(struct http_request *request, unsigned status, const char *type, const char *body,
                 size_t len);
/* The same with further lines of the head: each "Name: value\r\n". */
void http_answer_with(struct http_request *request, unsigned status, const char *type,
                      const char *fields, const char *body, size_t len);
/* problem+json (RFC 9457); detail needs no JSON escapes. */
void http_answer_problem(struct http_request *request, unsigned status, const char *detail);
void http_answer_problem_with(struct http_request *request, unsigned status, const char *fields,
                              const char *detail);

/* The client has left, or was hung up: the request is over. Called once, from the loop or from
 * http_server_free(), never from within http_stream_put(). */
typedef void (*http_gone_fn)(void *arg);
/* 200 and a body that ends with its connection. False: the client has left, or only the
 * head was asked for: the request is over, and gone is not called. */
bool http_stream_begin(struct http_request *request, const char *type, http_gone_fn gone,
                       void *arg);
void http_stream_put(struct http_request *request, const char *bytes, size_t len);

#define HTTP_PART_MAX (128u << 10)
/* The next part of a body, at most HTTP_PART_MAX, which stays until the next call; *len 0: that was all. False: it cannot
 * be made; the client sees a body that is cut short. */
typedef bool (*http_next_fn)(void *arg, const char **part, size_t *len);
/* 200 and a body that is made while it is sent: next is called from the loop whenever the part
 * before was sent, so a slow client costs one part and a long body does not block the loop. done:
 * called once, when the answer was sent or the client is gone, possibly before this returns. */
void http_answer_parts(struct http_request *request, const char *type, http_next_fn next,
                       http_gone_fn done, void *arg);
#endif
