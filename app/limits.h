/* Which limit a request falls under, by class of its route and tier of its caller. */
#ifndef AREG_LIMITS_H
#define AREG_LIMITS_H

#include <stdint.h>

#include "app/callers.h"
#include "lib/arena.h"
#include "lib/must_check.h"

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

/* The default table of API.md. */
extern const rate_table rate_defaults;

/* The word of a class in areg.conf and metrics: "register", "search", … */
const char *rate_class_name(enum rate_class class);

/*
 * Reads the value of a key limit_CLASS: four numbers 0..LIMIT_MOST, for anonymous, free, pro and
 * enterprise, with blanks between; "-" is 0. False with *why.
 */
MUST_CHECK bool rate_row_parse(const char *text, uint32_t row[TIERS], const char **why);

#endif
