/*
 * calls.c: msgsnd and msgrcv, with what is noted before and after, so that every message is accounted for wherever its sender or receiver
 * may be struck.
 */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

_Thread_local volatile sig_atomic_t jump_ok;
static _Thread_local struct message out[LEVELS];
static struct message supervisor_in;
size_t msgmax = MAX_TEXT;

size_t random_length(uint64_t *r)
{
	uint32_t top = random_below(r, 20), n;
	if (top < 4)
		n = random_below(r, HEADER);
	else if (top < 13)
		n = HEADER + random_below(r, 112);
	else if (top < 17)
		n = HEADER + random_below(r, 1024);
	else
		n = random_below(r, MAX_TEXT + 1);
	size_t most = atomic_load(&sh->qbytes);
	if (most > msgmax)
		most = msgmax;
	return n > most ? n % (most + 1) : n;
}

/* Returns msgsnd's errno, 0 when acknowledged, -1 when there was no token. `jumpable`: a SIGUSR2 during the call may leave it. */
int do_send(enum level level, long type, size_t len, int flags, bool jumpable)
{
	uint32_t token;
	struct message *m = &out[level];

	if (!take_token(level, &token))
		return -1;
	compose(m, token, type, len);
	if (me && !(flags & IPC_NOWAIT)) {
		atomic_fetch_add(&me->serial, 1);
		atomic_store(&me->call, CALL_SEND);
	}
	atomic_store(&sh->sent[token], ATTEMPTING);
	jump_ok = jumpable;
	atomic_signal_fence(memory_order_seq_cst);
	int r = msgsnd(atomic_load(&sh->qid), m, len, flags);
	int e = r == 0 ? 0 : errno;
	atomic_signal_fence(memory_order_seq_cst);
	jump_ok = 0;
	atomic_store(&sh->sent[token], e == 0 ? ACKNOWLEDGED : REFUSED);
	if (me && !(flags & IPC_NOWAIT))
		atomic_store(&me->call, CALL_NONE);
	if (e == 0) {
		if (me)
			atomic_fetch_add(&me->sends, 1);
	} else if (!((flags & IPC_NOWAIT) ? e == EAGAIN : e == EINTR)) {
		failure(ERRORS, "msgsnd (flags %#x, %zu bytes, type %ld): %s", (unsigned)flags, len, m->mtype, strerror(e));
	}
	return e;
}

/* Returns msgrcv's errno, 0 when something was received; *got is its length. */
int do_receive(enum level level, long want, size_t room, int flags, bool jumpable, size_t *got)
{
	struct message *m = me ? &me->in[level] : &supervisor_in;

	if (me) {
		if (!(flags & IPC_NOWAIT)) {
			atomic_fetch_add(&me->serial, 1);
			atomic_store(&me->want, want);
			atomic_store(&me->flags, flags);
			atomic_store(&me->call, CALL_RECEIVE);
		}
		memset(m, 0, sizeof m->mtype + HEADER);
		atomic_store(&me->room[level], (int)room);
		atomic_store(&me->in_receive[level], IN_MSGRCV);
	}
	jump_ok = jumpable;
	atomic_signal_fence(memory_order_seq_cst);
	ssize_t r = msgrcv(atomic_load(&sh->qid), m, room, want, flags);
	int e = r >= 0 ? 0 : errno;
	atomic_signal_fence(memory_order_seq_cst);
	jump_ok = 0;
	if (me)
		atomic_store(&me->in_receive[level], e == 0 ? NOTING : OUTSIDE);
	if (e == 0)
		record(level, m, (size_t)r, room, want, flags);
	if (me) {
		atomic_store(&me->in_receive[level], OUTSIDE);
		if (!(flags & IPC_NOWAIT))
			atomic_store(&me->call, CALL_NONE);
	}
	if (e == 0) {
		if (got)
			*got = (size_t)r;
		if (me)
			atomic_fetch_add(&me->receives, 1);
	} else if (!((flags & IPC_NOWAIT) ? e == ENOMSG : e == EINTR) && !(e == E2BIG && room < msgmax && !(flags & MSG_NOERROR))) {
		failure(ERRORS, "msgrcv (flags %#x, want %ld, room %zu): %s", (unsigned)flags, want, room, strerror(e));
	}
	return e;
}

/* Receives something at random. */
int random_receive(enum level level, int wait_flag, bool jumpable)
{
	uint64_t *r = &lane[level].random;
	long want = 0;
	size_t room = MAX_TEXT;
	int flags = wait_flag;

	switch (random_below(r, 8)) {
	case 0: /* exact type */
	case 1:
		want = 1 + (long)random_below(r, TYPES);
		break;
	case 2: /* any other type */
		want = 1 + (long)random_below(r, TYPES);
		flags |= MSG_EXCEPT;
		break;
	case 3: /* lowest type first */
		want = random_below(r, 2) ? -1 - (long)random_below(r, TYPES) : LONG_MIN + (long)random_below(r, 2);
		break;
	default: /* the head of the queue */
		break;
	}
	switch (random_below(r, 16)) {
	case 0: /* perhaps too small: E2BIG */
		room = random_below(r, 2048);
		break;
	case 1: /* perhaps cut short */
		room = HEADER + random_below(r, 2048);
		flags |= MSG_NOERROR;
		break;
	default:
		break;
	}
	return do_receive(level, want, room, flags, jumpable, NULL);
}

void random_send(enum level level, int wait_flag, bool jumpable)
{
	uint64_t *r = &lane[level].random;
	long type = 1 + (long)random_below(r, TYPES);
	do_send(level, type, random_length(r), wait_flag, jumpable);
}
