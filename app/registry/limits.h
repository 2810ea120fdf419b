/* SPDX-License-Identifier: Apache-2.0 */
/* How much a caller may do, by tier: requests a minute of each class of routes, and what is stored. */
#ifndef AREG_REGISTRY_LIMITS_H
#define AREG_REGISTRY_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/must_check.h"

enum tier { TIER_ANONYMOUS, TIER_FREE, TIER_PRO, TIER_ENTERPRISE, TIERS };

/* The name of a tier, and back; TIER_ANONYMOUS for any other word. */
const char *tier_name(enum tier tier);
enum tier tier_of(const char *name);

enum rate_class {
	RATE_NONE, /* health, liveness, metrics */
	RATE_REGISTER, /* and update */
	RATE_FEEDBACK, /* and validations */
	RATE_PAYMENTS,
	RATE_SEARCH, /* and lists */
	RATE_READ,
	RATE_SIGN_IN,
	RATE_CLASSES,
};

/* Requests a minute; 0: the call is not for that tier at all (anonymous: 401). */
typedef uint32_t rate_table[RATE_CLASSES][TIERS];

/* The default limits; docs/limits.md explains them. */
extern const rate_table rate_defaults;

/* Quotas: how much a user may store in all, of each kind; INT64_MAX: as much as they like. Nothing
 * is stored without an API key, so the quotas of TIER_ANONYMOUS are 0. */
enum quota_kind { QUOTA_AGENTS, QUOTA_BYTES, QUOTAS };
typedef int64_t quota_table[QUOTAS][TIERS];

/* The word of a class in areg.conf and metrics: "register", "search", … */
const char *rate_class_name(enum rate_class class);

/*
 * Reads the value of a key limit_CLASS: four numbers 0..LIMIT_MOST, for anonymous, free, pro and
 * enterprise, with blanks between; "-" is 0. False with *why.
 */
MUST_CHECK bool rate_row_parse(const char *text, uint32_t row[TIERS], const char **why);

/*
 * Reads the value of a key quota_KIND: three numbers 0..QUOTA_NUMBER_MOST, for free, pro and
 * enterprise, with blanks between; 0 is no limit. Bytes are said in k, m or g (powers of 1024), but
 * for 0. False with *why.
 */
enum { QUOTA_NUMBER_MOST = 1000000000 };
MUST_CHECK bool quota_row_parse(
	const char *text, enum quota_kind kind, int64_t row[TIERS], const char **why);

#endif
