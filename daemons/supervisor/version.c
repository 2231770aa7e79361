/* SPDX-License-Identifier: BSD-2-Clause */
/* version: which version this is. */
#include "daemons/supervisor/supervisor.h"

const char *supervisor_version(void)
{
    return POLDER_VERSION;
}
