/* SPDX-License-Identifier: BSD-2-Clause */
/* What belongs to one identity never leaves its host: no byte of it is in the store, or was on the wire to
 * it. Bodies are random, so that no coding hides them. */
#include "fleet_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY 4000

static struct backend *backend;
static struct fleet fleet = {
    .sharing = "shared = true shared_timeout = 10s ttl_negative = 60s",
    .routes = "route \"/own/*\" { upstream = \"u\" cache { partition = \"header:X-Tenant\" } }\n"
              "route \"/cookies/*\" { upstream = \"u\" cache { store_set_cookie = true } }\n"
              "route \"/poll/*\" { upstream = \"u\" cache { } poll { } }\n"};

/* What is asked, and how it is answered. The body is made of the path; IDENT-… is what must not be
 * seen. */
static const struct story {
    const char *path, *fields, *lines;
    bool body_may_leave;
} stories_of[] = {
    {"/authorization", "Authorization: Bearer IDENT-1", "Cache-Control: max-age=300", false},
    {"/authorization-public", "Authorization: Bearer IDENT-2",
     "Cache-Control: public, max-age=300, s-maxage=300", false},
    {"/cookie", "Cookie: session=IDENT-3", "Cache-Control: max-age=300", false},
    {"/cookie-public", "Cookie: session=IDENT-4", "Cache-Control: public, s-maxage=300", false},
    {"/api-key", "X-Api-Key: IDENT-5", "Cache-Control: max-age=300", false},
    {"/own/tenant", "X-Tenant: IDENT-6", "Cache-Control: max-age=300", false},
    {"/cookies/set", "X-A: b", "Set-Cookie: sid=IDENT-7\r\nCache-Control: public, max-age=300",
     false},
    {"/set-cookie", "X-A: b", "Set-Cookie: sid=IDENT-8\r\nCache-Control: public, max-age=300",
     true},
    {"/private", "X-A: b", "Cache-Control: private, max-age=300", false},
    {"/no-store", "X-A: b", "Cache-Control: no-store", false},
    {"/private-field", "X-A: b",
     "Cache-Control: max-age=300, private=\"X-Secret\"\r\nX-Secret: IDENT-9", true},
    {"/vary-cookie", "Cookie: session=IDENT-10", "Vary: Cookie\r\nCache-Control: max-age=300",
     false},
    {"/vary-star", "X-A: b", "Vary: *\r\nCache-Control: max-age=300", false},
    {"/poll/own", "Authorization: Bearer IDENT-11", "Cache-Control: max-age=300", false},
    {"/range", "Range: bytes=0-9\r\nAuthorization: Bearer IDENT-12", "Cache-Control: max-age=300",
     false},
    {"/stale", "Authorization: Bearer IDENT-13", "ETag: \"1\"\r\nCache-Control: public, max-age=0",
     false},
    {"/missing", "Authorization: Bearer IDENT-14", "Cache-Control: max-age=300", false},
    {"/public", "X-A: b", "Cache-Control: max-age=300", true}, /* last: then all was written */
};
#define N (sizeof stories_of / sizeof *stories_of)

/* "BODY/path." and bytes that no coding makes shorter. */
static size_t body_of(const char *path, char out[BODY])
{
    unsigned seed = 1;
    const int len = snprintf(out, 100, "BODY%s.", path);
    for (int i = len; i < BODY; i++)
        out[i] = (char)(rand_r(&seed) >> 8);
    return BODY;
}

static bool answers(struct asked *ask)
{
    char body[BODY];
    const size_t len = body_of(ask->target, body);
    for (size_t i = 0; i < N; i++) {
        if (strcmp(ask->target, stories_of[i].path) != 0)
            continue;
        reply(ask, "HTTP/1.1 %s\r\n%s\r\nContent-Length: %zu\r\n\r\n",
              strstr(ask->target, "missing") ? "404 Not Found" : "200 OK", stories_of[i].lines,
              len);
        return reply_bytes(ask, body, len);
    }
    return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
}

/* How often it is among the keys and values of the store. */
static unsigned in_store(const char *text)
{
    return (unsigned)atoi(redis_do(
        &fleet.redis,
        "EVAL local\tn=0\tlocal\tfunction\tlook(v)\tif\ttype(v)=='table'\tthen\t"
        "for\t_,x\tin\tipairs(v)\tdo\tlook(x)\tend\t"
        "elseif\tstring.find(tostring(v),ARGV[1],1,true)\tthen\tn=n+1\tend\tend\t"
        "local\tread={string={'GET'},hash={'HGETALL'},zset={'ZRANGE',0,-1},stream={'XRANGE','-','+'"
        "}"
        "}\tfor\t_,k\tin\tipairs(redis.call('KEYS','*'))\tdo\tlook(k)\t"
        "local\tc=read[redis.call('TYPE',k).ok]\tlook(redis.call(c[1],k,unpack(c,2)))\tend\t"
        "return\tn 0 %s",
        text));
}

static bool left(const char *text)
{
    return relay_has_seen(fleet.relay, text, strlen(text)) || in_store(text) > 0;
}

static void ask(int host, const struct story *s)
{
    struct message m;
    char fields[200];
    snprintf(fields, sizeof fields, "%s\r\n", s->fields);
    fleet_get(&fleet.host[host], s->path, fields, &m);
    message_free(&m);
}

/* By identified clients, too, to what others have stored. */
static void change(int host)
{
    struct message m;
    assert_int_equal(request(fleet.host[host].port, "POST", "/changed",
                             "Authorization: Bearer IDENT-15\r\n"
                             "Cookie: session=IDENT-16\r\n",
                             "IDENT-17", &m),
                     204);
    message_free(&m);
}

static void no_byte_of_an_identity_leaves_its_host(void **state)
{
    (void)state;
    char text[100];
    for (int host = 0; host < 2; host++) {
        change(host);
        for (size_t i = 0; i < N; i++)
            ask(host, &stories_of[i]);
    }
    wait_until(in_store("BODY/public.") == 1, 5000);
    wait_until(left("BODY/set-cookie."), 5000);
    assert_true(relay_has_seen(fleet.relay, "BODY/public.", 12)); /* so the others would be seen */
    for (size_t i = 0; i < N; i++) {
        snprintf(text, sizeof text, "BODY%s.", stories_of[i].path);
        if (left(text) != stories_of[i].body_may_leave)
            fail_msg("%s has %sleft", text, stories_of[i].body_may_leave ? "not " : "");
    }
    for (int i = 1; i <= 17; i++) {
        snprintf(text, sizeof text, "IDENT-%d", i);
        if (left(text))
            fail_msg("%s has left", text);
    }
    assert_false(relay_has_seen(fleet.relay, FLEET_SECRET, sizeof FLEET_SECRET - 1));
    assert_true(relay_bytes(fleet.relay) > 2 * BODY);
}

static void begin(void)
{
    fleet.store = fleet_relay(&fleet);
    fleet_start(&fleet);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(no_byte_of_an_identity_leaves_its_host),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, begin);
}
