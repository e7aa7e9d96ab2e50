/*
 * supervisor.c: starts workers, kills them, and tells where they are.
 */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t pid_of[MAX_SLOTS];
int64_t stopped_until[MAX_SLOTS];
uint64_t rnd;
bool use_gdb;
int own_pids = -1;
volatile int64_t last_beat;
static const char *volatile doing = "starting";

void beat(const char *what)
{
	doing = what;
	last_beat = now_ns();
}

_Noreturn void die(const char *what)
{
	fprintf(stderr, "torture: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* The supervisor itself hangs: say where, and end everything. */
void watchdog(int sig)
{
	(void)sig;
	if (me || now_ns() - last_beat < 15000000000LL)
		return;
	char text[200];
	int n = snprintf(text, sizeof text, "FAIL the supervisor hangs for 15 s: %s\ntorture: 0 passed, 1 failed, 0 skipped\n", doing);
	if (write(STDOUT_FILENO, text, (size_t)n) < 0)
		_exit(3);
	for (int w = 0; w < workers; w++)
		if (pid_of[w] > 0)
			kill(pid_of[w], SIGKILL);
	_exit(3);
}

void start_worker(int w)
{
	for (int n = w * threads; n < (w + 1) * threads; n++) {
		struct slot *s = &sh->slot[n];
		atomic_store(&s->call, CALL_NONE);
		atomic_store(&s->nested_active, 0);
		atomic_store(&s->parked, 0);
		atomic_store(&s->tid, 0);
		for (int i = 0; i < LEVELS; i++)
			atomic_store(&s->in_receive[i], OUTSIDE);
	}
	stopped_until[w] = 0;
	uint64_t seed = ++rnd;
	/* The children of a process go where unshare says, until setns says otherwise. */
	if (own_pids >= 0 && unshare(CLONE_NEWPID) != 0)
		die("unshare");
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (own_pids >= 0 && pid > 0 && setns(own_pids, CLONE_NEWPID) != 0)
		die("setns");
	if (own_pids >= 0 && pid == 0 && getpid() != 1)
		_exit(6);
	if (pid == 0)
		worker(w, mix(seed));
	pid_of[w] = pid;
}

void kill_worker(int w)
{
	int status;

	kill(pid_of[w], SIGKILL);
	while (waitpid(pid_of[w], &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	for (int n = w * threads; n < (w + 1) * threads; n++)
		for (int i = 0; i < LEVELS; i++)
			account_for_victim(&sh->slot[n], i);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		failure(ERRORS, "worker %d ended by itself, status %#x", w, (unsigned)status);
}

/* A thread's id in the supervisor's eyes. */
int seen_tid(int n)
{
	return own_pids >= 0 ? (int)pid_of[n] : atomic_load(&sh->slot[n].tid);
}

void show_slot(int n)
{
	char path[64], line[256];
	static const char *const files[] = { "wchan", "syscall", "stack" };

	printf("  worker %d thread %d, pid %d, tid %d, call %d, want %ld, flags %#x\n", n / threads, n % threads,
	       (int)pid_of[n / threads], atomic_load(&sh->slot[n].tid), atomic_load(&sh->slot[n].call),
	       atomic_load(&sh->slot[n].want), (unsigned)atomic_load(&sh->slot[n].flags));
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid_of[n / threads], seen_tid(n), files[i]);
		FILE *f = fopen(path, "r");
		if (!f)
			continue;
		while (fgets(line, sizeof line, f))
			printf("  %s: %s%s", files[i], line, strchr(line, '\n') ? "" : "\n");
		fclose(f);
	}
	if (use_gdb) {
		char command[160];
		fflush(stdout);
		snprintf(command, sizeof command,
			 "env -u LD_PRELOAD timeout 20 gdb -p %d -batch -ex 'thread apply all bt' 2>&1 | tail -n 40", (int)pid_of[n / threads]);
		if (system(command) != 0)
			printf("  (no gdb)\n");
	}
	fflush(stdout);
}
