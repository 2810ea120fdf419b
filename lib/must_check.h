/* SPDX-License-Identifier: Apache-2.0 */
/* A result that says whether something worked must be looked at. */
#ifndef AREG_MUST_CHECK_H
#define AREG_MUST_CHECK_H

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, args_at) __attribute__((format(printf, format_at, args_at)))

#endif
