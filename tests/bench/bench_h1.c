/* SPDX-License-Identifier: BSD-2-Clause */
/* bench_h1: what parsing costs, in ns a message; the median of several runs. */
#include "daemons/http/h1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS   15
#define ROUNDS 100000

static const char small[] = "GET /api/items/1 HTTP/1.1\r\n"
                            "Host: 127.0.0.1:8000\r\n"
                            "Accept: */*\r\n"
                            "Foo: bar\r\n\r\n";

static const char browser[] =
    "GET /api/goals/preview?tab=open&sort=due&utm_source=mail HTTP/1.1\r\n"
    "Host: app.example.com\r\n"
    "Connection: keep-alive\r\n"
    "sec-ch-ua: \"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n"
    "sec-ch-ua-mobile: ?0\r\n"
    "sec-ch-ua-platform: \"Linux\"\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36\r\n"
    "Accept: application/json, text/plain, */*\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: cors\r\n"
    "Sec-Fetch-Dest: empty\r\n"
    "Referer: https://app.example.com/goals/open\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    "Cookie: sid=0123456789abcdef0123456789abcdef; theme=dark; consent=analytics%3Dfalse; "
    "experiment=checkout-b\r\n"
    "If-None-Match: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n"
    "Cache-Control: max-age=0\r\n"
    "X-Requested-With: XMLHttpRequest\r\n\r\n";

static const char reply[] = "HTTP/1.1 200 OK\r\n"
                            "date: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
                            "server: uvicorn\r\n"
                            "content-length: 1024\r\n"
                            "content-type: application/json\r\n"
                            "cache-control: max-age=60\r\n"
                            "etag: \"abc\"\r\n\r\n";

static struct h1_head head;
static volatile unsigned long sink;

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void parse_request(const char *bytes, size_t len)
{
    size_t scanned = 0;
    enum problem problem;
    if (h1_parse_request(bytes, len, &scanned, &head, &problem) != H1_DONE)
        abort();
    sink += head.n_fields;
}

static void parse_response(const char *bytes, size_t len)
{
    size_t scanned = 0;
    if (h1_parse_response(bytes, len, &scanned, false, &head) != H1_DONE)
        abort();
    sink += head.n_fields;
}

static void read_chunks(const char *bytes, size_t len)
{
    struct h1_body body;
    h1_body_init(&body, H1_CHUNKED, 0);
    for (size_t at = 0, used; !body.done; at += used) {
        struct str content;
        if (h1_body_read(&body, bytes + at, len - at, &used, &content) != 0)
            abort();
        sink += content.len;
    }
}

static void measure(const char *what, void (*work)(const char *, size_t), const char *bytes,
                    size_t len)
{
    double ns[RUNS];
    for (int run = 0; run < RUNS; run++) {
        double start = now_ns();
        for (int i = 0; i < ROUNDS; i++)
            work(bytes, len);
        ns[run] = (now_ns() - start) / ROUNDS;
    }
    qsort(ns, RUNS, sizeof *ns, by_size);
    printf("%-28s %5zu bytes %7.1f ns\n", what, len, ns[RUNS / 2]);
}

int main(void)
{
    static char chunks[17000];
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        n += (size_t)sprintf(chunks + n, "1000\r\n");
        memset(chunks + n, 'x', 4096);
        n += 4096;
        n += (size_t)sprintf(chunks + n, "\r\n");
    }
    n += (size_t)sprintf(chunks + n, "0\r\n\r\n");
    measure("request, small", parse_request, small, sizeof small - 1);
    measure("request, of a browser", parse_request, browser, sizeof browser - 1);
    measure("response", parse_response, reply, sizeof reply - 1);
    measure("body of four chunks", read_chunks, chunks, n);
    return 0;
}
