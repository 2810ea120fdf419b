/* SPDX-License-Identifier: Apache-2.0 */
/* Each message is one byte that carries one descriptor. */
#include "lib/relay.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int relay_new(struct relay *relay)
{
	int ends[2];

	*relay = (struct relay){ -1, -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	*relay = (struct relay){ .give = ends[0], .take = ends[1] };
	return 0;
}

void relay_close(struct relay *relay)
{
	if (relay->give >= 0)
		close(relay->give);
	if (relay->take >= 0)
		close(relay->take);
	*relay = (struct relay){ -1, -1 };
}

/* A message of one byte that carries one descriptor. */
struct parcel {
	struct msghdr message;
	struct iovec bytes;
	char byte;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
};

static void wrap(struct parcel *parcel)
{
	memset(parcel, 0, sizeof *parcel);
	parcel->bytes = (struct iovec){ &parcel->byte, 1 };
	parcel->message = (struct msghdr){ .msg_iov = &parcel->bytes,
		.msg_iovlen = 1,
		.msg_control = parcel->control,
		.msg_controllen = sizeof parcel->control };
}

void relay_give(struct relay relay, int fd)
{
	struct cmsghdr *header;
	struct parcel parcel;

	wrap(&parcel);
	header = CMSG_FIRSTHDR(&parcel.message);
	*header = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS
	};
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	(void)sendmsg(relay.give, &parcel.message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int relay_take(struct relay relay)
{
	struct cmsghdr *header;
	struct parcel parcel;
	int fd = -1;

	wrap(&parcel);
	if (recvmsg(relay.take, &parcel.message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return -1;
	header = CMSG_FIRSTHDR(&parcel.message);
	if (header != NULL && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof fd);
	return fd;
}
