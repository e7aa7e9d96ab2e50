/*
 * syscalls.c: no system call in an uncontended operation. To be run by tools/count_syscalls, which counts between markers.
 *
 * On our queues each section may make none: 1000 pairs of msgsnd and msgrcv of 1, 64, 1024 and 8192 bytes, by head, exact type,
 * lowest type, all but one type; the same with 100 other messages ahead; empty messages; IPC_STAT; msgget of an existing key; msgrcv that finds nothing;
 * msgsnd that finds no room; in a second queue in turn; in a handler; in a second thread and in a child after their first use;
 * msgget and pairs in a process that found the queue by its key and did not create it. A first use, and creating and
 * removing, may make so many calls and no more.
 * On the kernel's queues the sections are skipped, but for one that shows that the counter counts.
 */
#include "hygiene.h"
#include "marker.h"

#include <pthread.h>
#include <sys/wait.h>

enum { PAIRS = 1000, CREATED = 100 };
/* A page of the caller's memory is trusted after it was found good so often (at most 100 times; EFAULT needs that). */
enum { EARNED = 100 };

static int id, second;
static key_t key;
static bool ours;
static long wrong;
static char wrong_in[64];
static struct hy_message m;

static bool section(const char *name, long most)
{
	if (!ours && most >= 0) {
		marker(MARKER_SKIP, 0, name);
		return false;
	}
	marker(MARKER_BEGIN, most, name);
	return true;
}

static void done(const char *name)
{
	marker(MARKER_END, 0, name);
	if (wrong && !wrong_in[0])
		snprintf(wrong_in, sizeof wrong_in, "%s", name);
}

static void pairs(int queue, size_t len, long type, int flags, int n)
{
	for (int i = 0; i < n; i++) {
		m.mtype = 5;
		wrong += msgsnd(queue, &m, len, i % 2 ? IPC_NOWAIT : 0) != 0;
		wrong += msgrcv(queue, &m, sizeof m.mtext, type, flags | (i % 2 ? IPC_NOWAIT : 0)) != (ssize_t)len;
	}
}

static void all_pairs(const char *prefix)
{
	static const size_t sizes[] = { 0, 1, 64, 1024, 8192 };
	static const struct {
		const char *name;
		long type;
		int flags;
	} ways[] = { { "head", 0, 0 }, { "exact", 5, 0 }, { "lowest", -6, 0 }, { "except", 9, MSG_EXCEPT } };
	char name[64];

	for (size_t w = 0; w < 4; w++) {
		for (size_t s = 0; s < 5; s++) {
			snprintf(name, sizeof name, "%s-%s-%zu", prefix, ways[w].name, sizes[s]);
			if (section(name, 0)) {
				pairs(id, sizes[s], ways[w].type, ways[w].flags, PAIRS);
				done(name);
			}
		}
	}
}

static void in_handler(int sig)
{
	(void)sig;
	pairs(id, 64, 0, 0, 1);
}

static void *in_thread(void *unused)
{
	(void)unused;
	pairs(id, 64, 0, 0, 1);
	if (section("second-thread", 0)) {
		pairs(id, 64, 0, 0, PAIRS);
		done("second-thread");
	}
	return NULL;
}

/* A process that was there before the queue, and finds it by its key; `told` says when, and which. */
static int find(int told)
{
	if (read(told, &key, sizeof key) != sizeof key)
		return 1;
	usleep(20000); /* until the creator waits: its system calls would be counted as well */
	if (section("first-use", 30)) {
		id = msgget(key, 0);
		pairs(id, 64, 0, 0, 1);
		done("first-use");
	} else {
		id = msgget(key, 0);
	}
	if (section("get-found", 0)) {
		for (int i = 0; i < PAIRS; i++)
			wrong += msgget(key, 0) != id || msgget(key, IPC_CREAT | 0600) != id;
		done("get-found");
	}
	pairs(id, 64, 0, 0, EARNED);
	if (section("pairs-found", 0)) {
		pairs(id, 64, 0, 0, PAIRS);
		done("pairs-found");
	}
	return wrong != 0;
}

