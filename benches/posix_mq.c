/* posix_mq.c: POSIX message queues as a transport. */
#define _GNU_SOURCE
#include "bench.h"
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static mqd_t *descriptors;
static int queues;

int transport_make(int count, size_t size, int depth, int many)
{
	(void)many;
	struct rlimit bytes = { RLIM_INFINITY, RLIM_INFINITY };
	setrlimit(RLIMIT_MSGQUEUE, &bytes);
	allow_files();
	/* Only who has CAP_SYS_RESOURCE may have more than this many. */
	FILE *limit = fopen("/proc/sys/fs/mqueue/msg_max", "re");
	int most = 10;
	if (limit != NULL) {
		if (fscanf(limit, "%d", &most) != 1)
			most = 10;
		fclose(limit);
	}
	descriptors = calloc((size_t)count, sizeof *descriptors);
	queues = 0;
	for (int i = 0; i < count; i++) {
		char name[64];
		struct mq_attr attributes = { .mq_maxmsg = depth, .mq_msgsize = (long)size };
		snprintf(name, sizeof name, "/usysv-bench-%d-%d", (int)getpid(), i);
		descriptors[i] = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes);
		if (descriptors[i] == (mqd_t)-1 && depth > most) {
			attributes.mq_maxmsg = depth = most;
			descriptors[i] = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes);
		}
		if (descriptors[i] == (mqd_t)-1)
			return -1;
		mq_unlink(name); /* children inherit the descriptor */
		queues = i + 1;
	}
	return depth;
}

void transport_join(int queue, int role)
{
	(void)queue, (void)role;
}

void transport_send(int queue, const void *text, size_t size)
{
	must(mq_send(descriptors[queue], text, size, 0) == 0, "mq_send");
}

void transport_receive(int queue, void *text, size_t room)
{
	must(mq_receive(descriptors[queue], text, room, NULL) >= 0, "mq_receive");
}

void transport_leave(void) {}

void transport_drop(void)
{
	for (int i = 0; i < queues; i++)
		mq_close(descriptors[i]);
	free(descriptors);
}
