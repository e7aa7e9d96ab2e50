/*
 * party.c: one party to a conversation between containers. Knows nothing of the library: plain <sys/msg.h>.
 *
 *   party where [SECONDS]       its namespaces and its process id; stays so long
 *   party create KEY MODE       makes the queue
 *   party send KEY TEXT         sends without waiting
 *   party recv KEY              receives, and waits for it
 *   party take KEY              receives without waiting
 *   party look KEY              number of messages, owner, mode
 *   party remove KEY
 *   party busy KEY              sends to itself and receives, for ever, as fast as it can; says when it begins
 *   party rounds KEY N          the same N times, and says what the longest round took
 *   party fill                  a queue of its own: sends 8 KiB messages until that fails, says how, drains it, tries again
 *
 * An error is printed by its name and ends the program with status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct message {
	long type;
	char text[8192];
};
static struct message m = { .type = 1 };

static void fail(const char *call)
{
	printf("%s: %s\n", call, strerrorname_np(errno));
	exit(1);
}

static int find(const char *key)
{
	int id = msgget((key_t)strtoul(key, NULL, 0), 0);
	if (id == -1)
		fail("msgget");
	return id;
}

static void where(void)
{
	static const char *const kinds[] = { "user", "pid", "mnt", "ipc" };
	char path[64], link[64];

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
		ssize_t n = readlink(path, link, sizeof link - 1);
		if (n < 0)
			fail(path);
		printf("%.*s\n", (int)n, link);
	}
	printf("process %d\n", (int)getpid());
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* One message of one's own types, so that nobody else's receive takes it. What a party that was killed left behind may come
 * instead of one's own, so the type says everything. */
static void go_round(int id, long type)
{
	size_t size = (size_t)(type % 5) * 40;
	struct message out = { .type = type }, in = { 0 };
	memset(out.text, (int)(type % 251), size);
	if (msgsnd(id, &out, size, 0) == -1)
		fail("msgsnd");
	if (msgrcv(id, &in, sizeof in.text, type, 0) != (ssize_t)size || memcmp(in.text, out.text, size) != 0)
		fail("msgrcv");
}

static void fill(void)
{
	int id = msgget(IPC_PRIVATE, 0600);
	struct msqid_ds ds;

	if (id == -1 || msgctl(id, IPC_STAT, &ds) == -1)
		fail("msgget");
	ds.msg_qbytes = 64 << 20;
	if (msgctl(id, IPC_SET, &ds) == -1)
		fail("IPC_SET");
	int before = -1;
	for (int round = 0; round < 3; round++) {
		int n = 0;
		while (msgsnd(id, &m, sizeof m.text, IPC_NOWAIT) == 0)
			n++;
		if (errno != ENOMEM)
			fail("msgsnd");
		/* Space given back by one round serves the next. */
		if (n < 8 || (before != -1 && n != before)) {
			printf("round %d: %d messages, before %d\n", round, n, before);
			exit(1);
		}
		before = n;
		while (n > 0 && msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT) == sizeof m.text)
			n--;
		if (n != 0)
			fail("msgrcv");
	}
	if (msgctl(id, IPC_RMID, NULL) == -1)
		fail("IPC_RMID");
	puts("full: ENOMEM, three times the same");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct msqid_ds ds;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (strcmp(what, "where") == 0) {
		where();
		sleep(argc > 2 ? (unsigned)atoi(argv[2]) : 0);
	} else if (strcmp(what, "fill") == 0) {
		fill();
	} else if (argc < 3) {
		return 2;
	} else if (strcmp(what, "create") == 0) {
		int mode = (int)strtol(argc > 3 ? argv[3] : "0600", NULL, 8);
		if (msgget((key_t)strtoul(argv[2], NULL, 0), IPC_CREAT | IPC_EXCL | mode) == -1)
			fail("msgget");
	} else if (strcmp(what, "send") == 0) {
		const char *text = argc > 3 ? argv[3] : "";
		size_t length = strnlen(text, sizeof m.text);
		memcpy(m.text, text, length);
		if (msgsnd(find(argv[2]), &m, length, IPC_NOWAIT) == -1)
			fail("msgsnd");
	} else if (strcmp(what, "recv") == 0 || strcmp(what, "take") == 0) {
		ssize_t n = msgrcv(find(argv[2]), &m, sizeof m.text, 0, *what == 't' ? IPC_NOWAIT : 0);
		if (n < 0)
			fail("msgrcv");
		printf("%.*s\n", (int)n, m.text);
	} else if (strcmp(what, "look") == 0) {
		if (msgctl(find(argv[2]), IPC_STAT, &ds) == -1)
			fail("IPC_STAT");
		printf("%lu messages, mode %o\n", ds.msg_qnum, (unsigned)ds.msg_perm.mode);
	} else if (strcmp(what, "remove") == 0) {
		if (msgctl(find(argv[2]), IPC_RMID, NULL) == -1)
			fail("IPC_RMID");
	} else if (strcmp(what, "busy") == 0) {
		int id = find(argv[2]);
		for (long i = 0;; i++) {
			go_round(id, 1000 + i % 7);
			if (i == 0)
				puts("busy");
		}
	} else if (strcmp(what, "rounds") == 0) {
		int id = find(argv[2]), n = argc > 3 ? atoi(argv[3]) : 1;
		double longest = 0;
		for (int i = 0; i < n; i++) {
			double begin = seconds();
			go_round(id, 500 + i % 7);
			double took = seconds() - begin;
			longest = took > longest ? took : longest;
		}
		printf("%s\n", longest < 1 ? "all within a second" : "one took longer than a second");
	} else {
		return 2;
	}
	return 0;
}
