/*
 * victim.c: the process that makes the call under test, its signal handlers, and the one that sleeps in the queue.
 */
#define _GNU_SOURCE
#include "everystep.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf escape;
static volatile sig_atomic_t may_jump;
static pid_t child;
static bool am_child;

void compose(struct message *m, uint32_t token, long type, int length)
{
	m->mtype = type;
	m->t.token = token;
	m->t.length = (uint32_t)length;
	for (int i = 0; i < length - 8; i++)
		m->t.body[i] = (unsigned char)(token * 31 + (uint32_t)i * 7);
}

bool intact(const struct message *m, ssize_t length)
{
	if (length < 8 || m->t.length != (uint32_t)length)
		return false;
	for (ssize_t i = 0; i < length - 8; i++)
		if (m->t.body[i] != (unsigned char)(m->t.token * 31 + (uint32_t)i * 7))
			return false;
	return true;
}

/* Sends a message and takes it out again. */
bool pair_of(long type, uint32_t token, int length)
{
	static struct message m[2];
	struct message *mine = &m[type == NESTED_TYPE];
	compose(mine, token, type, length);
	errno = 0;
	if (msgsnd(id, mine, (size_t)length, IPC_NOWAIT) != 0) {
		snprintf(sh->pair_wrong, sizeof sh->pair_wrong, "msgsnd of %d bytes: %s", length, strerror(errno));
		return false;
	}
	memset(mine, 0, 16);
	ssize_t r = msgrcv(id, mine, sizeof mine->t, type, IPC_NOWAIT);
	if (r == length && mine->t.token == token && mine->mtype == type && intact(mine, length))
		return true;
	snprintf(sh->pair_wrong, sizeof sh->pair_wrong, "msgrcv of %d bytes: %zd (%s), type %ld, token %u, %s", length, r, strerror(errno),
		 mine->mtype, mine->t.token, intact(mine, r) ? "intact" : "broken");
	return false;
}

/* Uses the queue within a handler. A full queue has no room for that: then only the status is asked for. */
static void use_nested(void)
{
	struct msqid_ds ds;
	bool right = msgctl(id, IPC_STAT, &ds) == 0;
	if (right && ds.__msg_cbytes + 400 <= ds.msg_qbytes)
		right = pair_of(NESTED_TYPE, NESTED, 30) && msgctl(id, IPC_STAT, &ds) == 0 && pair_of(NESTED_TYPE, NESTED + 1, 200);
	if (!right)
		atomic_store(&sh->nested_wrong, errno ? errno : -1);
}

static void nested_handler(int sig)
{
	(void)sig;
	int saved = errno;
	use_nested();
	atomic_store(&sh->nested, 1);
	errno = saved;
}

static void fork_handler(int sig)
{
	(void)sig;
	int saved = errno;
	pid_t parent = getpid();
	child = fork();
	am_child = child == 0;
	if (am_child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) /* it was dead before: nobody of this trial is to be there in the next */
			_exit(98);
		use_nested();
	}
	atomic_store(&sh->forked, 1);
	errno = saved;
}

static void removing_handler(int sig)
{
	(void)sig;
	int saved = errno;
	if (msgctl(id, IPC_RMID, NULL) == 0)
		atomic_store(&sh->removed, 1);
	errno = saved;
}

static void jump_handler(int sig)
{
	(void)sig;
	if (may_jump)
		siglongjmp(escape, 1);
}

