/* SPDX-License-Identifier: Apache-2.0 */
/* Checks and writes RFC 3339 times. */
#include "lib/rfc3339.h"

#include <string.h>

/* Reads exactly `count` digits at *at and moves past them; -1 when they are not all digits. */
static int digits(const char **at, int count)
{
	int value = 0;

	for (; count > 0; count--, (*at)++) {
		if (**at < '0' || **at > '9')
			return -1;
		value = value * 10 + (**at - '0');
	}
	return value;
}

static bool literal(const char **at, const char *any_of)
{
	if (**at == '\0' || strchr(any_of, **at) == NULL)
		return false;
	(*at)++;
	return true;
}

static int days_in(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

static bool date(const char **at)
{
	int year = digits(at, 4);
	int month = year >= 1970 && literal(at, "-") ? digits(at, 2) : -1;
	int day = month >= 1 && month <= 12 && literal(at, "-") ? digits(at, 2) : -1;

	return day >= 1 && day <= days_in(year, month);
}

static bool clock_time(const char **at)
{
	int hour = digits(at, 2);
	int minute = hour >= 0 && hour <= 23 && literal(at, ":") ? digits(at, 2) : -1;
	/* 60 is a leap second */
	int second = minute >= 0 && minute <= 59 && literal(at, ":") ? digits(at, 2) : -1;

	if (second < 0 || second > 60)
		return false;
	if (literal(at, ".")) {
		const char *first = *at;

		while (digits(at, 1) >= 0)
			continue;
		return *at > first && *at - first <= 9;
	}
	return true;
}

static bool offset(const char **at)
{
	int hour, minute;

	if (literal(at, "Zz"))
		return true;
	if (!literal(at, "+-"))
		return false;
	hour = digits(at, 2);
	minute = hour >= 0 && literal(at, ":") ? digits(at, 2) : -1;
	/* PostgreSQL knows no offset of 16 hours and more; the widest in use is 14 */
	return hour <= 15 && minute >= 0 && minute <= 59;
}

bool rfc3339_check(const char *text, const char **why)
{
	const char *at = text;

	if (date(&at) && literal(&at, "Tt") && clock_time(&at) && offset(&at) && *at == '\0')
		return true;
	*why = "not an RFC 3339 time such as 2026-03-01T12:00:00Z";
	return false;
}

int64_t rfc3339_microseconds(const char *text)
{
	const char *at = text;
	struct tm utc = { 0 };
	int64_t micros = 0, unit = 1000000, west = 0;

	utc.tm_year = digits(&at, 4) - 1900;
	at++;
	utc.tm_mon = digits(&at, 2) - 1;
	at++;
	utc.tm_mday = digits(&at, 2);
	at++;
	utc.tm_hour = digits(&at, 2);
	at++;
	utc.tm_min = digits(&at, 2);
	at++;
	utc.tm_sec = digits(&at, 2);
	if (literal(&at, "."))
		for (int digit; (digit = digits(&at, 1)) >= 0;)
			micros += digit * (unit /= 10);
	if (*at == '+' || *at == '-') {
		int64_t sign = *at++ == '-' ? 1 : -1;

		west = digits(&at, 2) * 60;
		at++;
		west = sign * (west + digits(&at, 2));
	}
	return ((int64_t)timegm(&utc) + west * 60) * 1000000 + micros;
}

void rfc3339_format(time_t when, char text[RFC3339_LEN + 1])
{
	struct tm utc;

	gmtime_r(&when, &utc);
	strftime(text, RFC3339_LEN + 1, "%Y-%m-%dT%H:%M:%SZ", &utc);
}
