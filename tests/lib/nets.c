/* SPDX-License-Identifier: BSD-2-Clause */
/* nets: see nets.h. The router loses packets by a rule for their addresses, which stands before its routes. */
#include "nets.h"
#include "patience.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int router = -1, net[NETS_MAX];

static bool run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool run(const char *format, ...)
{
    char command[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(command, sizeof command, format, ap);
    va_end(ap);
    return system(command) == 0;
}

void nets_enter(int machine)
{
    assert_int_equal(setns(machine < 0 ? router : net[machine], CLONE_NEWNET), 0);
}

static int this_net(void)
{
    return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static bool add(int i)
{
    if (unshare(CLONE_NEWNET) < 0)
        return false;
    net[i] = this_net();
    nets_enter(-1);
    if (!run("ip link add up%d type veth peer name down%d && ip link set down%d netns "
             "/proc/%d/fd/%d && ip address add 10.77.%d.1/24 dev up%d && ip link set up%d up",
             i, i, i, (int)getpid(), net[i], i, i, i))
        return false;
    nets_enter(i);
    const bool good = run("ip link set lo up && ip address add %s/24 dev down%d && "
                          "ip link set down%d up",
                          nets_address(i), i, i) &&
                      run("ip route add default via 10.77.%d.1", i);
    nets_enter(-1);
    return good;
}

const char *nets_make(unsigned n)
{
    if (system("command -v ip >/dev/null") != 0)
        return "there is no program ip (iproute2)";
    if (unshare(CLONE_NEWNET) < 0)
        return "network namespaces are not permitted (it takes root)";
    router = this_net();
    if (!run("ip link set lo up"))
        return "the loopback of a network namespace cannot be used";
    if (!run("echo 1 >/proc/sys/net/ipv4/ip_forward"))
        return "a network namespace cannot forward";
    for (unsigned i = 0; i < n; i++)
        if (!add((int)i))
            return "no links between network namespaces can be made";
    return "";
}

const char *nets_address(int machine)
{
    static char text[NETS_MAX][16];
    snprintf(text[machine], sizeof text[machine], "10.77.%d.2", machine);
    return text[machine];
}

void nets_lose(int from, int to, bool lose)
{
    assert_true(run("ip rule %s from %s to %s blackhole", lose ? "add" : "del", nets_address(from),
                    nets_address(to)));
}
