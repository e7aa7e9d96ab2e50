/*
 * state.c: the four calls leave the process as they found it.
 *
 * After thousands of calls of every kind, creations and removals, and a blocking receive that is woken by another process:
 *   errno         untouched by every successful call, whatever it was before, and set by a failing one
 *   descriptors   the same ones are open, on the same files
 *   handlers      the action of each signal is as it was, also of those whose action the program set
 *   mask          signal mask, pending signals, alternate stack
 *   timers        no interval timer runs
 *   threads       one thread, no children
 *   environment   working directory, umask, locale, environment strings, rounding mode, cancellability, scheduling, name
 *   exits         exit() after all this has status and output of the program's own (the last line is printed at exit)
 */
#include "hygiene.h"

#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;

enum { DESCRIPTORS = 256 };

struct state {
	char descriptor[DESCRIPTORS][160]; /* what each is open on, or empty */
	struct sigaction action[65];
	sigset_t mask, pending;
	stack_t stack;
	struct itimerval timer[3];
	long threads;
	char cwd[4096];
	mode_t umask;
	char locale[256];
	size_t environment;
	int rounding, cancel_state, cancel_type, policy, dumpable, keepcaps;
	char name[17];
};

static void look(struct state *s)
{
	memset(s, 0, sizeof *s);
	for (int fd = 0; fd < DESCRIPTORS; fd++) {
		char link[64];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		if (readlink(link, s->descriptor[fd], sizeof s->descriptor[fd] - 1) < 0)
			s->descriptor[fd][0] = 0;
	}
	for (int i = 1; i <= 64; i++)
		sigaction(i, NULL, &s->action[i]);
	sigprocmask(SIG_BLOCK, NULL, &s->mask);
	sigpending(&s->pending);
	sigaltstack(NULL, &s->stack);
	for (int i = 0; i < 3; i++)
		getitimer(i, &s->timer[i]);
	s->timer[ITIMER_REAL].it_value = (struct timeval){ 0, 0 }; /* our watchdog */
	s->threads = hy_entries("/proc/self/task");
	if (!getcwd(s->cwd, sizeof s->cwd))
		s->cwd[0] = 0;
	s->umask = umask(0);
	umask(s->umask);
	snprintf(s->locale, sizeof s->locale, "%s", setlocale(LC_ALL, NULL));
	for (char **e = environ; *e; e++)
		for (char *p = *e; *p; p++)
			s->environment = s->environment * 31 + (unsigned char)*p;
	s->rounding = fegetround();
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &s->cancel_state);
	pthread_setcancelstate(s->cancel_state, NULL);
	pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &s->cancel_type);
	pthread_setcanceltype(s->cancel_type, NULL);
	s->policy = sched_getscheduler(0);
	s->dumpable = prctl(PR_GET_DUMPABLE);
	s->keepcaps = prctl(PR_GET_KEEPCAPS);
	prctl(PR_GET_NAME, s->name);
}

static long errno_wrong;
static char errno_first[120];

/* Checks that a successful call left errno alone. */
#define QUIET(call)                                                                                                    \
	do {                                                                                                           \
		static const int values[] = { 0, EINTR, 4711 };                                                        \
		int before = values[quiet_round++ % 3];                                                                \
		errno = before;                                                                                        \
		bool failed = (call) < 0;                                                                              \
		int after = errno;                                                                                     \
		if ((failed || after != before) && errno_wrong++ == 0)                                                 \
			snprintf(errno_first, sizeof errno_first, "%s: %s, errno %d became %d", #call,                 \
				 failed ? "failed" : "succeeded", before, after);                                      \
	} while (0)

/* Checks that a failing call sets errno. */
#define FAILS(call, error)                                                                                             \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		if (((call) != -1 || errno != (error)) && errno_wrong++ == 0)                                          \
			snprintf(errno_first, sizeof errno_first, "%s: errno %d, not %d", #call, errno, error);        \
	} while (0)

static unsigned quiet_round;

static void every_call(key_t key, int round)
{
	static struct hy_message m;
	struct msqid_ds ds;
	struct msginfo info;
	int id = -1;

	QUIET(id = msgget(round % 2 ? key : IPC_PRIVATE, IPC_CREAT | 0600));
	if (round % 2) {
		QUIET(msgget(key, 0));
		QUIET(msgget(key, IPC_CREAT | 0600));
		FAILS(msgget(key, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
	}
	FAILS(msgget(key + 1, 0), ENOENT);
	for (int i = 0; i < 8; i++) {
		m.mtype = 1 + i % 3;
		QUIET(msgsnd(id, &m, (size_t)(i * 200), i % 2 ? IPC_NOWAIT : 0));
	}
	QUIET(msgctl(id, IPC_STAT, &ds));
	QUIET(msgctl(id, IPC_SET, &ds));
	QUIET(msgctl(0, IPC_INFO, (struct msqid_ds *)&info));
	QUIET(msgctl(0, MSG_INFO, (struct msqid_ds *)&info));
	QUIET(msgctl(id & 0x7fff, MSG_STAT, &ds));
	QUIET(msgrcv(id, &m, sizeof m.mtext, 0, 0));
	QUIET(msgrcv(id, &m, sizeof m.mtext, 2, IPC_NOWAIT));
	QUIET(msgrcv(id, &m, sizeof m.mtext, -3, 0));
	QUIET(msgrcv(id, &m, sizeof m.mtext, 2, MSG_EXCEPT));
	QUIET(msgrcv(id, &m, 10, 0, MSG_NOERROR));
	FAILS(msgrcv(id, &m, 0, 0, 0), E2BIG);
	while (msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
		;
	FAILS(msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT), ENOMSG);
	FAILS(msgsnd(id, &m, 100000, 0), EINVAL);
	QUIET(msgctl(id, IPC_RMID, NULL));
	FAILS(msgctl(id, IPC_STAT, &ds), EINVAL);
}

/* A receive and a send that really block, ended by another process. */
static void blocking_calls(void)
{
	static struct hy_message m;
	int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);

	hy_need(id >= 0, "msgget");
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		usleep(30000);
		m.mtype = 1;
		msgsnd(id, &m, 100, 0);
		usleep(30000);
		while (msgrcv(id, &m, sizeof m.mtext, 2, IPC_NOWAIT) >= 0)
			;
		_exit(0);
	}
	QUIET(msgrcv(id, &m, sizeof m.mtext, 1, 0));
	m.mtype = 2;
	while (msgsnd(id, &m, 8000, IPC_NOWAIT) == 0)
		;
	QUIET(msgsnd(id, &m, 8000, 0));
	waitpid(pid, NULL, 0);
	QUIET(msgctl(id, IPC_RMID, NULL));
}

