/* SPDX-License-Identifier: Apache-2.0 */
/* json-c's own printer escapes slashes and gives a NUL as \u0000, so areg has its own. */
#include "lib/json_tree.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Half surrogate pairs are U+FFFD since json_parse(). */
static void put_string(struct json_out *out, const char *text, size_t len)
{
	struct buf without;

	if (memchr(text, '\0', len) == NULL) {
		json_put_bytes(out, text, len);
		return;
	}
	buf_init(&without, out->buf->arena, len + 32);
	for (const char *end = text + len;; text++) {
		size_t run = strnlen(text, (size_t)(end - text));

		buf_put(&without, text, run);
		text += run;
		if (text == end)
			break;
		buf_puts(&without, replacement);
	}
	json_put_bytes(out, without.data, without.len);
}

static void put_array(struct json_out *out, struct json_object *array)
{
	json_open_array(out);
	for (size_t i = 0; i < json_object_array_length(array); i++)
		json_put_tree(out, json_object_array_get_idx(array, i));
	json_close_array(out);
}

static void tree_put_object(struct json_out *out, struct json_object *object)
{
	json_open_object(out);
	json_object_object_foreach (object, key, member) {
		json_key(out, key);
		json_put_tree(out, member);
	}
	json_close_object(out);
}

void json_put_tree(struct json_out *out, struct json_object *value)
{
	switch (json_object_get_type(value)) {
	case json_type_null:
		json_put_null(out);
		break;
	case json_type_boolean:
		json_put_bool(out, json_object_get_boolean(value));
		break;
	case json_type_int:
	case json_type_double:
		json_put_raw(out, json_object_get_string(value));
		break;
	case json_type_string:
		put_string(out, json_object_get_string(value),
			(size_t)json_object_get_string_len(value));
		break;
	case json_type_array:
		put_array(out, value);
		break;
	case json_type_object:
		tree_put_object(out, value);
		break;
	}
}
