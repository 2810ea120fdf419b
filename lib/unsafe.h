/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that harm whoever shows them: URIs that run code, and characters that are not seen. */
#ifndef AREG_UNSAFE_H
#define AREG_UNSAFE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Whether a browser that follows text[0..len), or shows it, would run code out of it or read files
 * of its user: javascript:, vbscript:, file:, view-source:, filesystem:, and data: of a type that
 * holds scripts (HTML, XHTML, XML). Every other scheme is allowed, because agents use many, and so
 * are texts that are no URI at all. Blanks, control and format characters count for nothing, as
 * browsers and trim() skip them. Source: the WHATWG's URL standard, "basic URL parser".
 */
bool unsafe_uri(const char *text, size_t len);

/*
 * The first character of text[0..len), valid UTF-8, that is not seen or turns the direction of what
 * stands beside it, so that a name reads like another one; 0 when there is none. Joiners (U+200C,
 * U+200D) are such only beside ASCII or an end: emoji and several scripts need them. Source: UAX #9;
 * UTS #39, "Identifier profile".
 */
uint32_t unsafe_character(const char *text, size_t len);

#endif
