/* SPDX-License-Identifier: BSD-2-Clause */
/* ws_client: see ws_client.h. */
#include "ws_client.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct ws_frame frame;

int ask_only(unsigned port, const char *target, const char *lines)
{
    int fd = client_connect(port);
    client_send(fd,
                "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
                "Upgrade\r\nSec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                target, lines);
    return fd;
}

int ask(unsigned port, const char *target, const char *lines, struct message *m)
{
    int fd = ask_only(port, target, lines);
    client_read(fd, m, false);
    return fd;
}

int status_of(unsigned port, const char *target)
{
    struct message m;
    close(ask(port, target, "", &m));
    const int status = m.status;
    message_free(&m);
    return status;
}

int open_ws(unsigned port, const char *target)
{
    struct message m;
    int fd = ask(port, target, "", &m);
    if (m.status != 101)
        fail_msg("%s: %d instead of 101", target, m.status);
    assert_string_equal(field_of(&m, "Sec-WebSocket-Accept"), WS_ACCEPT);
    message_free(&m);
    return fd;
}

void send_frame(int fd, unsigned first, const void *payload, size_t len)
{
    unsigned char *f = malloc(len + 14);
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t n = 2;
    f[0] = (unsigned char)first;
    f[1] = (unsigned char)(0x80 | (len < 126 ? len : len < 65536 ? 126 : 127));
    for (unsigned i = len < 126 ? 0 : len < 65536 ? 2 : 8; i-- > 0;)
        f[n++] = (unsigned char)((unsigned long long)len >> (8 * i));
    memcpy(f + n, mask, 4);
    n += 4;
    for (size_t i = 0; i < len; i++)
        f[n + i] = (unsigned char)(((const unsigned char *)payload)[i] ^ mask[i & 3]);
    client_send_bytes(fd, f, n + len);
    free(f);
}

void say(int fd, const char *text)
{
    send_frame(fd, 0x81, text, strlen(text));
}

bool take(int fd, void *to, size_t n)
{
    uint64_t end = mono_ms() + harness_patience(5000);
    for (size_t got = 0; got < n;) {
        struct pollfd p = {fd, POLLIN, 0};
        if (mono_ms() > end || poll(&p, 1, 100) < 0)
            return false;
        ssize_t k = p.revents ? recv(fd, (char *)to + got, n - got, MSG_DONTWAIT) : -1;
        if (k == 0 || (k < 0 && p.revents && errno != EAGAIN))
            return false;
        got += k > 0 ? (size_t)k : 0;
    }
    return true;
}

/* false: the connection ended, or nothing came */
bool read_frame(int fd, struct ws_frame *f)
{
    unsigned char h[8];
    f->opcode = f->code = 0, f->len = 0;
    if (!take(fd, h, 2))
        return false;
    f->opcode = h[0] & 15;
    f->len = h[1] & 127;
    assert_int_equal(h[1] & 0x80, 0);
    unsigned extra = f->len == 126 ? 2 : f->len == 127 ? 8 : 0;
    if (extra) {
        f->len = 0;
        assert_true(take(fd, h, extra));
        for (unsigned i = 0; i < extra; i++)
            f->len = f->len << 8 | h[i];
    }
    assert_true(f->len < sizeof f->text);
    if (!take(fd, f->text, f->len))
        return false;
    f->text[f->len] = 0;
    if (f->opcode == 8 && f->len >= 2)
        f->code = (unsigned)(unsigned char)f->text[0] << 8 | (unsigned char)f->text[1];
    return true;
}

void expect_text(int fd, const char *text)
{
    assert_true(read_frame(fd, &frame));
    assert_int_equal(frame.opcode, 1);
    assert_string_equal(frame.text, text);
}

unsigned expect_close(int fd)
{
    while (read_frame(fd, &frame))
        if (frame.opcode == 8)
            return frame.code;
    return 1006;
}

pid_t supervisor_of(struct house *h)
{
    pid_t pid = 0;
    /* one that is just executed has no title yet */
    wait_until(house_children(h, "polder-supervisor", &pid, 1) == 1, 10000);
    return pid;
}

size_t descriptors(pid_t pid)
{
    char path[64];
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

void wait_for_supervisor(struct house *h)
{
    char path[256];
    snprintf(path, sizeof path, "%s/run/supervisor-rpc.sock", h->dir);
    wait_until(access(path, F_OK) == 0, 5000);
}

int scripted_agree(struct scripted *b, int *client, unsigned port, const char *target,
                   const char *extra)
{
    char yes[1024];
    struct message m;
    const int n = snprintf(yes, sizeof yes,
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n%s\r\n",
                           extra);
    *client = ask_only(port, target, extra);
    const int fd = scripted_answer(b, yes, (size_t)n);
    client_read(*client, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    return fd;
}

static bool is_titled(const char *pid, const char *title)
{
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
    FILE *f = fopen(path, "r");
    const bool is = !title || (f && fgets(text, sizeof text, f) && !strcmp(text, title));
    if (f)
        fclose(f);
    return is;
}

/* Of that title, or of any. */
static pid_t living_child(pid_t parent, const char *title)
{
    pid_t found = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char path[300], text[512] = "";
        const char *end;
        int ppid = 0;
        if (e->d_name[0] < '1' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        FILE *f = fopen(path, "r");
        if (f && fgets(text, sizeof text, f) && (end = strrchr(text, ')')) &&
            sscanf(end, ") %*c %d", &ppid) == 1 && ppid == parent && end[2] != 'Z' &&
            is_titled(e->d_name, title))
            found = atoi(e->d_name);
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return found;
}

pid_t working_process(pid_t supervisor)
{
    const uint64_t end = mono_ms() + harness_patience(5000);
    pid_t found;
    while (!(found = living_child(supervisor, "polder-supervisor: WebSockets")) &&
           living_child(supervisor, NULL) && mono_ms() < end)
        nap_ms(2); /* one that was just executed has not its title yet */
    return found;
}

size_t supervisor_descriptors(pid_t supervisor)
{
    return descriptors(supervisor) + descriptors(working_process(supervisor));
}

/* The custodian is told in order, and later than a client is answered: of two descriptors that stay,
 * a worker's link and the table of servers, and then of two for each WebSocket. */
size_t supervisor_descriptors_at_rest(struct house *h, const char *target)
{
    wait_for_supervisor(h);
    const pid_t custodian = supervisor_of(h);
    const size_t before = descriptors(custodian);
    const int fd[] = {open_ws(h->port, target), open_ws(h->port, target)};
    struct message m;
    wait_until(descriptors(custodian) >= before + 4, 10000);
    close(fd[0]);
    close(fd[1]);
    wait_until(descriptors(custodian) <= before + 2, 10000);
    wait_until(get(h->ops_port, "/api/telemetry/websocket-health", &m) == 200 &&
                   (strstr(m.body, "\"activeConnections\":0") || (message_free(&m), false)),
               5000);
    message_free(&m);
    return supervisor_descriptors(custodian);
}

bool has_ended(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return true;
    const bool got = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    const char *end = strrchr(text, ')');
    return !got || (end && end[2] == 'Z');
}
