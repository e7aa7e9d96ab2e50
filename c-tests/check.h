/*
 * check.h: the harness of the conformance programs.
 *
 * A suite is a table of rows. Every row runs in a child of its own, which leads a process group of its own, under a watchdog; whatever the
 * row leaves behind (processes, queues) is cleared away before the next one starts. The parent itself never calls one of the four
 * functions under test: a row always begins in a process that has touched no queue.
 *
 * One line per row:    ok NAME | FAIL NAME: what was expected, what came | skipped NAME: why
 * and at the end:      SUITE: N passed, N failed, N skipped
 * The exit status is 0 only when something passed and nothing failed.
 *
 * A row passes by returning. It fails through the expect macros or fail(), from any process it forked; the first failure is the one
 * reported. Arguments of a suite, if any, are the names of the rows to run; --list prints the names of all.
 *
 * Environment, set by run.sh: CHECK_LANE (native, preload, linked) makes the suite prove what it runs on before the first row;
 * CHECK_NOSYSV=1 demands that a seccomp filter is in force as well; CHECK_OWN_NAMESPACE=1 says that nobody else uses the queues.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef CHECK_LINKED
#include <usysv.h>
#endif
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>

#include "state.h"

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

#define NOBODY 65534
#define TEXT_MAX 8192
#ifndef ROW_SECONDS
#define ROW_SECONDS 15
#endif

enum row_user { AS_STARTED, AS_ROOT, AS_NOBODY };

struct row {
	const char *name;
	void (*run)(void);
	enum row_user user;
	unsigned seconds;
	const void *arg; /* for rows that share a function: see row_arg() */
};

#define ROW(function) { .name = #function, .run = function }
#define ROW_ROOT(function) { .name = #function, .run = function, .user = AS_ROOT }
#define ROW_NOBODY(function) { .name = #function, .run = function, .user = AS_NOBODY }
#define ROW_LONG(function, limit) { .name = #function, .run = function, .seconds = limit }
#define ROW_CASE(title, function, data) { .name = title, .run = function, .arg = data }

struct msg {
	long type;
	unsigned char text[TEXT_MAX];
};

enum check_state { CHECK_RUNNING, CHECK_FAILED, CHECK_SKIPPED };

struct check_shared {
	_Atomic int state;
	char text[1000];
	_Atomic int queues;
	int queue[256]; /* to be removed when the row is over */
};

static struct check_shared *check_shared;
static const struct row *check_row;
static int check_keys;

static inline const void *row_arg(void)
{
	return check_row->arg;
}

/* ---- outcomes ---- */

static inline const char *errno_name(int number)
{
	static const struct { int number; const char *name; } known[] = {
		{ 0, "no error" }, { EPERM, "EPERM" }, { ENOENT, "ENOENT" }, { ESRCH, "ESRCH" }, { EINTR, "EINTR" }, { EIO, "EIO" },
		{ E2BIG, "E2BIG" }, { EAGAIN, "EAGAIN" }, { ENOMEM, "ENOMEM" }, { EACCES, "EACCES" }, { EFAULT, "EFAULT" },
		{ EEXIST, "EEXIST" }, { EINVAL, "EINVAL" }, { ENOSPC, "ENOSPC" }, { ENOSYS, "ENOSYS" }, { ENOMSG, "ENOMSG" },
		{ EIDRM, "EIDRM" }, { EMFILE, "EMFILE" }, { ENFILE, "ENFILE" }, { ERANGE, "ERANGE" }, { ENOTSUP, "ENOTSUP" },
	};
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (known[i].number == number)
			return known[i].name;
	return strerror(number);
}

__attribute__((noreturn, format(printf, 3, 4)))
static inline void check_end(enum check_state state, int line, const char *format, ...)
{
	int running = CHECK_RUNNING;
	if (atomic_compare_exchange_strong(&check_shared->state, &running, (int)state)) {
		char *text = check_shared->text;
		size_t size = sizeof check_shared->text;
		int used = state == CHECK_FAILED ? snprintf(text, size, "line %d: ", line) : 0;
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(text + used, size - (size_t)used, format, arguments);
		va_end(arguments);
	}
	/* Others of the row may be waiting for this process: none of them has anything left to prove. */
	if (state == CHECK_FAILED)
		kill(0, SIGKILL);
	_exit(state == CHECK_FAILED ? 1 : 0);
}

