/*
 * spoil.c: a preloaded library that spoils the kernel's queues now and then, to show that torture.c notices.
 *
 * SPOIL names the fault: lose (an acknowledged message is not sent), double (a message is sent twice), tear (one byte of a
 * received text is changed), reorder (a message is taken from the head and put back at the end), ghost (a refused message
 * is sent all the same), count (IPC_STAT's qnum is one too many), bytes (IPC_STAT's cbytes is one too many), full (one
 * message less than the capacity fits), sleep (a blocked receiver sleeps for 3 s too long), kill (a killed or interrupted
 * receiver loses two messages), errno (a call fails with ENOSYS), linger (EIDRM becomes EINVAL).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static bool is(const char *fault)
{
	const char *s = getenv("SPOIL");
	return s && strcmp(s, fault) == 0;
}

/* Once in n calls of this process, the first time after a few. */
static bool now_and_then(unsigned n)
{
	static unsigned calls;
	return ++calls % n == 37 % n;
}

int msgsnd(int id, const void *message, size_t size, int flags)
{
	struct msqid_ds ds;

	if (is("lose") && now_and_then(1000))
		return 0;
	if (is("errno") && now_and_then(1000)) {
		errno = ENOSYS;
		return -1;
	}
	if (is("full") && (flags & IPC_NOWAIT) && size == 1 && syscall(SYS_msgctl, id, IPC_STAT, &ds) == 0 &&
	    ds.msg_qnum == ds.msg_qbytes - 1) {
		errno = EAGAIN;
		return -1;
	}
	int r = (int)syscall(SYS_msgsnd, id, message, size, flags);
	if (is("ghost") && r != 0 && (errno == EAGAIN || errno == EINTR)) {
		int saved = errno;
		static char room[8200];
		syscall(SYS_msgrcv, id, room, 8192, 0, IPC_NOWAIT | MSG_NOERROR);
		syscall(SYS_msgsnd, id, message, size, IPC_NOWAIT);
		errno = saved;
	}
	if (is("double") && r == 0 && now_and_then(1000))
		syscall(SYS_msgsnd, id, message, size, IPC_NOWAIT);
	return r;
}

ssize_t msgrcv(int id, void *message, size_t size, long type, int flags)
{
	if (is("reorder") && now_and_then(200)) {
		struct {
			long type;
			char text[8192];
		} m;
		long n = syscall(SYS_msgrcv, id, &m, sizeof m.text, 0, IPC_NOWAIT);
		if (n >= 0)
			syscall(SYS_msgsnd, id, &m, n, 0);
	}
	ssize_t r = syscall(SYS_msgrcv, id, message, size, type, flags);
	if (is("tear") && r > 40 && now_and_then(1000))
		((char *)message)[sizeof(long) + 35] ^= 1;
	if (is("sleep") && r >= 0 && !(flags & IPC_NOWAIT) && now_and_then(20)) {
		struct timespec three = { 3, 0 };
		nanosleep(&three, NULL);
	}
	if (is("kill") && r >= 0 && now_and_then(1000)) {
		static char more[8200];
		syscall(SYS_msgrcv, id, more, 8192, 0, IPC_NOWAIT);
		raise(SIGUSR2);
	}
	if (is("linger") && r < 0 && errno == EIDRM)
		errno = EINVAL;
	return r;
}

int msgctl(int id, int command, struct msqid_ds *ds)
{
	int r = (int)syscall(SYS_msgctl, id, command, ds);
	if (r == 0 && command == IPC_STAT && now_and_then(50)) {
		if (is("count"))
			ds->msg_qnum++;
		if (is("bytes"))
			ds->__msg_cbytes++;
	}
	return r;
}
