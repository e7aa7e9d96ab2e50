/*
 * execute.c: carries out a list of operations, on whatever queues its process has, and writes down what came of each.
 *
 *     server ---fork---> conductor (actor 0) ---fork---> actors 1..5
 *
 * The server never touches a queue. Every list is carried out in a namespace that is empty: on the kernel's queues the conductor unshares its
 * IPC namespace, on ours the server removes the files in USYSV_DIR when everybody of the last list is gone.
 *
 * Nothing here depends on chance, addresses, process ids or the clock: what is written down is the same for the same list, if the queues behave
 * the same. Identifiers are compared as they are, because both sides start from an empty namespace. Process ids become roles, times
 * become a relation to when they should have been set.
 */
#include "execute.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 20 };

struct side *side;
int me;

static int write_limit(const char *name, int value)
{
	char path[64], text[16];
	snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
	int n = snprintf(text, sizeof text, "%d\n", value), fd = open(path, O_WRONLY | O_CLOEXEC), ok;
	if (fd < 0)
		return -1;
	ok = write(fd, text, (size_t)n) == n;
	close(fd);
	return ok ? 0 : -1;
}

static void empty_directory(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	if (!d)
		return;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
}

static void run_list(int own_namespace)
{
	const char *directory = getenv("USYSV_DIR");
	sigset_t child, before;
	struct timespec patience = { SECONDS, 0 };
	int status = 0;
	pid_t pid;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, &before);
	memset(side->records, 0, side->count * sizeof side->records[0]);
	if (side->verbose)
		memset(side->detail, 0, side->count * sizeof side->detail[0]);
	memset(side->actors, 0, sizeof side->actors);
	memset(side->window, 0, sizeof side->window);
	side->hung = 0;
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		sigprocmask(SIG_SETMASK, &before, NULL);
		/* On our queues as well: should a call of theirs reach the kernel, it must do no harm there. */
		if (unshare(CLONE_NEWIPC) != 0)
			_exit(5);
		if (own_namespace && side->limits != DEFAULT &&
		    (write_limit("msgmax", limits_of[side->limits].msgmax) || write_limit("msgmnb", limits_of[side->limits].msgmnb) ||
			    write_limit("msgmni", limits_of[side->limits].msgmni)))
			_exit(6);
		conduct();
		_exit(0);
	}
	setpgid(pid, pid);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		uint64_t before = side->calls;
		/* No call in all that time: a machine that is merely loaded gets on. */
		if (sigtimedwait(&child, NULL, &patience) < 0 && errno == EAGAIN && side->calls == before) {
			side->hung = 1;
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
	}
	side->end = status;
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (!own_namespace && directory)
		empty_directory(directory);
}

/* A byte comes for each list, and goes back when it is done. */
int serve(struct side *shared, int from, int to, int own_namespace)
{
	char byte;
	side = shared;
	/* Actors whose conductor died are to be ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	while (read(from, &byte, 1) == 1) {
		run_list(own_namespace);
		if (write(to, &byte, 1) != 1)
			break;
	}
	return 0;
}
