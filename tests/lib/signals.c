/* SPDX-License-Identifier: BSD-2-Clause */
/* kill() as the stories call it (the linker's --wrap): a pid that was not found is 0, and would mean
 * each process of the group, the runner of the tests among them. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int __real_kill(pid_t pid, int signal_number);
int __wrap_kill(pid_t pid, int signal_number);

int __wrap_kill(pid_t pid, int signal_number)
{
    if (pid >= -1 && pid <= 1)
        fail_msg("signal %d for process %d: it was not found", signal_number, (int)pid);
    return __real_kill(pid, signal_number);
}
