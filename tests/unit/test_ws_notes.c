/* SPDX-License-Identifier: BSD-2-Clause */
/* What the process of the WebSockets does where its custodian takes no messages. */
#include "daemons/supervisor/survive/worker.h"
#include "polder/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MANY 30

static struct survivor v;
static int custodian;

static void set_channel(void)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    v = (struct survivor){.channel = pair[0]};
    custodian = pair[1];
}

static unsigned fill(void)
{
    unsigned n = 0;
    while (survivor_tell(&v, NOTE_LET, n, -1))
        n++;
    return n;
}

static void drain(unsigned n)
{
    struct note note;
    int fd;
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(note_receive(custodian, &note, &fd), 1);
        if (fd >= 0)
            close(fd);
    }
}

static void it_is_waited_for_once(void **state)
{
    (void)state;
    set_channel();
    const int fd = open("/dev/null", O_RDONLY);
    const unsigned n = fill();
    assert_false(v.deaf); /* such a note is not waited for */
    const uint64_t began_ms = clock_mono_ms();
    assert_false(survivor_tell(&v, NOTE_KEEP_CLIENT, 1, fd));
    assert_true(v.deaf);
    assert_true(clock_mono_ms() - began_ms >= 100);
    /* as many handshakes do not wait each */
    for (uint32_t i = 0; i < MANY; i++)
        assert_false(survivor_tell(&v, NOTE_KEEP_CLIENT, i, fd));
    assert_true(clock_mono_ms() - began_ms < MANY * 100);
    drain(n);
    assert_true(survivor_tell(&v, NOTE_KEEP_CLIENT, 1, fd));
    assert_false(v.deaf);
    close(fd);
    close(v.channel);
    close(custodian);
}

static void that_it_is_ready_is_said_until_it_is_heard(void **state)
{
    (void)state;
    static struct segment segment;
    static struct supervisor s;
    struct note note;
    int fd;
    set_channel();
    v.segment = &segment;
    s.survivor = &v;
    const unsigned n = fill();
    survive_ready(&s);
    assert_true(v.unready);
    survive_heartbeat(&s);
    assert_true(v.unready);
    drain(n);
    survive_heartbeat(&s);
    assert_false(v.unready);
    assert_int_equal(note_receive(custodian, &note, &fd), 1);
    assert_int_equal(note.kind, NOTE_READY);
    survive_heartbeat(&s); /* once */
    assert_int_equal(note_receive(custodian, &note, &fd), 0);
    close(v.channel);
    close(custodian);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_waited_for_once),
        cmocka_unit_test(that_it_is_ready_is_said_until_it_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
