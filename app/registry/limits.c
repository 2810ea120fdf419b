/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of API.md, "Rate limits", and how areg.conf says others, and quotas. */
#include "app/registry/limits.h"

#include <string.h>

#include "lib/limiter.h"

static const char *const tier_names[TIERS] = {
	[TIER_ANONYMOUS] = "anonymous",
	[TIER_FREE] = "free",
	[TIER_PRO] = "pro",
	[TIER_ENTERPRISE] = "enterprise",
};

const char *tier_name(enum tier tier)
{
	return tier_names[tier];
}

enum tier tier_of(const char *name)
{
	for (enum tier tier = TIER_FREE; tier < TIERS; tier++)
		if (strcmp(name, tier_names[tier]) == 0)
			return tier;
	return TIER_ANONYMOUS;
}

const rate_table rate_defaults = {
	[RATE_REGISTER] = { 0, 10, 60, 600 },
	[RATE_FEEDBACK] = { 0, 100, 600, 6000 },
	[RATE_PAYMENTS] = { 0, 50, 500, 5000 },
	[RATE_SEARCH] = { 60, 300, 1500, 15000 },
	[RATE_READ] = { 120, 1000, 5000, 50000 },
	[RATE_SIGN_IN] = { 10, 10, 10, 10 },
};

static const char *const class_names[RATE_CLASSES] = {
	[RATE_NONE] = "none",
	[RATE_REGISTER] = "register",
	[RATE_FEEDBACK] = "feedback",
	[RATE_PAYMENTS] = "payments",
	[RATE_SEARCH] = "search",
	[RATE_READ] = "read",
	[RATE_SIGN_IN] = "sign_in",
};

static const char blanks[] = " \t";
static const char not_four[] = "is not four numbers, for anonymous, free, pro and enterprise";
static const char not_within[] = "has a number that is neither within 0..250000 nor -";
_Static_assert(LIMIT_MOST == 250000, "as the message says");

const char *rate_class_name(enum rate_class class)
{
	return class_names[class];
}

static bool number_parse(const char *text, size_t len, uint32_t *number)
{
	*number = 0;
	if (len == 1 && *text == '-')
		return true;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*number = *number * 10 + (uint32_t)(text[i] - '0');
		if (*number > LIMIT_MOST)
			return false;
	}
	return true;
}

bool rate_row_parse(const char *text, uint32_t row[TIERS], const char **why)
{
	size_t count = 0;

	for (text += strspn(text, blanks); *text != '\0'; text += strspn(text, blanks)) {
		size_t len = strcspn(text, blanks);

		if (count == TIERS) {
			*why = not_four;
			return false;
		}
		if (!number_parse(text, len, &row[count++])) {
			*why = not_within;
			return false;
		}
		text += len;
	}
	if (count == TIERS)
		return true;
	*why = not_four;
	return false;
}

static bool amount_parse(const char *text, size_t len, bool has_unit, int64_t *amount)
{
	static const char units[] = "kmg";
	const char *unit = len > 1 && has_unit ? strchr(units, text[len - 1]) : NULL;
	const size_t digits = unit == NULL ? len : len - 1;

	*amount = 0;
	for (size_t i = 0; i < digits; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*amount = *amount * 10 + (text[i] - '0');
		if (*amount > QUOTA_NUMBER_MOST)
			return false;
	}
	if (*amount == 0)
		*amount = INT64_MAX;
	else if (unit != NULL)
		*amount <<= 10 * (unit - units + 1);
	else if (has_unit)
		return false;
	return true;
}

bool quota_row_parse(const char *text, enum quota_kind kind, int64_t row[TIERS], const char **why)
{
	int tier = TIER_ANONYMOUS;

	row[TIER_ANONYMOUS] = 0;
	for (text += strspn(text, blanks); *text != '\0'; text += strspn(text, blanks)) {
		const size_t len = strcspn(text, blanks);

		if (++tier == TIERS)
			break;
		if (!amount_parse(text, len, kind == QUOTA_BYTES, &row[tier])) {
			*why = kind == QUOTA_BYTES
				       ? "has a size that is neither 0 nor within 1..1000000000 with k, "
					 "m or g behind it"
				       : "has a number that is not within 0..1000000000";
			return false;
		}
		text += len;
	}
	if (tier == TIER_ENTERPRISE)
		return true;
	*why = "is not three values, for free, pro and enterprise";
	return false;
}
