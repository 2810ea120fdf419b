/* SPDX-License-Identifier: Apache-2.0 */
/* JSON written in one pass: the only state is whether a comma is due. */
#include "lib/json_out.h"

#include <string.h>

#include "lib/decimal.h"

void json_out_init(struct json_out *out, struct buf *buf)
{
	out->buf = buf;
	out->comma = false;
}

/* What stands before any value or key. */
static void separate(struct json_out *out)
{
	if (out->comma)
		buf_putc(out->buf, ',');
	out->comma = true;
}

static void open_with(struct json_out *out, char bracket)
{
	separate(out);
	buf_putc(out->buf, bracket);
	out->comma = false;
}

static void close_with(struct json_out *out, char bracket)
{
	buf_putc(out->buf, bracket);
	out->comma = true;
}

void json_open_object(struct json_out *out)
{
	open_with(out, '{');
}

void json_close_object(struct json_out *out)
{
	close_with(out, '}');
}

void json_open_array(struct json_out *out)
{
	open_with(out, '[');
}

void json_close_array(struct json_out *out)
{
	close_with(out, ']');
}

/* RFC 8259, section 7: the characters that must be escaped. */
static bool json_out_is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

static void json_out_put_escape(struct buf *buf, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	static const char letters[] = "btn\0fr"; /* of 0x08 to 0x0d; 0x0b has none */
	char escape[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

	if (c >= 0x20)
		escape[1] = (char)c;
	else if (c >= 0x08 && c <= 0x0d && c != 0x0b)
		escape[1] = letters[c - 0x08];
	buf_put(buf, escape, escape[1] == 'u' ? 6 : 2);
}

static void json_out_put_quoted(struct buf *buf, const char *text, size_t len)
{
	const char *end = text + len;

	buf_reserve(buf, len + 2);
	buf_putc(buf, '"');
	while (text < end) {
		const char *run = text;

		while (text < end && json_out_is_plain((unsigned char)*text))
			text++;
		buf_put(buf, run, (size_t)(text - run));
		if (text < end)
			json_out_put_escape(buf, (unsigned char)*text++);
	}
	buf_putc(buf, '"');
}

void json_key(struct json_out *out, const char *key)
{
	separate(out);
	json_out_put_quoted(out->buf, key, strlen(key));
	buf_putc(out->buf, ':');
	out->comma = false;
}

void json_put_bytes(struct json_out *out, const char *text, size_t len)
{
	separate(out);
	json_out_put_quoted(out->buf, text, len);
}

void json_put_string(struct json_out *out, const char *text)
{
	if (text == NULL)
		json_put_null(out);
	else
		json_put_bytes(out, text, strlen(text));
}

void json_put_integer(struct json_out *out, int64_t value)
{
	char digits[DECIMAL_BYTES];
	size_t len = decimal(digits, value);

	separate(out);
	buf_put(out->buf, digits, len);
}

void json_put_bool(struct json_out *out, bool value)
{
	json_put_raw(out, value ? "true" : "false");
}

void json_put_null(struct json_out *out)
{
	json_put_raw(out, "null");
}

void json_put_raw(struct json_out *out, const char *json)
{
	separate(out);
	buf_puts(out->buf, json == NULL ? "null" : json);
}

void json_string(struct json_out *out, const char *key, const char *text)
{
	json_key(out, key);
	json_put_string(out, text);
}

void json_integer(struct json_out *out, const char *key, int64_t value)
{
	json_key(out, key);
	json_put_integer(out, value);
}

void json_flag(struct json_out *out, const char *key, bool value)
{
	json_key(out, key);
	json_put_bool(out, value);
}

void json_raw(struct json_out *out, const char *key, const char *json)
{
	json_key(out, key);
	json_put_raw(out, json);
}
