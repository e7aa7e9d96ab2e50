/*
 * Processes: forks, threads, signals, and the odd moments of a process's life.
 *
 *  1. parent and child share ids in both directions; queues outlive their creator
 *  2. a program started with an id it never looked up can use it
 *  3. fork in a process whose other threads are in calls: the child can use every queue
 *  4. a vfork child can send, then exit or start a program; the parent goes on unharmed
 *  5. a child of raw clone, of which the C library knows nothing, can call and block
 *  6. constructors (of a library initialised before all others too), main, atexit functions and destructors can call
 *  7. a SIGINT handler that removes the queue and exits, from a blocked call and from busy ones
 *  8. alarm and siglongjmp as a time-out around a blocked call, hundreds of times, leave queue and capacity whole
 *  9. siglongjmp out of busy calls does as well; counters agree with content
 * 10. a handler that sends and receives on the queue the interrupted call is about
 * 11. threads with the smallest stack can use the calls
 * 12. two processes exchange 100000 messages in order
 * 13. several senders and receivers: every message arrives once, those of one sender in order at each receiver
 * 14. the same among threads
 * 15. the library can be loaded and unloaded by dlopen in a program that knows nothing of it (not in the native lane)
 * 16. the calls leave no descriptor, thread, signal handler or child behind, and go on after all descriptors were closed
 * 17. syscall(SYS_msgget, ...) and its sisters reach the same queues
 */
#include "check.h"
#include "early.h"
#include <dirent.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <sys/time.h>

static void run_self(const char *role, int id, long type)
{
	char a[24], b[24];
	snprintf(a, sizeof a, "%d", id);
	snprintf(b, sizeof b, "%ld", type);
	execl("/proc/self/exe", "processes", role, a, b, (char *)NULL);
	_exit(99);
}

static void fork_shares_ids(void)
{
	int *made = shared_memory(sizeof *made), id = new_queue(0600);
	for (int i = 0; i < 20; i++) {
		must(put_byte(id, 1, i, 0));
		pid_t pid = fork_child();
		if (pid == 0) {
			expect_int(i, get_byte(id, 1, IPC_NOWAIT));
			must(put_byte(id, 2, i + 1, 0));
			*made = new_queue(0600);
			must(put_byte(*made, 3, i + 2, 0));
			_exit(0);
		}
		join(pid);
		expect_int(i + 1, get_byte(id, 2, IPC_NOWAIT));
		expect_int(i + 2, get_byte(*made, 3, IPC_NOWAIT));
		expect_int(0, msgctl(*made, IPC_RMID, NULL));
	}
}

static void id_never_looked_up(void)
{
	int id = new_queue(0600);
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork_child();
		if (pid == 0)
			run_self("--send", id, 10 + i);
		join(pid);
		expect_int('s', get_byte(id, 10 + i, IPC_NOWAIT));
	}
}

/* ---- fork beside threads ---- */

struct hammer { int id; _Atomic int stop; _Atomic long rounds; };

static void *hammer(void *arg)
{
	struct hammer *h = arg;
	pid_t me = thread_id();
	while (!h->stop) {
		must(put_byte(h->id, me, 'h', 0));
		expect_int('h', get_byte(h->id, me, 0));
		h->rounds++;
	}
	return NULL;
}

static void *wait_for_end(void *arg)
{
	struct hammer *h = arg;
	expect_int('e', get_byte(h->id, LONG_MAX, 0));
	return NULL;
}

