/* SPDX-License-Identifier: Apache-2.0 */
/* Keys are ours to check; a value is any text. */
#include "app/registry/metadata.h"

#include <string.h>

#include "app/problem_list.h"

/* 1..METADATA_KEY_MAX bytes of valid UTF-8 without control characters: C0, DEL and C1. */
static bool metadata_key_is_allowed(const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)key[i];

		/* C1 is U+0080 to U+009F: 0xc2 and a byte below 0xa0 */
		if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)key[i + 1] < 0xa0))
			return false;
	}
	return len >= 1 && len <= METADATA_KEY_MAX;
}

void metadata_read(struct arena *arena, struct json_object *object, bool may_remove,
	struct metadata *metadata, struct faults *faults)
{
	size_t keys_size = 0, values_size = 0;
	size_t most = object == NULL ? 0 : (size_t)json_object_object_length(object);

	metadata->keys = arena_alloc(arena, most * sizeof *metadata->keys);
	metadata->values = arena_alloc(arena, most * sizeof *metadata->values);
	metadata->count = 0;
	metadata->size = 0;
	if (object == NULL)
		return;
	json_object_object_foreach (object, key, value) {
		const char *pointer = json_pointer(arena, "/metadata", key);

		if (!metadata_key_is_allowed(key))
			fault_add(faults, PROBLEM_VALIDATION_FAILED, pointer,
				"a key is not 1 to %d bytes without control characters",
				METADATA_KEY_MAX);
		else if (strcmp(key, "agentWallet") == 0)
			fault_add(faults, PROBLEM_VALIDATION_FAILED, pointer,
				"is reserved by ERC-8004 and set by areg itself");
		else if (value == NULL ? !may_remove
				       : !json_object_is_type(value, json_type_string))
			fault_add(faults, PROBLEM_VALIDATION_FAILED, pointer,
				may_remove ? "is neither a string nor null" : "is not a string");
		keys_size += strlen(key);
		values_size += json_object_is_type(value, json_type_string)
				       ? (size_t)json_object_get_string_len(value)
				       : 0;
		metadata->keys[metadata->count] = key;
		metadata->values[metadata->count++] = json_object_get_string(value);
	}
	metadata->size = metadata->count * METADATA_ENTRY_BYTES + keys_size + values_size;
	if (keys_size > METADATA_BYTES_MAX || values_size > METADATA_BYTES_MAX)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "/metadata",
			"has keys or values of more than 64 KiB");
}
