/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registration file of an agent (ERC-8004, "Agent URI and Agent Registration File"): what
 * areg reads out of it, and what is off about it. One reading serves all: a registration through
 * the API is refused when anything is off, an import stores the file as found and keeps the list.
 */
#ifndef AREG_REGISTRY_REGISTRATION_FILE_H
#define AREG_REGISTRY_REGISTRATION_FILE_H

#include <stdbool.h>

#include "lib/faults.h"
#include "lib/json_in.h"

enum {
	REGISTRATION_FILE_BYTES_MAX = 64 * 1024, /* of a file that is registered through the API */
	/* Of what searches show of an agent's services; a page has up to 100 agents. */
	REGISTRATION_FILE_SHOWN_SERVICES = 20,
	REGISTRATION_FILE_SHOWN_BYTES = 8 * 1024,
};

struct registration_file {
	const char *text; /* the file as it came: what is stored and served */
	size_t len;
	char digest
		[65]; /* SHA-256 of json_canonical(), lower-case hex: equal files, equal digest */
	/* For search; NULL or empty where the file has nothing usable. Texts are cut to the column's
	 * size at whole characters; a URI is whole or NULL. */
	const char *name; /* at most 200 characters */
	const char *description; /* at most 2000 characters */
	const char *image; /* at most 2048 characters */
	/*
	 * JSON: the list of services as searches show it, which nobody has to take apart again. It
	 * holds the first REGISTRATION_FILE_SHOWN_SERVICES entries, without those that would make
	 * it longer than REGISTRATION_FILE_SHOWN_BYTES. Each entry is whole and as in the file,
	 * except for what json_put_tree() replaces. "[]" where the file has no list. The agent
	 * itself shows all.
	 */
	const char *shown_services;
	const char *const *services; /* names in lower case, each once, at most 100 */
	size_t service_count;
	const char *const *skills; /* of the file and all its services, tools, prompts and
				      resources among them; each once, at most 500 */
	size_t skill_count;
	const char *const *domains; /* likewise */
	size_t domain_count;
	const char *const *supported_trust; /* at most 100 */
	size_t trust_count;
	const char *x402_support; /* "true", "false", or NULL when the file does not say; of the
				     spellings found in the wild, too */
	const char *active; /* likewise */
};

/*
 * Reads `file` (the value of `registration_file` in a body, or an imported one; never JSON null)
 * into *out. Adds a fault for everything that breaks the rules, with code invalid_registration_file
 * and pointers that begin with `base` ("/registration_file" or ""). Never fails: what cannot be
 * read is left empty and said.
 */
void registration_file_read(struct arena *arena, const struct json_text *file, const char *base,
	struct registration_file *out, struct faults *faults);

/* The faults as the JSON array stored in erc8004_agents.conformance: [{"pointer":…,"detail":…}]. */
const char *registration_file_conformance(struct arena *arena, const struct faults *faults);

#endif