static void fork_beside_threads(void)
{
	struct hammer h = { .id = new_queue(0600) };
	pthread_t threads[3], waiter;
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, hammer, &h);
	pthread_create(&waiter, NULL, wait_for_end, &h);
	while (h.rounds < 100)
		nap(100);
	for (int i = 0; i < 60; i++) {
		pid_t pid = fork_child();
		if (pid == 0) {
			long me = 1000000000L + getpid();
			alarm(10);
			for (int j = 0; j < 20; j++) {
				must(put_byte(h.id, me, j, 0));
				expect_int(j, get_byte(h.id, me, 0));
			}
			int own = new_queue(0600);
			must(put_byte(own, 1, 'o', 0));
			expect_int('o', get_byte(own, 0, 0));
			expect_int(0, msgctl(own, IPC_RMID, NULL));
			_exit(0);
		}
		join(pid);
	}
	h.stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	expect_int(0, status_of(h.id).msg_qnum);
	must(put_byte(h.id, LONG_MAX, 'e', 0));
	pthread_join(waiter, NULL);
	expect_int(0, status_of(h.id).msg_qnum);
}

static void vfork_child_sends(void)
{
	int id = new_queue(0600);
	for (int i = 0; i < 20; i++) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(put_byte(id, 1, 'v', 0) != 0 || get_byte(id, 1, 0) != 'v' || put_byte(id, 2, 'w', 0) != 0);
		join(pid);
		expect_int('w', get_byte(id, 0, IPC_NOWAIT));
		expect_int(0, status_of(id).msg_qnum);
	}
}

static void vfork_child_starts_a_program(void)
{
	int id = new_queue(0600);
	for (int i = 0; i < 10; i++) {
		pid_t pid = vfork();
		if (pid == 0) {
			if (put_byte(id, 1, 'v', 0) == 0)
				run_self("--send", id, 2);
			_exit(98);
		}
		join(pid);
		expect_int('v', get_byte(id, 1, IPC_NOWAIT));
		expect_int('s', get_byte(id, 2, IPC_NOWAIT));
	}
}

