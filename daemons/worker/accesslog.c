/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * accesslog: one line a response, collected over an iteration and written in one piece, so that the
 * lines of several workers never mix (O_APPEND). Header values other than User-Agent and Referer
 * never get there. SIGUSR1 opens the file again, for log rotation.
 */
#include "daemons/worker/accesslog.h"
#include "daemons/http/h1.h"
#include "daemons/worker/request.h"
#include "daemons/worker/worker.h"
#include "polder/clientip.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX (64u << 10)
#define LINE_MAX 20480

static int open_file(struct worker *w)
{
    w->log_fd = open(w->config->access_log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (w->log_fd < 0)
        log_error("accesslog: cannot open %s: %s; create it or its directory for the user polder",
                  w->config->access_log_path, strerror(errno));
    return w->log_fd < 0 ? -errno : 0;
}

int accesslog_open(struct worker *w)
{
    if (w->config->access_log == CONFIG_LOG_OFF)
        return 0;
    w->log_text = malloc(TEXT_MAX);
    if (!w->log_text)
        return -ENOMEM;
    if (w->config->access_log == CONFIG_LOG_STDERR) {
        w->log_fd = STDERR_FILENO;
        return 0;
    }
    return open_file(w);
}

void accesslog_flush(struct worker *w)
{
    size_t done = 0;
    while (done < w->log_len) {
        const ssize_t n = write(w->log_fd, w->log_text + done, w->log_len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* disk full: lines are lost, requests are not */
            break;
        done += (size_t)n;
    }
    w->log_len = 0;
}

void accesslog_reopen(struct worker *w)
{
    if (w->config->access_log != CONFIG_LOG_JSON && w->config->access_log != CONFIG_LOG_COMBINED)
        return;
    accesslog_flush(w);
    const int old = w->log_fd;
    if (open_file(w) < 0)
        w->log_fd = old;
    else
        close(old);
}

/* Text from outside, made harmless: quotes, backslashes, control and non-ASCII bytes. */
static void put_escaped(struct h1_out *o, struct field_text t, bool json)
{
    char code[8];
    for (size_t i = 0; i < t.len; i++) {
        const unsigned char c = (unsigned char)t.at[i];
        if (c == '"' || c == '\\') {
            h1_put(o, "\\", 1);
            h1_put(o, t.at + i, 1);
        } else if (c < 0x20 || c >= 0x7f) {
            snprintf(code, sizeof code, json ? "\\u%04x" : "\\x%02x", c);
            h1_puts(o, code);
        } else {
            h1_put(o, t.at + i, 1);
        }
    }
}

static struct field_text method_of(const struct request *r)
{
    return r->head ? r->head->method : (struct field_text){"-", 1};
}

static void put_json_text(struct h1_out *o, const char *name, struct field_text t)
{
    h1_puts(o, ",\"");
    h1_puts(o, name);
    h1_puts(o, "\":\"");
    put_escaped(o, t, true);
    h1_puts(o, "\"");
}

static void put_json_number(struct h1_out *o, const char *name, uint64_t n)
{
    h1_puts(o, ",\"");
    h1_puts(o, name);
    h1_puts(o, "\":");
    h1_put_u64(o, n);
}

static void line_json(struct worker *w, const struct access_entry *e, struct h1_out *o)
{
    const struct request *r = e->request;
    char ip[46], when[64];
    struct tm tm;
    const time_t s = (time_t)(w->real_ms / 1000);
    gmtime_r(&s, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    h1_puts(o, "{\"time\":\"");
    h1_puts(o, when);
    snprintf(when, sizeof when, ".%03uZ\"", (unsigned)(w->real_ms % 1000));
    h1_puts(o, when);
    put_json_text(o, "client", (struct field_text){ip, clientip_format(&r->ip, ip)});
    put_json_text(o, "method", method_of(r));
    if (r->head)
        put_json_text(o, "host", r->head->host);
    put_json_text(o, "target", r->target);
    put_json_number(o, "status", e->status);
    put_json_number(o, "bytes", e->bytes);
    if (r->started_ns)
        put_json_number(o, "us", (clock_mono_ns() - r->started_ns) / 1000);
    put_json_text(o, "cache", (struct field_text){e->cache, strlen(e->cache)});
    if (r->route)
        put_json_text(o, "route",
                      (struct field_text){r->route->pattern, strlen(r->route->pattern)});
    h1_puts(o, "}\n");
}

static void put_quoted(struct h1_out *o, const struct h1_head *head, enum h1_field_id id)
{
    const struct h1_field *f = head ? h1_find(head, id) : NULL;
    h1_puts(o, " \"");
    put_escaped(o, f ? f->value : (struct field_text){"-", 1}, false);
    h1_puts(o, "\"");
}

static void line_combined(struct worker *w, const struct access_entry *e, struct h1_out *o)
{
    const struct request *r = e->request;
    char ip[46], when[64];
    struct tm tm;
    const time_t s = (time_t)(w->real_ms / 1000);
    localtime_r(&s, &tm);
    strftime(when, sizeof when, " - - [%d/%b/%Y:%H:%M:%S %z] \"", &tm);
    h1_put(o, ip, clientip_format(&r->ip, ip));
    h1_puts(o, when);
    put_escaped(o, method_of(r), false);
    h1_puts(o, " ");
    put_escaped(o, r->target, false);
    h1_puts(o, r->http10 ? " HTTP/1.0\" " : " HTTP/1.1\" ");
    h1_put_u64(o, e->status);
    h1_puts(o, " ");
    h1_put_u64(o, e->bytes);
    put_quoted(o, r->head, H1_REFERER);
    put_quoted(o, r->head, H1_USER_AGENT);
    h1_puts(o, "\n");
}

void accesslog_line(struct worker *w, const struct access_entry *entry)
{
    if (!w->log_text)
        return;
    if (TEXT_MAX - w->log_len < LINE_MAX)
        accesslog_flush(w);
    struct h1_out o = {w->log_text + w->log_len, w->log_text + TEXT_MAX, false};
    if (w->config->access_log == CONFIG_LOG_COMBINED)
        line_combined(w, entry, &o);
    else
        line_json(w, entry, &o);
    if (!o.overflow) /* a target of nothing but escapes does not fit: no line */
        w->log_len = (size_t)(o.at - w->log_text);
}
