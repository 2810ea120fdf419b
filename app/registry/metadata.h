/* SPDX-License-Identifier: Apache-2.0 */
/* On-chain metadata of an agent (ERC-8004, MetadataSet), as bodies give it: {key: value}. */
#ifndef AREG_REGISTRY_METADATA_H
#define AREG_REGISTRY_METADATA_H

#include <json-c/json.h>
#include <stdbool.h>

#include "lib/faults.h"

enum {
	METADATA_KEY_MAX = 256, /* bytes of a key that the API takes; imports and chains may have
				 any key */
	METADATA_BYTES_MAX =
		64 * 1024, /* of all keys of an agent, and of all values; sql/0011, too */
	METADATA_ENTRY_BYTES =
		128, /* that an entry counts in a quota beside key and value; sql/0003, too */
};

struct metadata {
	const char **keys, **values; /* a value is NULL where the entry shall go */
	size_t count;
	size_t size; /* bytes that these entries count in a quota, if none of them is to go */
};

/* Reads the body's member `metadata` (NULL: absent), with a fault for each entry that cannot be
 * stored. `may_remove` allows null as a value. */
void metadata_read(struct arena *arena, struct json_object *object, bool may_remove,
	struct metadata *metadata, struct faults *faults);

#endif
