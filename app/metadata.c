/* Keys are ours to check; a value is any text. */
#include "app/metadata.h"

#include <string.h>

static bool is_key(const char *text)
{
	size_t len = 0;

	while ((unsigned char)text[len] >= ' ' && text[len] != 0x7f)
		len++;
	return len >= 1 && len <= METADATA_KEY_MAX && text[len] == '\0';
}

void metadata_read(struct arena *arena, struct json_object *object, bool may_remove,
	struct metadata *metadata, struct faults *faults)
{
	size_t keys_size = 0, values_size = 0;
	size_t most = object == NULL ? 0 : (size_t)json_object_object_length(object);

	metadata->keys = arena_alloc(arena, most * sizeof *metadata->keys);
	metadata->values = arena_alloc(arena, most * sizeof *metadata->values);
	metadata->count = 0;
	if (object == NULL)
		return;
	json_object_object_foreach (object, key, value) {
		const char *pointer = json_pointer(arena, "/metadata", key);

		if (!is_key(key))
			fault_add(faults, "validation_failed", pointer,
				"a key is 1 to 256 bytes of UTF-8 without control characters");
		else if (strcmp(key, "agentWallet") == 0)
			fault_add(faults, "validation_failed", pointer,
				"is reserved by ERC-8004 and set by areg itself");
		else if (value == NULL ? !may_remove
				       : !json_object_is_type(value, json_type_string))
			fault_add(faults, "validation_failed", pointer,
				may_remove ? "is neither a string nor null" : "is not a string");
		keys_size += strlen(key);
		values_size += json_object_is_type(value, json_type_string)
				       ? (size_t)json_object_get_string_len(value)
				       : 0;
		metadata->keys[metadata->count] = key;
		metadata->values[metadata->count++] = json_object_get_string(value);
	}
	if (keys_size > METADATA_BYTES_MAX || values_size > METADATA_BYTES_MAX)
		fault_add(faults, "validation_failed", "/metadata",
			"has keys or values of more than 64 KiB");
}
