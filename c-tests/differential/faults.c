/*
 * faults.c: the kernel's queues with one deliberate fault, preloaded. The differential fuzzer must find each, and shrink it to a few calls;
 * otherwise its verdict on the library is worth nothing. The fault is named in FAULT; `names` says what each does.
 *
 * "late" is none: an order that the kernel is free to choose, though it hardly ever does. It must not be taken for a difference.
 *
 * A fault depends on the arguments and answers of a call only, never on how many came before: so it stays when calls are left out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

enum fault {
	NONE, BELOW, PAST_END, TOO_BIG_TAKEN, COUNT, LAST_EMPTY, NO_EXCEPT, ORDER, EXECUTE, RECEIVED, HIGHEST, REMOVED, RESTART, COPY_TAKES, DENIED, LOST, CRASH, LATE,
};

static const struct {
	const char *name;
	enum fault fault;
} names[] = {
	{ "below", BELOW },               /* a type below 0 takes lower ones only */
	{ "past-end", PAST_END },         /* MSG_NOERROR writes a byte too many */
	{ "too-big-taken", TOO_BIG_TAKEN }, /* E2BIG takes the message */
	{ "count", COUNT },               /* IPC_STAT counts three messages as four */
	{ "last-empty", LAST_EMPTY },     /* the last empty message does not fit */
	{ "no-except", NO_EXCEPT },       /* MSG_EXCEPT is ignored */
	{ "order", ORDER },               /* EINVAL of a negative id before EFAULT of the type */
	{ "execute", EXECUTE },           /* IPC_SET drops execute bits */
	{ "received", RECEIVED },         /* msg_rtime is 0 while something is in the queue */
	{ "highest", HIGHEST },           /* MSG_INFO returns one less */
	{ "removed", REMOVED },           /* EIDRM is EINVAL */
	{ "restart", RESTART },           /* a blocked msgrcv goes on after a handler */
	{ "copy-takes", COPY_TAKES },     /* MSG_COPY takes the message at place 0 */
	{ "denied", DENIED },             /* IPC_RMID of another's queue is EACCES */
	{ "lost", LOST },                 /* a message of 72 bytes is lost */
	{ "crash", CRASH },               /* receiving a type of 65536 ends the process */
	{ "late", LATE },                 /* a message of 4 bytes is sent a moment later */
};

static enum fault fault(void)
{
	static int known = -1;
	if (known < 0) {
		const char *name = getenv("FAULT");
		known = NONE;
		for (size_t i = 0; name && i < sizeof names / sizeof names[0]; i++)
			if (!strcmp(name, names[i].name))
				known = (int)names[i].fault;
		if (known == NONE)
			abort();
	}
	return (enum fault)known;
}

/* Awake: asleep, it would pass for one that waits at a queue. */
static void dawdle(void)
{
	struct timespec begun, now;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - begun.tv_sec) * 1000000000 + now.tv_nsec - begun.tv_nsec < 5000000);
}

int msgget(key_t key, int flags)
{
	return (int)syscall(SYS_msgget, key, flags);
}

int msgsnd(int id, const void *message, size_t size, int flags)
{
	struct msqid_ds ds;
	if (fault() == LAST_EMPTY && size == 0 && id >= 0 && syscall(SYS_msgctl, id, IPC_STAT, &ds) == 0 && ds.msg_qnum + 1 == ds.msg_qbytes &&
	    (flags & IPC_NOWAIT)) {
		errno = EAGAIN;
		return -1;
	}
	if (fault() == LOST && size == 72)
		return 0;
	if (fault() == LATE && size == 4)
		dawdle();
	int r = (int)syscall(SYS_msgsnd, id, message, size, flags);
	if (fault() == ORDER && r < 0 && errno == EFAULT && id < 0)
		errno = EINVAL;
	if (fault() == REMOVED && r < 0 && errno == EIDRM)
		errno = EINVAL;
	return r;
}

ssize_t msgrcv(int id, void *message, size_t size, long type, int flags)
{
	static struct {
		long type;
		char text[8192];
	} scratch;
	if (fault() == BELOW && type < -1)
		type++;
	if (fault() == NO_EXCEPT)
		flags &= ~MSG_EXCEPT;
	ssize_t r = syscall(SYS_msgrcv, id, message, size, type, flags);
	while (fault() == RESTART && r < 0 && errno == EINTR)
		r = syscall(SYS_msgrcv, id, message, size, type, flags);
	if (fault() == PAST_END && r >= 0 && (size_t)r == size && (flags & MSG_NOERROR))
		((char *)message)[sizeof(long) + size] ^= 1;
	if (fault() == TOO_BIG_TAKEN && r < 0 && errno == E2BIG && !(flags & MSG_COPY)) {
		syscall(SYS_msgrcv, id, &scratch, sizeof scratch.text, type, flags | IPC_NOWAIT | MSG_NOERROR);
		errno = E2BIG;
	}
	if (fault() == COPY_TAKES && r >= 0 && (flags & MSG_COPY) && type == 0)
		syscall(SYS_msgrcv, id, &scratch, sizeof scratch.text, 0, IPC_NOWAIT | MSG_NOERROR);
	if (fault() == REMOVED && r < 0 && errno == EIDRM)
		errno = EINVAL;
	if (fault() == CRASH && r >= 0 && *(long *)message == 65536)
		raise(SIGSEGV);
	return r;
}

int msgctl(int id, int command, struct msqid_ds *ds)
{
	struct msqid_ds copy;
	if (fault() == EXECUTE && command == IPC_SET && ds && ds != (void *)-1 && (ds->msg_perm.mode & 0111)) {
		memcpy(&copy, ds, sizeof copy);
		copy.msg_perm.mode &= 0666;
		return (int)syscall(SYS_msgctl, id, command, &copy);
	}
	int r = (int)syscall(SYS_msgctl, id, command, ds);
	if (fault() == COUNT && r == 0 && command == IPC_STAT && ds->msg_qnum == 3)
		ds->msg_qnum = 4;
	if (fault() == RECEIVED && r == 0 && command == IPC_STAT && ds->msg_qnum)
		ds->msg_rtime = 0;
	if (fault() == HIGHEST && r > 0 && command == MSG_INFO)
		r--;
	if (fault() == DENIED && r < 0 && command == IPC_RMID && errno == EPERM)
		errno = EACCES;
	return r;
}
