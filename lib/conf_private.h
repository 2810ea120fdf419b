/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of lib/conf.h share: conf.c reads and finds, conf_values.c stores and prints values. */
#ifndef AREG_CONF_PRIVATE_H
#define AREG_CONF_PRIVATE_H

#include "lib/conf.h"

/* Stores the value in the struct `values`, or returns the fault, in the arena; the struct is then as it
 * was. */
const char *conf_store(
	struct arena *arena, const struct conf_key *key, const char *text, void *values);

/* The text in quotation marks, cut after some characters. */
const char *conf_quote(struct arena *arena, const char *text);

#endif