static void handler(int sig)
{
	(void)sig;
}

int main(void)
{
	static struct state before, after;
	hy_begin("state", 120);

	/* Things to disturb. */
	static char stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof stack };
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER };
	sigset_t some;
	sigaltstack(&ss, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&some);
	sigaddset(&some, SIGUSR2);
	sigaddset(&some, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &some, NULL);
	raise(SIGUSR2);
	umask(027);
	fesetround(FE_DOWNWARD);
	hy_need(chdir("/tmp") == 0 || chdir("/") == 0, "chdir");

	look(&before);
	key_t key = (key_t)(0x55000000 + (getpid() & 0xffffff) * 2);
	for (int round = 0; round < 1000; round++)
		every_call(key, round);
	blocking_calls();
	static struct hy_message m = { .mtype = 1 };
	int id = msgget(IPC_PRIVATE, 0600);
	for (int i = 0; i < 20000; i++) {
		QUIET(msgsnd(id, &m, (size_t)(i % 300), 0));
		QUIET(msgrcv(id, &m, sizeof m.mtext, i % 2, 0));
	}
	look(&after); /* with a queue in use */

	hy_check(errno_wrong == 0, "errno", "%ld times, first: %s", errno_wrong, errno_first);
	int differs = -1;
	for (int fd = 0; fd < DESCRIPTORS; fd++)
		if (strcmp(before.descriptor[fd], after.descriptor[fd]) != 0 && differs < 0)
			differs = fd;
	hy_check(differs < 0, "descriptors", "descriptor %d was '%s', is '%s'", differs, differs < 0 ? "" : before.descriptor[differs],
		 differs < 0 ? "" : after.descriptor[differs]);
	differs = 0;
	for (int i = 1; i <= 64; i++)
		if (before.action[i].sa_handler != after.action[i].sa_handler || before.action[i].sa_flags != after.action[i].sa_flags ||
		    memcmp(&before.action[i].sa_mask, &after.action[i].sa_mask, 8) != 0)
			differs = i;
	hy_check(!differs, "handlers", "the action of signal %d was changed", differs);
	hy_check(memcmp(&before.mask, &after.mask, 8) == 0, "mask", "the signal mask was changed");
	hy_check(memcmp(&before.pending, &after.pending, 8) == 0, "pending", "the set of pending signals was changed");
	hy_check(before.stack.ss_sp == after.stack.ss_sp && before.stack.ss_size == after.stack.ss_size &&
			 before.stack.ss_flags == after.stack.ss_flags,
		 "stack", "the alternate signal stack was changed");
	hy_check(memcmp(before.timer, after.timer, sizeof before.timer) == 0, "timers", "an interval timer was set");
	hy_check(after.threads == 1, "threads", "%ld threads", after.threads);
	errno = 0;
	hy_check(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "children", "there is a child process");
	hy_check(strcmp(before.cwd, after.cwd) == 0, "directory", "now %s", after.cwd);
	hy_check(before.umask == after.umask, "umask", "now %o", (unsigned)after.umask);
	hy_check(strcmp(before.locale, after.locale) == 0, "locale", "now %s", after.locale);
	hy_check(before.environment == after.environment, "environment", "the environment strings were changed");
	hy_check(before.rounding == after.rounding, "rounding", "mode %d", after.rounding);
	hy_check(before.cancel_state == after.cancel_state && before.cancel_type == after.cancel_type, "cancellability", "changed");
	hy_check(before.policy == after.policy && before.dumpable == after.dumpable && before.keepcaps == after.keepcaps &&
			 strcmp(before.name, after.name) == 0,
		 "process", "scheduling, dumpable, keepcaps or name was changed");

	/* Low descriptors stay for the program: open() gets the lowest free one, and closing everything does no harm. */
	int low = dup(0), expected = 0;
	while (expected < DESCRIPTORS && before.descriptor[expected][0])
		expected++;
	hy_check(low == expected, "lowest-descriptor", "dup gives %d, not %d", low, expected);
	close(low);
	for (int fd = 3; fd < DESCRIPTORS; fd++)
		close(fd);
	m.mtype = 1;
	hy_check(msgsnd(id, &m, 5, 0) == 0 && msgrcv(id, &m, 5, 0, IPC_NOWAIT) == 5, "closed-descriptors",
		 "after close() of everything from 3 up: %s", strerror(errno));
	hy_check(msgctl(id, IPC_RMID, NULL) == 0, "closed-descriptors-remove", "%s", strerror(errno));

	fflush(stdout);
	pid_t pid = fork();
	int status = -1;
	if (pid == 0) {
		id = msgget(IPC_PRIVATE, 0600);
		msgsnd(id, &m, 5, 0);
		msgctl(id, IPC_RMID, NULL);
		exit(42);
	}
	hy_check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42, "exits", "status %#x", (unsigned)status);
	return hy_end();
}
