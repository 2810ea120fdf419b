/* SPDX-License-Identifier: Apache-2.0 */
/* Well-formed UTF-8 by the table of RFC 3629, section 4. */
#include "lib/utf8.h"

#include <stdbool.h>
#include <string.h>

#include "lib/buf.h"

static bool within(unsigned char byte, unsigned char low, unsigned char high)
{
	return byte >= low && byte <= high;
}

size_t utf8_sequence(const char *bytes, size_t len)
{
	const unsigned char *at = (const unsigned char *)bytes;
	unsigned char low = 0x80, high = 0xbf; /* of the second byte */
	size_t size;

	if (len == 0)
		return 0;
	if (at[0] < 0x80)
		return 1;
	if (within(at[0], 0xc2, 0xdf))
		size = 2;
	else if (within(at[0], 0xe0, 0xef))
		size = 3;
	else if (within(at[0], 0xf0, 0xf4))
		size = 4;
	else
		return 0;
	if (size > len)
		return 0;

	if (at[0] == 0xe0)
		low = 0xa0; /* below: overlong */
	else if (at[0] == 0xed)
		high = 0x9f; /* above: surrogates */
	else if (at[0] == 0xf0)
		low = 0x90; /* below: overlong */
	else if (at[0] == 0xf4)
		high = 0x8f; /* above: past U+10FFFF */
	if (!within(at[1], low, high))
		return 0;
	for (size_t i = 2; i < size; i++)
		if (!within(at[i], 0x80, 0xbf))
			return 0;
	return size;
}

size_t utf8_cut(const char *bytes, size_t len, size_t most)
{
	if (len <= most)
		return len;
	while (most > 0 && ((unsigned char)bytes[most] & 0xc0) == 0x80)
		most--;
	return most;
}

char *utf8_shown(struct arena *arena, const char *text)
{
	size_t left = strlen(text);
	struct buf shown;

	buf_init(&shown, arena, left + 16);
	while (left > 0) {
		size_t size = utf8_sequence(text, left);

		if (size > 0) {
			buf_put(&shown, text, size);
		} else {
			buf_printf(&shown, "\\x%02x", (unsigned char)*text);
			size = 1;
		}
		text += size;
		left -= size;
	}
	return shown.data;
}