/* How many descriptors are open; with those of the tracer's side there are few. */
static int descriptors(void)
{
	int n = 0;
	for (int fd = 0; fd < 300; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

static long make(const struct call *c, struct message *m, struct msqid_ds *ds)
{
	switch (c->kind) {
	case SEND:
	case FULL:
	case BLOCKSEND:
	case WAKE: return msgsnd(id, m, (size_t)c->length, c->flags);
	case RECEIVE:
	case NOTHING:
	case COPY:
	case RELEASE: return msgrcv(id, m, sizeof m->t, c->want, c->flags | IPC_NOWAIT);
	case BLOCK: return msgrcv(id, m, sizeof m->t, c->want, c->flags);
	case CONTROL: return msgctl(c->want == IPC_STAT ? id : id & 0x7fff, (int)c->want, ds);
	case SET: return msgctl(id, IPC_SET, ds);
	case CREATE:
	case OPEN: return msgget(c->want == IPC_PRIVATE ? IPC_PRIVATE : key, c->flags);
	case REMOVE: return msgctl(id, IPC_RMID, NULL);
	}
	return -1;
}

_Noreturn void victim(const struct call *c, enum fault fault, bool warm)
{
	static struct message m;
	static union {
		struct msqid_ds ds;
		struct msginfo info;
	} buf;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct sigaction sa = { .sa_flags = SA_RESTART };
	sa.sa_handler = fault == FORK ? fork_handler : fault == REMOVAL ? removing_handler : nested_handler;
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_handler = jump_handler;
	sigaction(SIGUSR2, &sa, NULL);
	compose(&m, MINE, c->want, c->length < 8 ? 8 : c->length);
	if (warm || c->kind == SET)
		if (msgctl(id, IPC_STAT, &buf.ds) != 0 && c->kind != CREATE)
			_exit(9);
	static int open_before;
	open_before = descriptors();
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		_exit(77);
	if (sigsetjmp(escape, 1) == 0) {
		may_jump = 1;
		kill(getpid(), SIGSTOP);
		atomic_store(&sh->begun, 1);
		static long r;
		r = make(c, &m, &buf.ds);
		int e = errno;
		atomic_store(&sh->over, 1);
		may_jump = 0;
		struct outcome *mine = am_child ? &sh->child : &sh->own;
		if (c->kind == RECEIVE || c->kind == RELEASE || c->kind == BLOCK || c->kind == COPY) {
			if (r >= 0) {
				atomic_store(&mine->got, m.t.token);
				if (!intact(&m, r))
					atomic_store(&sh->broken, 1);
			}
		}
		atomic_store(&mine->error, r < 0 ? e : 0);
		atomic_store(&mine->result, (int)r);
		atomic_store(&mine->done, 1);
		int status = 0;
		if (child > 0)
			while (waitpid(child, &status, 0) < 0 && errno == EINTR)
				;
		if (status != 0)
			_exit(WIFSIGNALED(status) ? 100 + WTERMSIG(status) : 99);
	} else {
		atomic_store(&sh->jumped, 1);
		bool own = c->kind == CREATE || c->kind == REMOVE || c->kind == OPEN;
		bool room = c->kind != FULL && c->kind != BLOCKSEND && c->kind != RELEASE;
		bool right = own || !room || (pair_of(AFTER_TYPE, AFTER, 100) && pair_of(AFTER_TYPE, AFTER + 1, 2000));
		atomic_store(&sh->after_right, right ? 1 : -1);
	}
	if (descriptors() != open_before)
		atomic_store(&sh->descriptors, descriptors() - open_before);
	_exit(0);
}

/* Who waits in the queue while the victim's call is made: a receiver (WAKE) or a sender (RELEASE). */
_Noreturn void sleeper(const struct call *c)
{
	static struct message m;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ssize_t r;
	if (c->kind == RELEASE) {
		compose(&m, SLEEPERS, WAKE_TYPE, 400);
		r = msgsnd(id, &m, 400, 0);
	} else {
		r = msgrcv(id, &m, sizeof m.t, WAKE_TYPE, 0);
		if (r >= 0 && !intact(&m, r))
			atomic_store(&sh->broken, 1);
	}
	atomic_store(&sh->sleeper_error, r < 0 ? errno : 0);
	atomic_store(&sh->sleeper_got, r < 0 ? -1 : (int)m.t.token);
	_exit(0);
}
