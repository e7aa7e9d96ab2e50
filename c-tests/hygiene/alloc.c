/*
 * alloc.c: no memory allocation on the way of a message.
 *
 * The program defines malloc and its family itself (every library in the process then uses these, ours included) and counts
 * the calls while a section is being watched. Checked, for a queue that has been used once in the process:
 *   sends and receives of all sizes; the queue filled to the brim and emptied; typed receives (exact, lowest, except) behind
 *   16000 other messages; IPC_STAT, IPC_SET, msgget of an existing key; failing calls; sends and receives in a signal handler
 *   that interrupted malloc; the first use of the queue in a second thread (its thread-local state) and in a forked child.
 * The number of allocations during the very first use is printed, and a handler that makes the first use of a queue while
 * malloc is interrupted is checked as well: there an allocation can deadlock.
 *   fresh-mappings: after the queue has once been full, no send or receive maps or unmaps memory (lines of /proc/self/maps).
 */
#include "hygiene.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static _Thread_local volatile int watched;
static atomic_long allocations, total;
static atomic_int seen_kind;
static const char *const kinds[] = { "none", "malloc", "calloc", "realloc", "memalign", "free" };

static void seen(int kind)
{
	atomic_fetch_add(&total, 1);
	if (watched && atomic_fetch_add(&allocations, 1) == 0)
		atomic_store(&seen_kind, kind);
}

void *malloc(size_t n)
{
	seen(1);
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	seen(2);
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	seen(3);
	return __libc_realloc(p, n);
}

