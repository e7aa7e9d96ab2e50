/*
 * worker.c: the processes that send and receive, and what their handlers do in the middle of it.
 */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int workers = 8, threads = 1;
bool alternate_stacks = true;
static _Thread_local sigjmp_buf escape;
static _Thread_local int my_number = -1; /* of the slot */

/* Whether a worker may be killed or jumped away in this epoch: in a strict one only those who never receive. */
bool strict_epoch(void)
{
	return atomic_load(&sh->epoch) % 2 == 0;
}

bool sends_only(int process)
{
	return process % 3 == 0;
}

/* A child of a handler, wherever the interrupted code was, uses the queue and ends; it takes and leaves nothing there. */
static void forked_calls(void)
{
	static _Thread_local struct message m; /* the alternate stack is small */
	struct msqid_ds ds;
	int q = atomic_load(&sh->qid), status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 3; i++) {
			if (msgctl(q, IPC_STAT, &ds) != 0)
				_exit(errno == EINVAL || errno == EIDRM ? 0 : errno);
			if (msgrcv(q, &m, sizeof m.u, NEVER_TYPE, IPC_NOWAIT) >= 0)
				_exit(255);
			if (errno != ENOMSG && errno != EINVAL && errno != EIDRM)
				_exit(errno);
		}
		_exit(0);
	}
	if (pid < 0)
		return;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		failure(ERRORS, "the child of a handler ended with status %#x", (unsigned)status);
	atomic_fetch_add(&me->forks, 1);
}

/* SIGUSR1: calls on the same queue, wherever the interrupted code was. */
void nested_handler(int sig)
{
	(void)sig;
	if (!me)
		return;
	int saved_errno = errno;
	sig_atomic_t saved_jump = jump_ok;
	jump_ok = 0;
	atomic_store(&me->nested_active, 1);
	atomic_fetch_add(&me->handlers, 1);
	if (atomic_load(&sh->mode) == RUN && my_epoch == atomic_load(&sh->epoch)) {
		uint64_t *r = &lane[NESTED].random;
		int calls = 1 + (int)random_below(r, 4);
		if (random_below(r, 64) == 0)
			forked_calls();
		for (int i = 0; i < calls; i++) {
			struct msqid_ds ds;
			uint32_t what = random_below(r, 5);
			if (strict_epoch() && sends_only(my_number / threads) && (what == 2 || what == 3))
				what = 0;
			switch (what) {
			case 0:
			case 1:
				random_send(NESTED, IPC_NOWAIT, saved_jump);
				break;
			case 2:
			case 3:
				random_receive(NESTED, IPC_NOWAIT, saved_jump);
				break;
			default:
				jump_ok = saved_jump;
				atomic_signal_fence(memory_order_seq_cst);
				int s = msgctl(atomic_load(&sh->qid), IPC_STAT, &ds);
				atomic_signal_fence(memory_order_seq_cst);
				jump_ok = 0;
				if (s != 0)
					failure(ERRORS, "IPC_STAT in a handler: %s", strerror(errno));
				else if (ds.msg_qnum > ds.msg_qbytes || ds.__msg_cbytes > ds.msg_qbytes)
					failure(COUNTERS, "IPC_STAT in a handler: qnum %lu, cbytes %lu, qbytes %lu", ds.msg_qnum,
						ds.__msg_cbytes, ds.msg_qbytes);
				break;
			}
			atomic_fetch_add(&me->nested_calls, 1);
		}
	}
	atomic_store(&me->nested_active, 0);
	jump_ok = saved_jump;
	errno = saved_errno;
}

/* SIGUSR2: away from the call, if there is one. What it was receiving may be lost: that is counted before the marks go. */
void jump_handler(int sig)
{
	(void)sig;
	if (!me || !jump_ok)
		return;
	jump_ok = 0;
	for (int i = 0; i < LEVELS; i++)
		account_for_victim(me, i);
	atomic_fetch_add(&me->jumps, 1);
	atomic_store(&me->call, CALL_NONE);
	atomic_store(&me->nested_active, 0);
	siglongjmp(escape, 1);
}

