/*
 * sysv.c: System V message queues as a transport, and what only they can do: plain C against <sys/msg.h>. The same program
 * measures the kernel, and us when preloaded.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <dirent.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int *ids, queues;
static struct {
	long type;
	char text[8192];
} message = { .type = 1, .text = "" };

int transport_make(int count, size_t size, int depth, int many)
{
	(void)size, (void)many; /* as the system makes them */
	ids = realloc(ids, (size_t)count * sizeof *ids);
	queues = count;
	for (int i = 0; i < count; i++) {
		ids[i] = msgget(IPC_PRIVATE, 0600);
		must(ids[i] >= 0, "msgget");
	}
	return depth;
}

void transport_join(int queue, int role)
{
	(void)queue, (void)role;
}

/* As a program would: the text is in the message already. */
void transport_send(int queue, const void *text, size_t size)
{
	(void)text;
	must(msgsnd(ids[queue], &message, size, 0) == 0, "msgsnd");
}

void transport_receive(int queue, void *text, size_t room)
{
	(void)text, (void)room;
	must(msgrcv(ids[queue], &message, sizeof message.text, 0, 0) >= 0, "msgrcv");
}

void transport_leave(void) {}

void transport_drop(void)
{
	for (int i = 0; i < queues; i++)
		msgctl(ids[i], IPC_RMID, NULL);
	queues = 0;
}

/* Ours live in files, which tell; the kernel's do not. */
double transport_bytes(void)
{
	const char *path = getenv("USYSV_DIR");
	double bytes = 0;
	DIR *directory = path ? opendir(path) : NULL;
	if (directory == NULL)
		return -1;
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		struct stat there;
		/* usysv.q.* and usysv.b.*; usysv.ns is there once, and in no queue */
		if (strlen(entry->d_name) > 7 && entry->d_name[7] == '.' && fstatat(dirfd(directory), entry->d_name, &there, 0) == 0)
			bytes += (double)there.st_blocks * 512;
	}
	closedir(directory);
	return bytes;
}

static void put(long type, size_t size)
{
	message.type = type;
	must(msgsnd(ids[0], &message, size, 0) == 0, "msgsnd");
}

static void get(long type, size_t room, int flags)
{
	must(msgrcv(ids[0], &message, room, type, flags) >= 0, "msgrcv");
}

/* ---- receiving behind others: each operation sends one message and receives it, or the oldest ---- */

/* Messages that are there before: of this type, and types that far apart. Then what is sent, and what is asked for. */
struct behind {
	long others, apart, mine;
	size_t size;
	long wanted;
	size_t room;
	int flags;
};

static double behind(long n, struct behind what)
{
	transport_make(1, 0, 0, 0);
	for (long i = 0; i < first_number; i++)
		put(what.others + i * what.apart, 0);
	double start = 0;
	for (long i = -8; i < n; i++) {
		if (i == 0)
			start = now();
		put(what.mine, what.size);
		get(what.wanted, what.room, what.flags);
	}
	double took = now() - start;
	transport_drop();
	return took;
}

static double typed_equal(long n)
{
	return behind(n, (struct behind){ .others = 1000, .mine = 7, .size = 1, .wanted = 7, .room = 64 });
}

static double typed_different(long n)
{
	return behind(n, (struct behind){ .others = 1000, .apart = 1, .mine = 7, .size = 1, .wanted = 7, .room = 64 });
}

static double typed_lowest(long n)
{
	return behind(n, (struct behind){ .others = 1000, .apart = 1, .mine = 7, .size = 1, .wanted = -100, .room = 64 });
}

static double typed_except(long n)
{
	return behind(n, (struct behind){ .others = 1000, .mine = 7, .size = 1, .wanted = 1000, .room = 64, .flags = MSG_EXCEPT });
}

static double typed_noerror(long n)
{
	return behind(n, (struct behind){ .others = 1000, .mine = 7, .size = 16, .wanted = 7, .room = 4, .flags = MSG_NOERROR });
}

/* First in, first out. */
static double fifo(long n)
{
	return behind(n, (struct behind){ .others = 1, .mine = 1, .room = 64 });
}