#define fail(...) check_end(CHECK_FAILED, __LINE__, __VA_ARGS__)
#define skip(...) check_end(CHECK_SKIPPED, __LINE__, __VA_ARGS__)

/* The call fails with exactly this errno. */
#define expect_errno(want, call) check_errno(__LINE__, #call, (want), (errno = 0, (long)(call)))
static inline void check_errno(int line, const char *what, int want, long got)
{
	int error = errno;
	if (got != -1)
		check_end(CHECK_FAILED, line, "%s: expected -1 %s, came %ld", what, errno_name(want), got);
	if (error != want)
		check_end(CHECK_FAILED, line, "%s: expected -1 %s, came -1 %s", what, errno_name(want), errno_name(error));
}

/* The expression has this value; a call that succeeds leaves errno alone. */
#define CHECK_ERRNO_MARK 4242
#define expect_int(want, call) check_int(__LINE__, #call, (long)(want), (errno = CHECK_ERRNO_MARK, (long)(call)))
static inline void check_int(int line, const char *what, long want, long got)
{
	int error = errno;
	if (got != want && got == -1 && error != CHECK_ERRNO_MARK)
		check_end(CHECK_FAILED, line, "%s: expected %ld, came -1 %s", what, want, errno_name(error));
	if (got != want)
		check_end(CHECK_FAILED, line, "%s: expected %ld, came %ld", what, want, got);
	if (error != CHECK_ERRNO_MARK && want != -1)
		check_end(CHECK_FAILED, line, "%s: succeeded but set errno to %s", what, errno_name(error));
}

/* The call succeeds; its value is handed on. */
#define must(call) check_must(__LINE__, #call, (long)(call))
static inline long check_must(int line, const char *what, long got)
{
	if (got == -1)
		check_end(CHECK_FAILED, line, "%s: expected success, came -1 %s", what, errno_name(errno));
	return got;
}

#define expect_true(condition) \
	do { if (!(condition)) fail("expected %s, came the contrary", #condition); } while (0)

/* ---- resources of a row ---- */

static inline int remember_queue(int id)
{
	int n = atomic_fetch_add(&check_shared->queues, 1);
	if (n < (int)(sizeof check_shared->queue / sizeof check_shared->queue[0]))
		check_shared->queue[n] = id;
	return id;
}

#define new_queue(mode) remember_queue((int)must(msgget(IPC_PRIVATE, IPC_CREAT | (mode))))
#define new_keyed_queue(key, mode) remember_queue((int)must(msgget(key, IPC_CREAT | IPC_EXCL | (mode))))

/* A key nobody else uses: process ids are unique while the row runs. */
static inline key_t new_key(void)
{
	return (key_t)(0x40000000 | (getpid() & 0x3fffff) << 8 | (check_keys++ & 0xff));
}

/* Memory that forked children share with the row. */
static inline void *shared_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return p;
}

/* ---- messages ---- */

/* A text that tells its own number: wrong, torn and mixed texts show. */
static inline void fill_text(unsigned char *text, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		text[i] = (unsigned char)(seed * 131u + i * 7u + (i >> 8));
}

static inline int text_is(const unsigned char *text, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] != (unsigned char)(seed * 131u + i * 7u + (i >> 8)))
			return 0;
	return 1;
}

static inline int put(int id, long type, size_t length, unsigned seed, int flags)
{
	struct msg m;
	m.type = type;
	fill_text(m.text, length, seed);
	return msgsnd(id, &m, length, flags);
}

/* A one-byte message, cheap on the stack. */
static inline int put_byte(int id, long type, int byte, int flags)
{
	struct { long type; char text[8]; } m = { type, { (char)byte } };
	return msgsnd(id, &m, 1, flags);
}