static void raw_clone_child(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	must(put_byte(id, 9, 'p', 0));
	expect_int('p', get_byte(id, 9, 0));
	for (int i = 0; i < 10; i++) {
		memset(r, 0, sizeof *r);
		pid_t pid = (pid_t)must(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
		if (pid == 0) {
			if (put_byte(id, 1, 'c', 0) != 0 || get_byte(id, 1, 0) != 'c')
				_exit(1);
			r->value = get_byte(id, 2, 0);
			r->done = 1;
			_exit(status_of(id).msg_lrpid != (pid_t)syscall(SYS_getpid));
		}
		/* It may sleep nowhere else. */
		wait_blocked(pid);
		must(put_byte(id, 2, 'd', 0));
		expect_int(0, status_of(id).msg_qnum);
		join(pid);
		expect_int('d', r->value);
	}
}

/* ---- a process's life ---- */

__attribute__((constructor)) static void program_constructor(void)
{
	early_note(2);
}

static void at_exit(void)
{
	early_note(5);
}

__attribute__((destructor)) static void program_destructor(void)
{
	early_note(6);
}

static void life_of_a_process(void)
{
	key_t key = new_key();
	char text[24];
	snprintf(text, sizeof text, "%ld", (long)key);
	pid_t pid = fork_child();
	if (pid == 0) {
		setenv("CHECK_LIFE", text, 1);
		run_self("--life", 0, 0);
	}
	join(pid);
	int id = remember_queue((int)must(msgget(key, 0)));
	for (int i = 1; i <= 7; i++) {
		struct msg m;
		expect_int(4, msgrcv(id, &m, 4, 0, IPC_NOWAIT));
		expect_int(i, m.type);
	}
}

/* ---- handlers ---- */

static int queue_of_handler;

static void remove_and_exit(int number)
{
	(void)number;
	exit(msgctl(queue_of_handler, IPC_RMID, NULL) == 0 ? 3 : 4);
}

static void sigint_removes_the_queue(void)
{
	for (int i = 0; i < 30; i++) {
		int id = new_queue(0600), blocked = i % 3;
		if (blocked == 2) {
			set_qbytes(id, 1);
			must(put_byte(id, 2, 'f', 0));
		}
		volatile int *ready = shared_memory(sizeof *ready);
		pid_t pid = fork_child();
		if (pid == 0) {
			queue_of_handler = id;
			signal(SIGINT, remove_and_exit);
			*ready = 1;
			while (blocked == 0) {
				put_byte(id, 1, 'b', 0);
				get_byte(id, 1, 0);
			}
			if (blocked == 1)
				get_byte(id, 1, 0);
			else
				put_byte(id, 1, 'b', 0);
			_exit(5);
		}
		while (!*ready)
			nap(50);
		if (blocked)
			wait_blocked(pid);
		else
			nap(200 + i * 37);
		kill(pid, SIGINT);
		join_status(pid, 3);
		expect_errno(EINVAL, put_byte(id, 1, 'x', IPC_NOWAIT));
		munmap((void *)ready, sizeof *ready);
	}
}

static sigjmp_buf jump;
static volatile sig_atomic_t jumps_allowed;

static void jump_away(int number)
{
	(void)number;
	if (jumps_allowed)
		siglongjmp(jump, 1);
}

static void set_timer(long microseconds)
{
	struct itimerval t = { { 0, 0 }, { 0, microseconds } };
	setitimer(ITIMER_REAL, &t, NULL);
}

static void expect_whole(int id)
{
	/* All that was left behind can be received, the counters agree, and all the capacity is there. */
	struct msg m;
	struct msqid_ds s = status_of(id);
	msgqnum_t count = 0;
	msglen_t bytes = 0;
	ssize_t n;
	while ((n = msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT)) >= 0) {
		count++;
		bytes += (msglen_t)n;
	}
	if (errno != ENOMSG)
		fail("draining the queue: expected -1 ENOMSG in the end, came -1 %s after %lu of %lu messages", errno_name(errno), (unsigned long)count,
			(unsigned long)s.msg_qnum);
	expect_int(s.msg_qnum, count);
	expect_int(s.msg_cbytes, bytes);
	expect_int(0, status_of(id).msg_qnum);
	expect_int(0, status_of(id).msg_cbytes);
	set_qbytes(id, 16384);
	for (int i = 0; i < 16384; i++)
		must(put_byte(id, 1, i & 0x7f, IPC_NOWAIT));
	expect_errno(EAGAIN, put_byte(id, 1, 0, IPC_NOWAIT));
	for (int i = 0; i < 16384; i++)
		expect_int(i & 0x7f, get_byte(id, 0, IPC_NOWAIT));
	expect_int(0, status_of(id).msg_qnum);
	must(put(id, 1, 8192, 1, IPC_NOWAIT));
	must(put(id, 1, 8192, 2, IPC_NOWAIT));
	expect_int(8192, msgrcv(id, &m, 8192, 0, IPC_NOWAIT));
	expect_int(8192, msgrcv(id, &m, 8192, 0, IPC_NOWAIT));
}

static void jump_out_of_blocked_calls(void)
{
	struct sigaction act = { .sa_handler = jump_away };
	int empty = new_queue(0600), full = new_queue(0600);
	static volatile int i;
	sigaction(SIGALRM, &act, NULL);
	set_qbytes(full, 10000);
	must(put(full, 1, 8000, 1, 0));
	for (i = 0; i < 600; i++) {
		if (sigsetjmp(jump, 1) == 0) {
			jumps_allowed = 1;
			set_timer(300 + i % 7 * 100);
			if (i % 3 == 0)
				put(full, 2, 5000, 2, 0);
			else if (i % 3 == 1)
				get_byte(empty, 0, 0);
			else
				get_byte(empty, -5, MSG_NOERROR);
			fail("expected the call to block, came a return with %s", errno_name(errno));
		}
		jumps_allowed = 0;
	}
	/* Nobody waits any more. */
	must(put_byte(empty, 1, 'q', 0));
	expect_int(1, status_of(empty).msg_qnum);
	expect_int(1, status_of(full).msg_qnum);
	expect_whole(empty);
	expect_whole(full);
}