void *memalign(size_t alignment, size_t n)
{
	seen(4);
	return __libc_memalign(alignment, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
	seen(4);
	return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n)
{
	seen(4);
	*p = __libc_memalign(alignment, n);
	return *p ? 0 : ENOMEM;
}

void free(void *p)
{
	if (p)
		seen(5);
	__libc_free(p);
}

static int id;
static key_t key;
static struct hy_message m;
static long errors;

static void expect(bool good)
{
	if (!good)
		errors++;
}

static void begin(void)
{
	atomic_store(&allocations, 0);
	atomic_store(&seen_kind, 0);
	errors = 0;
	watched = 1;
}

static void end(const char *name)
{
	watched = 0;
	long n = atomic_load(&allocations);
	if (errors)
		hy_check(false, name, "%ld calls went wrong", errors);
	else
		hy_check(n == 0, name, "%ld allocations, the first by %s", n, kinds[atomic_load(&seen_kind)]);
}

static void send(long type, size_t len)
{
	m.mtype = type;
	expect(msgsnd(id, &m, len, IPC_NOWAIT) == 0);
}

static void receive(long type, int flags, ssize_t len)
{
	expect(msgrcv(id, &m, sizeof m.mtext, type, flags | IPC_NOWAIT) == len);
}

static void fill(void)
{
	m.mtype = 1;
	while (msgsnd(id, &m, 1, IPC_NOWAIT) == 0)
		;
	expect(errno == EAGAIN);
	while (msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
		;
	expect(errno == ENOMSG);
	static const size_t sizes[] = { 0, 73, 200, 1024, 4000, 8192 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		while (msgsnd(id, &m, sizes[i], IPC_NOWAIT) == 0)
			;
		while (msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
			;
	}
}

/* Takes typed messages from behind many others. */
static void typed(void)
{
	int behind = 16000;
	for (int i = 0; i < behind; i++)
		send(1000 + i % 500, 1);
	for (int i = 0; i < 20; i++) {
		send(7, 3);
		receive(7, 0, 3);
		send(8, 2);
		receive(-9, 0, 2);
		receive(1000, MSG_EXCEPT, 1);
		receive(1000 + i, 0, 1);
		receive(LONG_MIN, 0, 1);
		behind -= 3;
	}
	for (int i = 0; i < behind; i++)
		receive(i % 2 ? 0 : -LONG_MAX, 0, 1);
}

static void *thread(void *unused)
{
	(void)unused;
	watched = 1;
	send(3, 30);
	receive(3, 0, 30);
	receive(0, 0, -1);
	watched = 0;
	return NULL;
}

static volatile int handler_id;
static void handler(int sig)
{
	struct hy_small {
		long mtype;
		char mtext[8];
	} small = { 5, "abc" };
	(void)sig;
	watched = 1;
	expect(msgsnd(handler_id, &small, 3, IPC_NOWAIT) == 0);
	expect(msgrcv(handler_id, &small, sizeof small.mtext, 5, IPC_NOWAIT) == 3);
	watched = 0;
}

static int child_with_queue(int queue)
{
	int status = -1;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		id = queue;
		begin();
		send(2, 20);
		receive(2, 0, 20);
		watched = 0;
		_exit(errors ? 101 : atomic_load(&allocations) > 100 ? 100 : (int)atomic_load(&allocations));
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 102;
}

int main(void)
{
	struct msqid_ds ds;

	hy_begin("alloc", 120);
	long t = atomic_load(&total);
	void *volatile p = strdup("interposed");
	hy_check(atomic_load(&total) > t, "counter", "malloc is not interposed");
	free(p);

	key = (key_t)(0x56000000 + (getpid() & 0xffffff));
	watched = 1;
	id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	watched = 0;
	hy_need(id >= 0, "msgget");
	long create = atomic_load(&allocations);
	begin();
	send(1, 10);
	receive(0, 0, 10);
	watched = 0;
	printf("note: %ld allocations while the queue was created, %ld during its first use\n", create, atomic_load(&allocations));

	begin();
	for (int i = 0; i < 2000; i++) {
		static const size_t sizes[] = { 0, 1, 64, 72, 73, 500, 1024, 4096, 8192 };
		size_t n = sizes[i % 9];
		send(1 + i % 4, n);
		receive(0, 0, (ssize_t)n);
	}
	end("send-receive");
	begin();
	fill();
	end("fill");
	begin();
	typed();
	end("typed");
	long maps = hy_lines("/proc/self/maps");
	begin();
	fill();
	typed();
	end("again");
	long maps_after = hy_lines("/proc/self/maps");
	hy_check(maps_after <= maps, "fresh-mappings", "%ld mappings became %ld", maps, maps_after);
	begin();
	for (int i = 0; i < 100; i++) {
		expect(msgctl(id, IPC_STAT, &ds) == 0);
		expect(msgctl(id, IPC_SET, &ds) == 0);
		expect(msgget(key, 0) == id);
	}
	end("stat-set-get");
	begin();
	for (int i = 0; i < 100; i++) {
		receive(0, 0, -1);
		receive(5, 0, -1);
		receive(-5, 0, -1);
		expect(msgsnd(id, &m, 100000, 0) == -1);
		expect(msgsnd(id, NULL, 1, 0) == -1 && errno == EFAULT);
		expect(msgrcv(id + 1000000, &m, 1, 0, 0) == -1);
	}
	end("failing");

	begin();
	watched = 0;
	signal(SIGUSR1, handler);
	handler_id = id;
	raise(SIGUSR1);
	end("handler");

	pthread_t th;
	begin();
	watched = 0;
	hy_need(pthread_create(&th, NULL, thread, NULL) == 0, "pthread_create");
	pthread_join(th, NULL);
	end("second-thread");

	int n = child_with_queue(id);
	hy_check(n == 0, "child", n > 100 ? "calls went wrong (%d)" : "%d allocations", n);

	/* A queue this process has never used, first by a handler; another process made it. */
	int pipe_fd[2], fresh = -1;
	hy_need(pipe(pipe_fd) == 0, "pipe");
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		fresh = msgget(IPC_PRIVATE, 0600);
		_exit(write(pipe_fd[1], &fresh, sizeof fresh) != sizeof fresh);
	}
	waitpid(pid, NULL, 0);
	hy_need(read(pipe_fd[0], &fresh, sizeof fresh) == sizeof fresh && fresh >= 0, "queue of another process");
	begin();
	watched = 0;
	handler_id = fresh;
	raise(SIGUSR1);
	end("handler-first-use");

	begin();
	expect(msgctl(id, IPC_RMID, NULL) == 0);
	expect(msgctl(fresh, IPC_RMID, NULL) == 0);
	expect(msgctl(fresh, IPC_RMID, NULL) == -1);
	end("remove");
	return hy_end();
}
