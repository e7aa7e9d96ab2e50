/* unix_socket.c: Unix datagram sockets as a transport. */
#define _GNU_SOURCE
#include "pairs.h"
#include <sys/socket.h>

int transport_make(int count, size_t size, int depth, int many)
{
	(void)size, (void)many; /* how many fit is the system's choice: more */
	make_ends(count);
	for (int i = 0; i < count; i++)
		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends[i]) == -1)
			return -1;
	return depth;
}

void transport_send(int queue, const void *text, size_t size)
{
	must(send(ends[queue][1], text, size, 0) == (ssize_t)size, "send");
}

void transport_receive(int queue, void *text, size_t room)
{
	must(recv(ends[queue][0], text, room, 0) > 0, "recv");
}
