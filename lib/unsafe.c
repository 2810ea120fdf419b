/* SPDX-License-Identifier: Apache-2.0 */
/* The tables list what is refused; everything else is allowed. */
#include "lib/unsafe.h"

#include <string.h>

#include "lib/utf8.h"

/* The code point of a valid sequence of `size` bytes. */
static uint32_t code_point(const char *bytes, size_t size)
{
	static const unsigned char masks[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint32_t code = (unsigned char)bytes[0] & masks[size];

	for (size_t i = 1; i < size; i++)
		code = code << 6 | ((unsigned char)bytes[i] & 0x3f);
	return code;
}

static bool is_joiner(uint32_t code)
{
	return code == 0x200c || code == 0x200d;
}

/* Format characters but for joiners: not seen, or they turn the direction. */
static bool is_format(uint32_t code)
{
	return code == 0xad || code == 0x61c || code == 0x180e || code == 0x200b ||
	       code == 0x200e || code == 0x200f || (code >= 0x202a && code <= 0x202e) ||
	       (code >= 0x2060 && code <= 0x206f) || code == 0xfeff ||
	       (code >= 0xfff9 && code <= 0xfffb) || (code >= 0xe0000 && code <= 0xe007f);
}

/* White space of JavaScript's trim(), and control characters. */
static bool unsafe_is_blank(uint32_t code)
{
	return code <= 0x20 || (code >= 0x7f && code <= 0xa0) || code == 0x1680 ||
	       (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
	       code == 0x202f || code == 0x205f || code == 0x3000;
}

/* The beginning of the text in lower case, without what counts for nothing. */
static void normal_start(const char *text, size_t len, char *start, size_t size)
{
	const char *end = text + len;
	size_t at = 0;

	while (text < end && at + 1 < size) {
		size_t bytes = utf8_sequence(text, (size_t)(end - text));
		uint32_t code = bytes == 0 ? '?' : code_point(text, bytes);

		text += bytes == 0 ? 1 : bytes;
		if (unsafe_is_blank(code) || is_format(code) || is_joiner(code))
			continue;
		if (code >= 'A' && code <= 'Z')
			code += 'a' - 'A';
		start[at++] = code < 0x80 ? (char)code : '?';
	}
	start[at] = '\0';
}

bool unsafe_uri(const char *text, size_t len)
{
	static const char *const schemes[] = {
		"javascript:", "vbscript:", "file:", "view-source:", "filesystem:"
	};
	static const char *const types[] = { "text/html", "application/xhtml+xml", "text/xml",
		"application/xml" };
	char start[48];

	normal_start(text, len, start, sizeof(start));
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (strncmp(start, schemes[i], strlen(schemes[i])) == 0)
			return true;
	if (strncmp(start, "data:", 5) != 0)
		return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		size_t size = strlen(types[i]);

		if (strncmp(start + 5, types[i], size) == 0 &&
			(start[5 + size] == '\0' || strchr(",;", start[5 + size]) != NULL))
			return true;
	}
	return false;
}

uint32_t unsafe_character(const char *text, size_t len)
{
	const char *end = text + len;
	uint32_t before = 0;

	while (text < end) {
		size_t size = utf8_sequence(text, (size_t)(end - text));
		uint32_t code;

		if (size == 0)
			return 0; /* not UTF-8: the caller's fault */
		code = code_point(text, size);
		text += size;
		if (is_format(code) || (is_joiner(code) && (before < 0x80 || text == end ||
								   (unsigned char)*text < 0x80)))
			return code;
		before = code;
	}
	return 0;
}