static void jump_out_of_busy_calls(void)
{
	struct sigaction act = { .sa_handler = jump_away };
	int id = new_queue(0600);
	static volatile int i;
	static struct msg m; /* not on the stack: the jump may come at any time */
	sigaction(SIGALRM, &act, NULL);
	for (i = 0; i < 1500; i++) {
		if (sigsetjmp(jump, 1) == 0) {
			jumps_allowed = 1;
			set_timer(100 + i % 11 * 30);
			for (unsigned j = 0; ; j++) {
				m.type = 1 + j % 4;
				msgsnd(id, &m, j * 37 % 900, IPC_NOWAIT);
				msgrcv(id, &m, TEXT_MAX, j % 3 ? 0 : -3, IPC_NOWAIT);
				if (j % 16 == 0)
					msgsnd(id, &m, j * 37 % 900, IPC_NOWAIT);
				if (j % 16 == 8)
					msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT);
			}
		}
		jumps_allowed = 0;
	}
	expect_whole(id);
}

static volatile sig_atomic_t nested_calls, nested_errors;

static void call_from_handler(int number)
{
	int saved = errno;
	(void)number;
	nested_calls++;
	if (put_byte(queue_of_handler, 77, nested_calls & 0x7f, IPC_NOWAIT) != 0 ||
	    get_byte(queue_of_handler, 77, IPC_NOWAIT) != (nested_calls & 0x7f))
		nested_errors++;
	errno = saved;
}

static void handler_calls_inside_calls(void)
{
	struct sigaction act = { .sa_handler = call_from_handler };
	int id = new_queue(0600);
	struct msg m;
	queue_of_handler = id;
	sigaction(SIGALRM, &act, NULL);
	struct itimerval t = { { 0, 150 }, { 0, 150 } };
	setitimer(ITIMER_REAL, &t, NULL);
	for (unsigned i = 0; nested_calls < 2000; i++) {
		size_t length = i * 53 % 1200;
		expect_int(0, put(id, 1, length, i, IPC_NOWAIT));
		expect_int(length, msgrcv(id, &m, length, 1, IPC_NOWAIT));
		expect_true(text_is(m.text, length, i));
	}
	memset(&t, 0, sizeof t);
	setitimer(ITIMER_REAL, &t, NULL);
	expect_int(0, nested_errors);
	expect_whole(id);
}

/* ---- threads ---- */

static void *on_a_small_stack(void *arg)
{
	int id = *(int *)arg;
	struct msqid_ds s;
	long me = thread_id();
	for (int i = 0; i < 100; i++) {
		must(put_byte(id, me, i, 0));
		expect_int(i, get_byte(id, me, 0));
	}
	must(msgctl(id, IPC_STAT, &s));
	int own = (int)must(msgget(IPC_PRIVATE, 0600));
	must(put_byte(own, 1, 1, 0));
	must(msgctl(own, IPC_RMID, NULL));
	return NULL;
}

static void smallest_stacks(void)
{
	int id = new_queue(0600);
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	if (pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN) != 0)
		fail("pthread_attr_setstacksize: expected success");
	for (int round = 0; round < 5; round++) {
		pthread_t threads[8];
		for (int i = 0; i < 8; i++) {
			int error = pthread_create(&threads[i], &attributes, on_a_small_stack, &id);
			if (error)
				fail("pthread_create with the smallest stack: expected success, came %s", errno_name(error));
		}
		for (int i = 0; i < 8; i++)
			pthread_join(threads[i], NULL);
	}
	expect_int(0, status_of(id).msg_qnum);
}

/* ---- traffic ---- */

struct numbered { long type; unsigned from, number; };
#define NUMBERED_SIZE (sizeof(struct numbered) - sizeof(long))