/* Receive one byte and return it; -1 as msgrcv does; -2 when the length is wrong. */
static inline int get_byte(int id, long type, int flags)
{
	struct { long type; char text[8]; } m;
	ssize_t n = msgrcv(id, &m, 1, type, flags);
	return n == 1 ? m.text[0] : n == -1 ? -1 : -2;
}

#define status_of(id) check_status(__LINE__, id)
static inline struct msqid_ds check_status(int line, int id)
{
	struct msqid_ds s;
	memset(&s, 0xee, sizeof s);
	if (msgctl(id, IPC_STAT, &s) != 0)
		check_end(CHECK_FAILED, line, "IPC_STAT: expected success, came -1 %s", errno_name(errno));
	return s;
}

/* Field by field: assigning a structure need not copy what lies between its members. */
#define expect_same_status(a, b) check_same_status(__LINE__, &(a), &(b))
static inline void check_same_status(int line, const struct msqid_ds *a, const struct msqid_ds *b)
{
#define CHECK_SAME(member) \
	if (a->member != b->member) \
		check_end(CHECK_FAILED, line, "%s: expected to stay %lld, came %lld", #member, (long long)a->member, (long long)b->member)
	CHECK_SAME(msg_perm.__key);
	CHECK_SAME(msg_perm.uid);
	CHECK_SAME(msg_perm.gid);
	CHECK_SAME(msg_perm.cuid);
	CHECK_SAME(msg_perm.cgid);
	CHECK_SAME(msg_perm.mode);
	CHECK_SAME(msg_perm.__seq);
	CHECK_SAME(msg_stime);
	CHECK_SAME(msg_rtime);
	CHECK_SAME(msg_ctime);
	CHECK_SAME(msg_cbytes);
	CHECK_SAME(msg_qnum);
	CHECK_SAME(msg_qbytes);
	CHECK_SAME(msg_lspid);
	CHECK_SAME(msg_lrpid);
#undef CHECK_SAME
}

#define set_qbytes(id, bytes) check_set_qbytes(__LINE__, id, bytes)
static inline void check_set_qbytes(int line, int id, unsigned long bytes)
{
	struct msqid_ds s = check_status(line, id);
	s.msg_qbytes = bytes;
	if (msgctl(id, IPC_SET, &s) != 0)
		check_end(CHECK_FAILED, line, "IPC_SET qbytes %lu: expected success, came -1 %s", bytes, errno_name(errno));
}

/* ---- processes ---- */

static inline void nap(long microseconds)
{
	struct timespec t = { microseconds / 1000000, microseconds % 1000000 * 1000 };
	nanosleep(&t, NULL);
}

static inline pid_t thread_id(void)
{
	return gettid();
}

#define wait_state(pid, letter) check_wait_state(__LINE__, pid, letter)
static inline void check_wait_state(int line, pid_t pid, char letter)
{
	char now = 0;
	for (int i = 0; i < 25000; i++) {
		now = state_of(pid);
		if (now == letter)
			return;
		if (now == 0 || now == 'Z')
			break;
		nap(200);
	}
	check_end(CHECK_FAILED, line, "process expected in state %c, came %s%c", letter, now ? "" : "none", now ? now : ' ');
}

/* Wait until a process (or thread, by its own id) sleeps in its call. */
#define wait_blocked(pid) wait_state(pid, 'S')

static inline pid_t check_fork(int line)
{
	pid_t pid = fork();
	if (pid < 0)
		check_end(CHECK_FAILED, line, "fork: %s", strerror(errno));
	return pid;
}
#define fork_child() check_fork(__LINE__)

/* The child ends with status 0. */
#define join(pid) check_join(__LINE__, pid, 0)
#define join_status(pid, status) check_join(__LINE__, pid, status)
static inline void check_join(int line, pid_t pid, int want)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			check_end(CHECK_FAILED, line, "waitpid: %s", strerror(errno));
	if (WIFSIGNALED(status))
		check_end(CHECK_FAILED, line, "child expected to exit with %d, came signal %d", want, WTERMSIG(status));
	if (WEXITSTATUS(status) != want)
		check_end(CHECK_FAILED, line, "child expected to exit with %d, came %d", want, WEXITSTATUS(status));
}

