/* SPDX-License-Identifier: BSD-2-Clause */
/* proof: see proof.h. */
#include "daemons/supervisor/survive/proof.h"
#include "daemons/supervisor/upgrade.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void proof_said(int *from, char *said, size_t size)
{
    const ssize_t n = read(*from, said, size - 1);
    said[n > 0 ? n : 0] = 0;
    said[strcspn(said, "\n")] = 0;
    close(*from);
    *from = -1;
}

bool proof_holds(int status, const char *said)
{
    return WIFEXITED(status) && !WEXITSTATUS(status) &&
           !strncmp(said, UPGRADE_OK, strlen(UPGRADE_OK));
}