int main(void)
{
	struct msqid_ds ds;
	int told[2];

	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	ours = hy_ours();
	const char *expect = getenv("USYSV_EXPECT");
	if (expect && strcmp(expect, "preload") == 0 && !ours) {
		printf("syscalls: the library is not loaded\n");
		return 1;
	}
	/* Before anything is attached: a child would inherit that. */
	pid_t finder = pipe(told) == 0 ? fork() : -1;
	if (finder < 0) {
		perror("fork");
		return 1;
	}
	if (finder == 0)
		_exit(find(told[0]));
	key = (key_t)(0x59000000 + (getpid() & 0xffffff));
	id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	second = msgget(IPC_PRIVATE, 0600);
	if (id < 0 || second < 0) {
		perror("msgget");
		return 1;
	}
	pairs(id, 8192, 5, 0, 2);
	pairs(second, 8192, 5, 0, 2);
	/* Once to the brim, so that no page is new. */
	m.mtype = 1;
	while (msgsnd(id, &m, 1, IPC_NOWAIT) == 0)
		;
	while (msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
		;
	pairs(id, 8192, 5, 0, EARNED);
	for (int i = 0; i < 100; i++)
		wrong += msgctl(id, IPC_STAT, &ds) != 0;

	if (!ours && section("counter", -2 * PAIRS)) {
		pairs(id, 1, 0, 0, PAIRS);
		done("counter");
	}
	all_pairs("empty");
	for (int i = 0; i < 100; i++) {
		m.mtype = 9;
		wrong += msgsnd(id, &m, 50, IPC_NOWAIT) != 0;
	}
	if (section("behind-100-exact", 0)) {
		pairs(id, 64, 5, 0, PAIRS);
		done("behind-100-exact");
	}
	if (section("behind-100-lowest", 0)) {
		pairs(id, 64, -7, 0, PAIRS);
		done("behind-100-lowest");
	}
	if (section("behind-100-except", 0)) {
		pairs(id, 64, 9, MSG_EXCEPT, PAIRS);
		done("behind-100-except");
	}
	while (msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
		;
	if (section("stat", 0)) {
		for (int i = 0; i < PAIRS; i++)
			wrong += msgctl(id, IPC_STAT, &ds) != 0;
		done("stat");
	}
	if (section("get-existing", 0)) {
		for (int i = 0; i < PAIRS; i++)
			wrong += msgget(key, 0) != id || msgget(key, IPC_CREAT | 0600) != id;
		done("get-existing");
	}
	if (section("nothing-there", 0)) {
		for (int i = 0; i < PAIRS; i++)
			wrong += msgrcv(id, &m, sizeof m.mtext, i % 3 - 1, IPC_NOWAIT) != -1 || errno != ENOMSG;
		done("nothing-there");
	}
	while (msgsnd(id, &m, 8000, IPC_NOWAIT) == 0)
		;
	if (section("no-room", 0)) {
		for (int i = 0; i < PAIRS; i++)
			wrong += msgsnd(id, &m, 8000, IPC_NOWAIT) != -1 || errno != EAGAIN;
		done("no-room");
	}
	while (msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
		;
	if (section("stream", 0)) {
		for (int i = 0; i < PAIRS / 20; i++) {
			m.mtype = 3;
			for (int k = 0; k < 20; k++)
				wrong += msgsnd(id, &m, 300, 0) != 0;
			for (int k = 0; k < 20; k++)
				wrong += msgrcv(id, &m, sizeof m.mtext, 0, 0) != 300;
		}
		done("stream");
	}
	if (section("two-queues", 0)) {
		for (int i = 0; i < PAIRS; i++)
			pairs(i % 2 ? id : second, 64, 0, 0, 1);
		done("two-queues");
	}
	/* kill and the return from the handler are system calls; the calls inside must not add any. */
	pid_t self = getpid();
	signal(SIGUSR1, in_handler);
	kill(self, SIGUSR1);
	if (section("handler", 2 * 100)) {
		for (int i = 0; i < 100; i++)
			kill(self, SIGUSR1);
		done("handler");
	}
	pthread_t th;
	if (pthread_create(&th, NULL, in_thread, NULL) == 0)
		pthread_join(th, NULL);
	int status = -1;
	if (write(told[1], &key, sizeof key) != sizeof key || waitpid(finder, &status, 0) != finder || status != 0) {
		printf("syscalls: the process that found the queue ended with status %#x\n", (unsigned)status);
		wrong++;
	}
	if (section("create-remove", 48L * CREATED)) {
		for (int i = 0; i < CREATED; i++)
			wrong += msgctl(msgget(IPC_PRIVATE, 0600), IPC_RMID, NULL) != 0;
		done("create-remove");
	}
	pid_t pid = fork();
	status = -1;
	if (pid == 0) {
		pairs(id, 64, 0, 0, 1);
		if (section("child", 0)) {
			pairs(id, 64, 0, 0, PAIRS);
			done("child");
		}
		_exit(wrong != 0);
	}
	waitpid(pid, &status, 0);
	if (msgctl(id, IPC_RMID, NULL) != 0 || msgctl(second, IPC_RMID, NULL) != 0)
		wrong++;
	if (wrong || status)
		printf("syscalls: %ld calls went wrong, first in %s; the child's status is %#x\n", wrong, wrong_in[0] ? wrong_in : "?",
		       (unsigned)status);
	return wrong != 0 || status != 0;
}
