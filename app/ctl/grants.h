/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two roles of PostgreSQL: the owner of the schema, as which aregctl migrate runs, and the role
 * that aregd and all else of aregctl run as, which may do what sql/grants.sql says and no more.
 */
#ifndef AREG_CTL_GRANTS_H
#define AREG_CTL_GRANTS_H

#include "app/ctl/ctl.h"

/* Whether this connection may migrate: the database is in UTF-8, the role owns the schema, and the
 * role that runtime_role names is there. Says what is wrong, and what to run, with CTL_REFUSED. */
MUST_CHECK enum ctl_exit grants_check(struct ctl *ctl);

/* Reads grants.sql of `dir` into *sql, the arena's; NULL when the folder has none, which then grants
 * nothing. CTL_FAILED, and said, when it cannot be read. */
MUST_CHECK enum ctl_exit grants_load(struct ctl *ctl, const char *dir, const char **sql);

/* In a transaction: grants the runtime role what that text says. Again is harmless; nothing happens
 * when the runtime role is the one connected, or without a text. */
MUST_CHECK enum db_status grants_give(struct ctl *ctl, const char *sql);

#endif
