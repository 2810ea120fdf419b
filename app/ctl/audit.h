/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the commands of aregctl audit. */
#ifndef AREG_CTL_AUDIT_H
#define AREG_CTL_AUDIT_H

#include "app/ctl/ctl.h"

enum {
	AUDIT_TIMEOUT_MS = 10 * 60 * 1000, /* of one statement: counting a long log takes a while */
	/* Of one batch: entries hold at most a registration file with its metadata, twice. */
	AUDIT_BATCH_BYTES = 64 * 1024 * 1024,
};

/* An entry, as statements select it, and the numbers of its columns. */
#define ENTRY_COLUMNS \
	"id, rfc3339(at), actor_user, actor, action, subject_type, subject_id, before, after," \
	" request_id, client_address, lane, lane_seq, encode(hash, 'hex')"
enum {
	ID,
	AT,
	USER,
	ACTOR,
	ACTION,
	SUBJECT_TYPE,
	SUBJECT_ID,
	BEFORE,
	AFTER,
	REQUEST_ID,
	ADDRESS,
	LANE,
	LANE_SEQ,
	HASH,
	LATE_AFTER
};

/* Reads decimal digits of 0..most. False when the text is anything else. */
MUST_CHECK bool audit_read_number(const char *text, int64_t most, int64_t *number);

/* Finds out whether anybody tampered with the log, and reports it. `expect` is a head noted before,
 * "POSITION:HASH", or NULL. CTL_REFUSED when there is a finding. */
MUST_CHECK enum ctl_exit audit_log_verify(struct ctl *ctl, const char *expect);

#endif