/* ---- clients and a server on one queue: requests are of type 1, answers of the client's own ---- */

static void client(int number)
{
	long type = 1 + number;
	meet((int)first_number + 1);
	for (long i = 0; i < operations / first_number; i++) {
		memcpy(message.text, &type, sizeof type);
		put(1, 64);
		get(type, sizeof message.text, 0);
	}
	board->end[number] = now();
}

static void server(int number)
{
	(void)number;
	meet((int)first_number + 1);
	board->start = now();
	for (long i = 0; i < operations; i++) {
		long type;
		get(1, sizeof message.text, 0);
		memcpy(&type, message.text, sizeof type);
		put(type, 64);
	}
}

static double request_reply(long n)
{
	return serve_clients(n, 1, server, client);
}

/* ---- single calls ---- */

static double msgget_existing(long n)
{
	key_t key = (key_t)getpid();
	int id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	must(id >= 0, "msgget");
	double start = now();
	for (long i = 0; i < n; i++)
		must(msgget(key, 0) == id, "msgget");
	double took = now() - start;
	msgctl(id, IPC_RMID, NULL);
	return took;
}

static double nothing(long n)
{
	transport_make(1, 0, 0, 0);
	double start = now();
	for (long i = 0; i < n; i++)
		must(msgrcv(ids[0], &message, 64, 0, IPC_NOWAIT) == -1, "msgrcv");
	double took = now() - start;
	transport_drop();
	return took;
}

static double status(long n)
{
	struct msqid_ds there;
	transport_make(1, 0, 0, 0);
	double start = now();
	for (long i = 0; i < n; i++)
		must(msgctl(ids[0], IPC_STAT, &there) == 0, "IPC_STAT");
	double took = now() - start;
	transport_drop();
	return took;
}

/* ---- new processes ---- */

static void spawn(char **arguments)
{
	pid_t pid;
	int state = 0;
	must(posix_spawn(&pid, arguments[0], NULL, NULL, arguments, environ) == 0, "posix_spawn");
	must(waitpid(pid, &state, 0) == pid && state == 0, "the program");
}

/* A program that does nothing: what the preload costs at its start. */
static double start_up(long n)
{
	char program[] = "/bin/true", *arguments[] = { program, NULL };
	double start = 0;
	for (long i = -2; i < n; i++) {
		if (i == 0)
			start = now();
		spawn(arguments);
	}
	return now() - start;
}

/* A program that finds a queue by its key and sends and receives one message, from its start to its end. */
static double first_use(long n)
{
	char program[] = "/proc/self/exe", number[16], option[] = "--operations", one[] = "1", name[64];
	key_t key = (key_t)getpid();
	int id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	must(id >= 0, "msgget");
	snprintf(number, sizeof number, "%d", key);
	snprintf(name, sizeof name, "use-%s", number);
	char *arguments[] = { program, option, one, name, NULL };
	double start = 0;
	fflush(stdout);
	for (long i = -2; i < n; i++) {
		if (i == 0)
			start = now();
		spawn(arguments);
	}
	double took = now() - start;
	msgctl(id, IPC_RMID, NULL);
	return took;
}

static double use(long n)
{
	(void)n;
	int id = msgget((key_t)first_number, 0);
	must(id >= 0, "msgget");
	must(msgsnd(id, &message, 64, 0) == 0, "msgsnd");
	must(msgrcv(id, &message, sizeof message.text, 0, 0) == 64, "msgrcv");
	_exit(0);
}

const struct workload transport_workloads[] = {
	{ "typed-equal", typed_equal, 20 },
	{ "typed-different", typed_different, 20 },
	{ "typed-lowest", typed_lowest, 20 },
	{ "typed-except", typed_except, 20 },
	{ "typed-noerror", typed_noerror, 20 },
	{ "fifo", fifo, 200 },
	{ "request-reply", request_reply, 256 },
	{ "msgget", msgget_existing, 1000 },
	{ "nothing", nothing, 1000 },
	{ "stat", status, 1000 },
	{ "start-up", start_up, 4 },
	{ "first-use", first_use, 4 },
	{ "use", use, 1 },
	{ NULL, NULL, 0 },
};