/* The blocking call that IPC_RMID is to end. */
static void await_removal(void)
{
	static _Thread_local struct message m;
	int e;

	atomic_store(&me->removal_errno, 0);
	atomic_store(&me->parked, 0);
	do {
		atomic_store(&me->call, my_number % 2 ? CALL_SEND : CALL_RECEIVE);
		m.mtype = FILL_TYPE;
		if (my_number % 2)
			e = msgsnd(atomic_load(&sh->qid), &m, 1, 0) == 0 ? -1 : errno;
		else
			e = msgrcv(atomic_load(&sh->qid), &m, MAX_TEXT, NEVER_TYPE, 0) >= 0 ? -1 : errno;
	} while (e == EINTR);
	atomic_store(&me->removal_errno, e);
	atomic_store(&me->call, CALL_NONE);
	atomic_store(&me->parked, 1);
}

/* Waits while the supervisor looks at the queue. A stale `parked` is impossible: it is taken back before the mode is read
 * again, and the supervisor sets the mode before it reads `parked`. */
static void park(void)
{
	static _Thread_local unsigned removals_seen;
	static _Thread_local bool first = true;

	if (first)
		removals_seen = atomic_load(&sh->removals);
	first = false;
	for (;;) {
		atomic_store(&me->parked, 1);
		int mode;
		while ((mode = atomic_load(&sh->mode)) == PARK || (mode == REMOVAL && removals_seen == atomic_load(&sh->removals)))
			sleep_ns(200000);
		if (mode == QUIT)
			_exit(0);
		if (mode == REMOVAL) {
			removals_seen = atomic_load(&sh->removals);
			await_removal();
			continue;
		}
		atomic_store(&me->parked, 0);
		if (atomic_load(&sh->mode) == RUN)
			return;
	}
}

static _Noreturn void work(int number, uint64_t seed)
{
	static _Thread_local char alternate[65536];

	my_number = number;
	me = &sh->slot[number];
	for (int i = 0; i < LEVELS; i++)
		lane[i].random = mix(seed + (uint64_t)i);
	if (number % 2 && alternate_stacks) {
		stack_t ss = { .ss_sp = alternate, .ss_size = sizeof alternate };
		sigaltstack(&ss, NULL);
	}
	my_epoch = ~0U;
	/* The mask is open before it is saved, or a jump would close it for good; nobody jumps outside a call. */
	sigset_t none;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	if (sigsetjmp(escape, 1) == 0)
		atomic_store(&me->tid, (int)syscall(SYS_gettid));
	for (;;) {
		if (atomic_load(&sh->mode) != RUN)
			park();
		if (my_epoch != atomic_load(&sh->epoch))
			enter_epoch();
		if (exhausted) {
			sleep_ns(200000);
			continue;
		}
		uint64_t *r = &lane[ORDINARY].random;
		int process = my_number / threads;
		bool send = sends_only(process) || (process % 3 == 2 && random_below(r, 2));
		int flags = random_below(r, 3) ? IPC_NOWAIT : 0;
		if (send) {
			random_send(ORDINARY, flags, true);
		} else if (random_receive(ORDINARY, flags, true) == ENOMSG && random_below(r, 4) == 0) {
			sched_yield();
		}
		if (random_below(r, 64) == 0)
			sched_yield();
	}
}

static uint64_t worker_seed;

static void *thread(void *number)
{
	work((int)(intptr_t)number, mix(worker_seed + (uint64_t)(intptr_t)number));
}

_Noreturn void worker(int process, uint64_t seed)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	worker_seed = seed;
	for (int i = 1; i < threads; i++) {
		pthread_t t;
		if (pthread_create(&t, NULL, thread, (void *)(intptr_t)(process * threads + i)) != 0)
			_exit(5);
	}
	work(process * threads, seed);
}
