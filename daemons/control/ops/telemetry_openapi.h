/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_openapi: /api/telemetry/openapi.json: an OpenAPI 3.1 description of the telemetry, and of
 * each route with its limits in force as x-ratelimit. */
#ifndef POLDER_CONTROL_TELEMETRY_OPENAPI_H
#define POLDER_CONTROL_TELEMETRY_OPENAPI_H
#include "daemons/control/ops/page.h"

void telemetry_openapi_page(struct control *c, const struct http_call *call);
#endif
