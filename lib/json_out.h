/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON, written front to back into a buf. Commas and quotes are the writer's business:
 *
 *	struct json_out out;
 *	json_out_init(&out, &buf);
 *	json_open_object(&out);
 *	json_key(&out, "count");
 *	json_put_integer(&out, 3);
 *	json_close_object(&out);
 */
#ifndef AREG_JSON_OUT_H
#define AREG_JSON_OUT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"

struct json_out {
	struct buf *buf;
	bool comma; /* the next value or key needs one before it */
};

void json_out_init(struct json_out *out, struct buf *buf);

void json_open_object(struct json_out *out);
void json_close_object(struct json_out *out);
void json_open_array(struct json_out *out);
void json_close_array(struct json_out *out);

/* A key of the open object; the next call writes its value. */
void json_key(struct json_out *out, const char *key);

/* A string with RFC 8259 escapes; `text` must be valid UTF-8. NULL writes null. */
void json_put_string(struct json_out *out, const char *text);
/* The same for text[0..len), which may hold NUL. */
void json_put_bytes(struct json_out *out, const char *text, size_t len);
void json_put_integer(struct json_out *out, int64_t value);
void json_put_bool(struct json_out *out, bool value);
void json_put_null(struct json_out *out);

/* Text that is JSON already: a stored file, a number of any size. NULL writes null. */
void json_put_raw(struct json_out *out, const char *json);

/* Key and value in one. A NULL `text` or `json` writes null. */
void json_string(struct json_out *out, const char *key, const char *text);
void json_integer(struct json_out *out, const char *key, int64_t value);
void json_flag(struct json_out *out, const char *key, bool value);
void json_raw(struct json_out *out, const char *key, const char *json);

#endif
