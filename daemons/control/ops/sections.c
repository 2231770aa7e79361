/* SPDX-License-Identifier: BSD-2-Clause */
/* sections: see sections.h. */
#include "daemons/control/ops/sections.h"
#include "daemons/control/ops/alerts.h"
#include "daemons/control/ops/health.h"
#include "daemons/control/ops/overview.h"
#include "daemons/control/ops/sample.h"
#include "daemons/control/ops/telemetry.h"
#include "daemons/control/ops/telemetry_fleet.h"
#include "daemons/control/ops/telemetry_limits.h"
#include "daemons/control/ops/telemetry_routes.h"
#include "daemons/control/ops/telemetry_upstreams.h"

/* Those that are long, of many rows, less often. */
const struct section sections[] = {
    {"overview", overview_make, 1},
    {"alerts", alerts_make, 1},
    {"conditions", health_conditions_make, 1},
    {"cache-stats", telemetry_cache_make, 1},
    {"websocket-health", telemetry_websocket_make, 1},
    {"cost", telemetry_cost_make, 1},
    {"sample", sample_make, 1},
    {"fleet", telemetry_fleet_make, 1},
    {"limits", telemetry_limits_make, 2},
    {"upstreams", telemetry_upstreams_make, 2},
    {"routes", telemetry_routes_make, 5},
};
const unsigned sections_n = sizeof sections / sizeof *sections;
_Static_assert(sizeof sections / sizeof *sections <= SECTIONS_MAX, "grow SECTIONS_MAX");
