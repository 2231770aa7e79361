/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_ws_parcel: what lies in the queue of a socket that an earlier process, of whatever version, has
 * left. Whatever it is, all descriptors that came with it are closed in the end, and none twice.
 *
 * The input is a list of messages: a byte, whose lowest bit says whether it goes into the tray; how
 * many descriptors; its length; its bytes. The tray is the last descriptor of each message into the
 * box.
 */
#include "daemons/supervisor/carry/parcel.c"

#include <fcntl.h>

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Sends what the next bytes say; returns how many were used. */
static size_t put_message(const uint8_t *at, size_t len, const int box[2], const int tray[2])
{
    int fds[8];
    const bool in_tray = at[0] & 1;
    const size_t n = 1 + at[1] % 7, want = at[2], size = want < len - 3 ? want : len - 3;
    for (size_t i = 0; i < n; i++)
        fds[i] = in_tray || i + 1 < n ? box[1] : tray[0];
    for (size_t i = 0; i < n; i++) /* not a socket within itself */
        if (fds[i] == box[1])
            fds[i] = STDERR_FILENO;
    if (size)
        (void)send_fds(in_tray ? tray[1] : box[1], at + 3, size, fds, n);
    return 3 + size;
}

static int next_free(void)
{
    const int fd = open("/dev/null", O_RDONLY);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int box[2], tray[2];
    char why[300];
    struct parcel p;
    struct parcel_items items;
    check(parcel_box(box) == 0 && parcel_box(tray) == 0);
    while (len > 3) {
        const size_t used = put_message(data, len, box, tray);
        data += used;
        len -= used;
    }
    const int before = next_free();
    for (int round = 0; round < 2; round++) {
        const int code = parcel_look(box[0], &p, why, sizeof why);
        check(code >= 0 || *why);
        if (code <= 0)
            continue;
        check(parcel_is_there(box[0]));
        if (parcel_open(&p, &items, why, sizeof why) == 0)
            parcel_refuse(&items);
        parcel_close(&p);
        check(next_free() == before);
    }
    parcel_take(box[0]);
    check(!parcel_is_there(box[0]));
    check(next_free() == before);
    for (int i = 0; i < 2; i++) {
        close(box[i]);
        close(tray[i]);
    }
    return 0;
}