/* Become another user for good; the row (or child) must be root. */
static inline void become(uid_t uid, gid_t gid)
{
	if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		fail("becoming user %u: %s", (unsigned)uid, strerror(errno));
}

/* Whether the effective capability set holds this capability. */
static inline int has_capability(int number)
{
	char line[256];
	unsigned long long set = 0;
	FILE *f = fopen("/proc/thread-self/status", "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "CapEff: %llx", &set) == 1)
			break;
	fclose(f);
	return (int)(set >> number & 1);
}

/* What a call made by a forked child came to. */
struct result {
	_Atomic int done;
	long value;
	int error;
	long type;
	pid_t thread;
	_Atomic int signals;
	unsigned char text[64];
};

static inline pid_t check_start_receiver(int line, struct result *r, uid_t uid, int id, size_t size, long type, int flags)
{
	memset(r, 0, sizeof *r);
	pid_t pid = check_fork(line);
	if (pid == 0) {
		struct msg m;
		if (uid)
			become(uid, uid);
		r->thread = thread_id();
		r->value = msgrcv(id, &m, size, type, flags);
		r->error = errno;
		if (r->value >= 0) {
			r->type = m.type;
			memcpy(r->text, m.text, (size_t)r->value < sizeof r->text ? (size_t)r->value : sizeof r->text);
		}
		r->done = 1;
		_exit(0);
	}
	check_wait_state(line, pid, 'S');
	return pid;
}

static inline pid_t check_start_sender(int line, struct result *r, uid_t uid, int id, size_t size, long type)
{
	memset(r, 0, sizeof *r);
	pid_t pid = check_fork(line);
	if (pid == 0) {
		if (uid)
			become(uid, uid);
		r->thread = thread_id();
		r->value = put(id, type, size, (unsigned)type, 0);
		r->error = errno;
		r->done = 1;
		_exit(0);
	}
	check_wait_state(line, pid, 'S');
	return pid;
}

/* Start a child that blocks in msgrcv or msgsnd, and return once it sleeps there. */
#define blocked_receiver(r, id, size, type, flags) check_start_receiver(__LINE__, r, 0, id, size, type, flags)
#define blocked_receiver_as(uid, r, id, size, type, flags) check_start_receiver(__LINE__, r, uid, id, size, type, flags)
#define blocked_sender(r, id, size, type) check_start_sender(__LINE__, r, 0, id, size, type)
#define blocked_sender_as(uid, r, id, size, type) check_start_sender(__LINE__, r, uid, id, size, type)

#define expect_result(r, want, want_error) check_result(__LINE__, r, want, want_error)
static inline void check_result(int line, const struct result *r, long want, int want_error)
{
	if (r->value != want)
		check_end(CHECK_FAILED, line, "blocked call: expected %ld %s, came %ld %s", want, want == -1 ? errno_name(want_error) : "",
			r->value, r->value == -1 ? errno_name(r->error) : "");
	if (want == -1 && r->error != want_error)
		check_end(CHECK_FAILED, line, "blocked call: expected -1 %s, came -1 %s", errno_name(want_error), errno_name(r->error));
}

/* ---- running a suite ---- */

static volatile sig_atomic_t check_late;
static inline void check_alarm(int signal)
{
	(void)signal;
	check_late = 1;
}

static inline int check_file_holds(const char *path, const char *word)
{
	char line[1024];
	int found = 0;
	FILE *f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof line, f))
		found = strstr(line, word) != NULL;
	if (f)
		fclose(f);
	return found;
}

/* A lane that does not run what its name says proves nothing. */
static inline const char *check_lane(void)
{
	const char *lane = getenv("CHECK_LANE");
	const char *denied = getenv("CHECK_NOSYSV");
	if (!lane)
		return NULL;
	int mapped = check_file_holds("/proc/self/maps", "libusysv");
	if (!strcmp(lane, "native") && mapped)
		return "libusysv is mapped into the native lane";
	if (strcmp(lane, "native") && !mapped)
		return "libusysv is not mapped into this process";
	if (denied && !strcmp(denied, "1") && !check_file_holds("/proc/self/status", "Seccomp:\t2"))
		return "no seccomp filter is in force";
	printf("# lane %s: libusysv %smapped, %sseccomp filter\n", lane, mapped ? "" : "not ",
		check_file_holds("/proc/self/status", "Seccomp:\t2") ? "" : "no ");
	return NULL;
}

