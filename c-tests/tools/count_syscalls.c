/*
 * count_syscalls.c: run a program under ptrace and count its system calls between markers (hygiene/marker.h).
 *
 * Usage: count_syscalls [-p LIBRARY] PROGRAM [ARGUMENT...]     -p: LD_PRELOAD for the program (not for this tool)
 * Prints `ok name`, `FAIL name: ...` with the numbers of the first offending calls, or `skipped name`, per section, and
 * `count_syscalls: N passed, N failed, N skipped`. Counts those of all threads and children of the program. Fails when the program fails
 * or had no section. The vDSO is no system call. Where ptrace is not permitted everything is skipped, and said so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../hygiene/marker.h"

enum { SHOWN = 8 };

static bool inside;
static long most, count;
static char name[64];
static uint64_t shown[SHOWN];
static int passed, failed, skipped;

static void read_name(pid_t pid, uint64_t address)
{
	struct iovec here = { name, sizeof name - 1 }, there = { (void *)(uintptr_t)address, sizeof name - 1 };

	memset(name, 0, sizeof name);
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) > 0)
		return;
	for (size_t i = 0; i + sizeof(long) < sizeof name; i += sizeof(long)) {
		errno = 0;
		long word = ptrace(PTRACE_PEEKDATA, pid, (void *)(uintptr_t)(address + i), NULL);
		if (errno)
			return;
		memcpy(name + i, &word, sizeof word);
	}
}

static void section_ends(void)
{
	if (!inside)
		return;
	inside = false;
	bool good = most < 0 ? count >= -most : count <= most;
	if (good) {
		printf("ok %s: %ld system calls\n", name, count);
		passed++;
		return;
	}
	printf("FAIL %s: %ld system calls, %s %ld allowed; numbers", name, count, most < 0 ? "at least" : "at most", labs(most));
	for (int i = 0; i < SHOWN && i < count; i++)
		printf(" %llu", (unsigned long long)shown[i]);
	putchar('\n');
	failed++;
}

static void system_call(pid_t pid)
{
	struct __ptrace_syscall_info info;

	memset(&info, 0, sizeof info);
	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0 || info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return;
	if (info.entry.nr == SYS_getppid && info.entry.args[0] == MARKER_MAGIC) {
		switch ((int)info.entry.args[1]) {
		case MARKER_BEGIN:
			section_ends();
			read_name(pid, info.entry.args[3]);
			most = (long)info.entry.args[2];
			count = 0;
			inside = true;
			break;
		case MARKER_SKIP:
			read_name(pid, info.entry.args[3]);
			printf("skipped %s\n", name);
			skipped++;
			break;
		default:
			section_ends();
		}
		return;
	}
	if (inside) {
		if (count < SHOWN)
			shown[count] = info.entry.nr;
		count++;
	}
}

int main(int argc, char **argv)
{
	const char *preload = NULL;
	int c, status, result = -1;

	while ((c = getopt(argc, argv, "+p:")) != -1) {
		if (c != 'p') {
			fprintf(stderr, "usage: %s [-p LIBRARY] PROGRAM [ARGUMENT...]\n", argv[0]);
			return 2;
		}
		preload = optarg;
	}
	if (optind == argc)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	pid_t child = fork();
	if (child < 0)
		return 2;
	if (child == 0) {
		if (preload)
			setenv("LD_PRELOAD", preload, 1);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(126);
		raise(SIGSTOP);
		execvp(argv[optind], argv + optind);
		_exit(127);
	}
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
		printf("skipped everything: ptrace is not permitted here\ncount_syscalls: 0 passed, 0 failed, 1 skipped\n");
		return 77;
	}
	ptrace(PTRACE_SETOPTIONS, child, NULL,
	       PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
	ptrace(PTRACE_SYSCALL, child, NULL, 0);
	for (;;) {
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (pid == child)
				result = status;
			continue;
		}
		int sig = WSTOPSIG(status);
		if (sig == (SIGTRAP | 0x80)) {
			system_call(pid);
			sig = 0;
		} else if (sig == SIGTRAP || sig == SIGSTOP) {
			sig = 0;
		}
		ptrace(PTRACE_SYSCALL, pid, NULL, (long)sig);
	}
	if (inside) {
		printf("FAIL %s: the section never ends\n", name);
		failed++;
	}
	if (result != 0) {
		printf("FAIL program: status %#x\n", (unsigned)result);
		failed++;
	}
	if (passed + failed + skipped == 0) {
		printf("FAIL program: no section was marked\n");
		failed++;
	}
	printf("count_syscalls: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
	return failed != 0;
}
