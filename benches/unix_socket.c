/* unix_socket.c: Unix datagram sockets as a transport. */
#define _GNU_SOURCE
#include "bench.h"
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int (*ends)[2];
static int queues;

int transport_make(int count, size_t size, int depth, int many)
{
	(void)size, (void)many; /* how many fit is the system's choice: more */
	struct rlimit files = { 0, 0 };
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	ends = calloc((size_t)count, sizeof *ends);
	queues = count;
	for (int i = 0; i < count; i++)
		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends[i]) == -1)
			return -1;
	return depth;
}

void transport_join(int queue, int role)
{
	(void)queue, (void)role;
}

void transport_send(int queue, const void *text, size_t size)
{
	must(send(ends[queue][1], text, size, 0) == (ssize_t)size, "send");
}

void transport_receive(int queue, void *text, size_t room)
{
	must(recv(ends[queue][0], text, room, 0) > 0, "recv");
}

void transport_leave(void) {}

void transport_drop(void)
{
	for (int i = 0; i < queues; i++) {
		close(ends[i][0]);
		close(ends[i][1]);
	}
	free(ends);
}