static inline int check_wait_late(pid_t pid, int *status)
{
	while (waitpid(pid, status, 0) < 0)
		if (check_late)
			return 1;
	return 0;
}

/* Remove the queues of a row, in a child: the parent stays untouched. */
static inline void check_clear(void)
{
	int n = check_shared->queues;
	if (n == 0)
		return;
	pid_t pid = fork();
	if (pid == 0) {
		alarm(10);
		for (int i = 0; i < n && i < (int)(sizeof check_shared->queue / sizeof check_shared->queue[0]); i++)
			msgctl(check_shared->queue[i], IPC_RMID, NULL);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static inline enum check_state check_run(const struct row *row)
{
	int status = 0;
	unsigned seconds = row->seconds ? row->seconds : ROW_SECONDS;

	memset(check_shared, 0, sizeof *check_shared);
	check_row = row;
	check_keys = 0;
	if (row->user != AS_STARTED && geteuid() != 0) {
		printf("skipped %s: needs root\n", row->name);
		return CHECK_SKIPPED;
	}
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		signal(SIGALRM, SIG_DFL);
		if (row->user == AS_NOBODY)
			become(NOBODY, NOBODY);
		row->run();
		_exit(0);
	}
	setpgid(pid, pid);
	check_late = 0;
	alarm(seconds);
	int late = check_wait_late(pid, &status);
	alarm(0);
	kill(-pid, SIGKILL);
	if (late)
		waitpid(pid, &status, 0);
	check_clear();

	if (check_shared->state == CHECK_FAILED)
		printf("FAIL %s: %s%s\n", row->name, check_shared->text, late ? " (and it hung)" : "");
	else if (late)
		printf("FAIL %s: expected an end within %u s, came none\n", row->name, seconds);
	else if (WIFSIGNALED(status))
		printf("FAIL %s: expected a normal end, came signal %d (%s)\n", row->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != 0)
		printf("FAIL %s: expected exit status 0, came %d\n", row->name, WEXITSTATUS(status));
	else if (check_shared->state == CHECK_SKIPPED)
		printf("skipped %s: %s\n", row->name, check_shared->text);
	else {
		printf("ok %s\n", row->name);
		return CHECK_RUNNING;
	}
	return check_shared->state == CHECK_SKIPPED && !late ? CHECK_SKIPPED : CHECK_FAILED;
}

static inline int check_suite(const char *suite, const struct row *rows, size_t count, int argc, char **argv)
{
	int passed = 0, failed = 0, skipped = 0;
	struct sigaction act = { .sa_handler = check_alarm };
	const char *problem;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (size_t i = 0; i < count; i++)
			puts(rows[i].name);
		return 0;
	}
	problem = check_lane();

	sigaction(SIGALRM, &act, NULL);
	check_shared = mmap(NULL, sizeof *check_shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (check_shared == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (problem) {
		printf("FAIL lane: %s\n%s: 0 passed, 1 failed, 0 skipped\n", problem, suite);
		return 1;
	}
	for (size_t i = 0; i < count; i++) {
		int wanted = argc < 2;
		for (int a = 1; a < argc; a++)
			wanted |= !strcmp(argv[a], rows[i].name);
		if (!wanted)
			continue;
		switch (check_run(&rows[i])) {
		case CHECK_RUNNING: passed++; break;
		case CHECK_FAILED: failed++; break;
		case CHECK_SKIPPED: skipped++; break;
		}
	}
	if (passed + failed + skipped == 0)
		printf("FAIL %s: no row ran\n", suite);
	printf("%s: %d passed, %d failed, %d skipped\n", suite, passed, failed, skipped);
	return passed == 0 || failed != 0;
}

#define CHECK_MAIN(suite, rows) \
	int main(int argc, char **argv) \
	{ \
		return check_suite(suite, rows, sizeof rows / sizeof rows[0], argc, argv); \
	}

#endif