static void hundred_thousand_messages(void)
{
	enum { BATCH = 50, BATCHES = 1000 };
	int id = new_queue(0600);
	struct numbered m;
	pid_t pid = fork_child();
	if (pid == 0) {
		for (unsigned i = 0; i < BATCH * BATCHES; i++) {
			expect_int(NUMBERED_SIZE, msgrcv(id, &m, NUMBERED_SIZE, 1, 0));
			expect_int(i, m.number);
			m.type = 2;
			m.from = 2;
			must(msgsnd(id, &m, NUMBERED_SIZE, 0));
		}
		_exit(0);
	}
	for (unsigned i = 0; i < BATCHES; i++) {
		for (unsigned j = 0; j < BATCH; j++) {
			m = (struct numbered){ 1, 1, i * BATCH + j };
			must(msgsnd(id, &m, NUMBERED_SIZE, 0));
		}
		for (unsigned j = 0; j < BATCH; j++) {
			expect_int(NUMBERED_SIZE, msgrcv(id, &m, NUMBERED_SIZE, 2, 0));
			expect_int(i * BATCH + j, m.number);
			expect_int(2, m.from);
		}
	}
	join(pid);
	expect_int(0, status_of(id).msg_qnum);
}

enum { SENDERS = 4, RECEIVERS = 3, EACH = 8000 };
struct traffic { int id; _Atomic unsigned char seen[SENDERS][EACH]; };
struct party { struct traffic *t; unsigned number; };

static void *send_all(void *arg)
{
	struct party *p = arg;
	for (unsigned i = 0; i < EACH; i++) {
		struct numbered m = { 1 + i % 5, p->number, i };
		must(msgsnd(p->t->id, &m, NUMBERED_SIZE, 0));
	}
	return NULL;
}

static void *receive_all(void *arg)
{
	struct party *p = arg;
	unsigned next[SENDERS] = { 0 };
	for (;;) {
		struct numbered m;
		expect_int(NUMBERED_SIZE, msgrcv(p->t->id, &m, NUMBERED_SIZE, 0, 0));
		if (m.type == 1000)
			return NULL;
		expect_true(m.from < SENDERS && m.number < EACH);
		if (m.number < next[m.from])
			fail("sender %u: expected number %u or later, came %u", m.from, next[m.from], m.number);
		next[m.from] = m.number + 1;
		expect_int(1 + m.number % 5, m.type);
		expect_int(0, p->t->seen[m.from][m.number]++);
	}
}

static void finish_traffic(struct traffic *t)
{
	for (int i = 0; i < RECEIVERS; i++) {
		struct numbered m = { 1000, 0, 0 };
		must(msgsnd(t->id, &m, NUMBERED_SIZE, 0));
	}
}

static void expect_all_seen(const struct traffic *t)
{
	for (int s = 0; s < SENDERS; s++)
		for (int i = 0; i < EACH; i++)
			if (t->seen[s][i] != 1)
				fail("message %d of sender %d: expected to arrive once, came %d times", i, s, t->seen[s][i]);
	expect_int(0, status_of(t->id).msg_qnum);
	expect_int(0, status_of(t->id).msg_cbytes);
}

static void many_processes(void)
{
	struct traffic *t = shared_memory(sizeof *t);
	pid_t senders[SENDERS], receivers[RECEIVERS];
	t->id = new_queue(0600);
	set_qbytes(t->id, 2000);
	for (unsigned i = 0; i < SENDERS + RECEIVERS; i++) {
		pid_t pid = fork_child();
		struct party p = { t, i };
		if (pid == 0) {
			if (i < SENDERS)
				send_all(&p);
			else
				receive_all(&p);
			_exit(0);
		}
		*(i < SENDERS ? &senders[i] : &receivers[i - SENDERS]) = pid;
	}
	for (int i = 0; i < SENDERS; i++)
		join(senders[i]);
	finish_traffic(t);
	for (int i = 0; i < RECEIVERS; i++)
		join(receivers[i]);
	expect_all_seen(t);
}

