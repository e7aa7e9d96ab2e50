/*
 * actor.c: carries out what it is given, as one user or another, or blocks in it and is sent signals.
 */
#include "execute.h"

#include <errno.h>
#include <grp.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void futex_wait(_Atomic uint32_t *word, uint32_t value, long milliseconds)
{
	struct timespec t = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void pause_cpu(void)
{
#if defined __x86_64__
	__builtin_ia32_pause();
#endif
}

static void on_signal(int number)
{
	struct {
		long type;
		char text[8];
	} m = { 1, "handler" };
	int saved = errno, id = side->actors[me].queue;
	int64_t result = 1000;

	errno = 0;
	if (number == SIGRTMIN + SENDING)
		result = msgsnd(id, &m, 3, IPC_NOWAIT);
	else if (number == SIGRTMIN + RECEIVING)
		result = msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT | MSG_NOERROR);
	else if (number == SIGRTMIN + REMOVING)
		result = msgctl(id, IPC_RMID, NULL);
	if (result != 1000)
		CALLS(1);
	side->handler_error = result < 0 ? errno : 0;
	side->handler_result = result;
	errno = saved;
}

static void take_signals(void)
{
	for (int n = 0; n < NOTICES; n++) {
		struct sigaction act = { .sa_handler = n == IGNORED ? SIG_IGN : on_signal, .sa_flags = n == RESTARTING ? SA_RESTART : 0 };
		sigaction(SIGRTMIN + n, &act, NULL);
	}
}

static void become(int actor)
{
	static const struct { uid_t uid; gid_t gid, group; } who[ACTORS] = {
		{ 0, 0, 0 }, { 0, 0, 0 }, { UID_A, UID_A, 0 }, { UID_B, UID_B, GID_C }, { UID_A, GID_C, 0 }, { UID_B, UID_B, 0 },
	};
	gid_t group = who[actor].group;
	if (who[actor].uid == 0)
		return;
	if (setgroups(group ? 1 : 0, &group) != 0 || setresgid(who[actor].gid, who[actor].gid, who[actor].gid) != 0 ||
	    setresuid(who[actor].uid, who[actor].uid, who[actor].uid) != 0)
		_exit(4);
}

void act(void)
{
	struct actor *self = &side->actors[me];
	uint32_t turn = 0;
	take_signals();
	become(me);
	for (;;) {
		for (int spin = 0; atomic_load(&self->go) == turn; spin++) {
			if (spin < 300)
				pause_cpu();
			else
				futex_wait(&self->go, turn, 1000);
		}
		turn = atomic_load(&self->go);
		lag(self->from);
		atomic_store(&self->phase, IN_CALL);
		for (uint32_t i = self->from; i < self->to; i++)
			do_op(i);
		atomic_store(&self->phase, IDLE);
		atomic_store(&self->over, turn);
		futex_wake(&self->over);
	}
}
