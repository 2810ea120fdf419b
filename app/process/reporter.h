/* SPDX-License-Identifier: Apache-2.0 */
/* The reporter: a process beside the workers that takes reports of errors out of their ring
 * (lib/error_reports.h), folds equal ones into one and sends them to Sentry. */
#ifndef AREG_PROCESS_REPORTER_H
#define AREG_PROCESS_REPORTER_H

#include "app/registry/settings.h"
#include "lib/error_reports.h"
#include "lib/metrics.h"

/* The reporter process: until SIGTERM. Needs settings->sentry_dsn. Returns its exit code. */
int reporter_run(const struct settings *settings, struct reports *reports, struct metrics *metrics);

#endif