static void many_threads(void)
{
	struct traffic *t = shared_memory(sizeof *t);
	pthread_t threads[SENDERS + RECEIVERS];
	struct party p[SENDERS + RECEIVERS];
	t->id = new_queue(0600);
	set_qbytes(t->id, 2000);
	for (unsigned i = 0; i < SENDERS + RECEIVERS; i++) {
		p[i] = (struct party){ t, i };
		pthread_create(&threads[i], NULL, i < SENDERS ? send_all : receive_all, &p[i]);
	}
	for (int i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	finish_traffic(t);
	for (int i = SENDERS; i < SENDERS + RECEIVERS; i++)
		pthread_join(threads[i], NULL);
	expect_all_seen(t);
}

/* ---- what surrounds the calls ---- */

/* The entries of a directory, "." and ".." included; opendir's own descriptor counts each time. */
static int count_of(const char *directory)
{
	int n = 0;
	DIR *d = opendir(directory);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void no_traces(void)
{
	struct sigaction before[65], after;
	sigset_t mask_before, mask_after;
	struct msg m;
	memset(&mask_before, 0, sizeof mask_before);
	memset(&mask_after, 0, sizeof mask_after);
	memset(before, 0, sizeof before);
	int descriptors = count_of("/proc/self/fd");
	for (int s = 1; s < 65; s++)
		sigaction(s, NULL, &before[s]);
	sigprocmask(SIG_SETMASK, NULL, &mask_before);
	for (int i = 0; i < 20; i++) {
		int id = new_queue(0600);
		must(put(id, 1, 5000, 1, 0));
		must(msgrcv(id, &m, 5000, 0, 0));
		if (i % 2)
			must(msgctl(id, IPC_RMID, NULL));
	}
	expect_int(descriptors, count_of("/proc/self/fd"));
	expect_int(3, count_of("/proc/self/task")); /* ".", ".." and the one thread */
	for (int s = 1; s < 65; s++) {
		if (sigaction(s, NULL, &after) == 0)
			expect_true(after.sa_handler == before[s].sa_handler);
	}
	sigprocmask(SIG_SETMASK, NULL, &mask_after);
	expect_int(0, memcmp(&mask_before, &mask_after, sizeof mask_before));
	errno = 0;
	expect_errno(ECHILD, waitpid(-1, NULL, WNOHANG));
}

static void all_descriptors_closed(void)
{
	key_t key = new_key();
	int id = new_queue(0600);
	must(put_byte(id, 1, 'a', 0));
	for (int fd = 0; fd < 200; fd++)
		close(fd);
	expect_int('a', get_byte(id, 0, 0));
	must(put_byte(id, 1, 'b', 0));
	int other = new_keyed_queue(key, 0600);
	must(put_byte(other, 1, 'c', 0));
	expect_int('c', get_byte(other, 0, 0));
	expect_int('b', get_byte(id, 0, 0));
}

static void creator_is_gone(void)
{
	int *id = shared_memory(sizeof *id);
	pid_t pid = fork_child();
	if (pid == 0) {
		*id = new_queue(0600);
		must(put(*id, 4, 3000, 7, 0));
		raise(SIGKILL);
	}
	waitpid(pid, NULL, 0);
	struct msg m;
	expect_int(pid, status_of(*id).msg_lspid);
	expect_int(3000, msgrcv(*id, &m, TEXT_MAX, 0, IPC_NOWAIT));
	expect_true(text_is(m.text, 3000, 7));
}

static void through_syscall(void)
{
	struct { long type; char text[8]; } m = { 3, "raw" };
	struct msqid_ds s;
	int id = remember_queue((int)must(syscall(SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600)));
	expect_int(0, syscall(SYS_msgsnd, id, &m, 3, 0));
	expect_int(1, status_of(id).msg_qnum);
	expect_int(0, syscall(SYS_msgctl, id, IPC_STAT, &s));
	expect_int(3, s.msg_cbytes);
	expect_int(3, syscall(SYS_msgrcv, id, &m, 8, 0, IPC_NOWAIT));
	expect_errno(ENOMSG, syscall(SYS_msgrcv, id, &m, 8, 0, IPC_NOWAIT));
	expect_errno(EINVAL, syscall(SYS_msgsnd, id, &m, -1, 0));
	must(put_byte(id, 1, 'a', 0));
	expect_int(1, syscall(SYS_msgrcv, id, &m, 8, 0, IPC_NOWAIT));
	expect_int(0, syscall(SYS_msgctl, id, IPC_RMID, NULL));
	expect_errno(EINVAL, get_byte(id, 0, IPC_NOWAIT));
}

static void loaded_and_unloaded(void)
{
	const char *library = getenv("CHECK_LIB"), *host = getenv("CHECK_HOST");
	const char *lane = getenv("CHECK_LANE");
	if (!lane || !strcmp(lane, "native"))
		skip("the native lane has no library to load");
	if (!library || !host)
		fail("expected CHECK_LIB and CHECK_HOST in the environment");
	pid_t pid = fork_child();
	if (pid == 0) {
		unsetenv("LD_PRELOAD");
		execl(host, "processes", "--load", library, (char *)NULL);
		_exit(99);
	}
	join(pid);
}

/* The host of that row: a native build, without the library. */
static int load_and_unload(const char *library)
{
	for (int i = 0; i < 20; i++) {
		struct { long type; char text[8]; } m = { 1, "loaded" };
		void *handle = dlopen(library, i % 2 ? RTLD_LAZY : RTLD_NOW);
		if (!handle)
			return 10;
		int (*get)(key_t, int), (*send)(int, const void *, size_t, int), (*control)(int, int, struct msqid_ds *);
		ssize_t (*receive)(int, void *, size_t, long, int);
		*(void **)&get = dlsym(handle, "msgget");
		*(void **)&send = dlsym(handle, "msgsnd");
		*(void **)&receive = dlsym(handle, "msgrcv");
		*(void **)&control = dlsym(handle, "msgctl");
		if (!get || !send || !receive || !control)
			return 11;
		int id = get(IPC_PRIVATE, 0600);
		if (id < 0)
			return 12;
		if (send(id, &m, 6, 0) != 0 || receive(id, &m, 8, 0, IPC_NOWAIT) != 6)
			return 13;
		if (receive(id, &m, 8, 0, IPC_NOWAIT) != -1 || errno != ENOMSG)
			return 14;
		if (control(id, IPC_RMID, NULL) != 0)
			return 15;
		if (dlclose(handle) != 0)
			return 16;
	}
	return 0;
}

static const struct row rows[] = {
	ROW(fork_shares_ids),
	ROW(id_never_looked_up),
	ROW_LONG(fork_beside_threads, 30),
	ROW(vfork_child_sends),
	ROW(vfork_child_starts_a_program),
	ROW(raw_clone_child),
	ROW(life_of_a_process),
	ROW_LONG(sigint_removes_the_queue, 30),
	ROW_LONG(jump_out_of_blocked_calls, 30),
	ROW_LONG(jump_out_of_busy_calls, 30),
	ROW_LONG(handler_calls_inside_calls, 30),
	ROW(smallest_stacks),
	ROW_LONG(hundred_thousand_messages, 60),
	ROW_LONG(many_processes, 60),
	ROW_LONG(many_threads, 60),
	ROW(loaded_and_unloaded),
	ROW(no_traces),
	ROW(all_descriptors_closed),
	ROW(creator_is_gone),
	ROW(through_syscall),
};

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--send"))
		return put_byte(atoi(argv[2]), atol(argv[3]), 's', IPC_NOWAIT) != 0;
	if (argc == 4 && !strcmp(argv[1], "--life")) {
		early_note(3);
		atexit(at_exit);
		early_note(4);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--load"))
		return load_and_unload(argv[2]);
	return check_suite("processes", rows, sizeof rows / sizeof rows[0], argc, argv);
}
