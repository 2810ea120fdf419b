/* SPDX-License-Identifier: Apache-2.0 */
/* A tree of json_parse(), written out again. */
#ifndef AREG_JSON_TREE_H
#define AREG_JSON_TREE_H

#include <json-c/json.h>

#include "lib/json_out.h"

/*
 * Writes `value` (NULL is JSON null) with its members in their order and its numbers as they were
 * written. NUL and half surrogate pairs, which the wild rules allow and many readers of JSON refuse,
 * come out as U+FFFD. So every reader can take the text in, PostgreSQL's json operators too.
 * Recursion is bounded by the rules under which the tree was parsed.
 */
void json_put_tree(struct json_out *out, struct json_object *value);

#endif
