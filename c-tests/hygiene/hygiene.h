/*
 * hygiene.h: what the programs of this directory share. They check that the library is a polite guest in a process.
 *
 * Each prints `ok name`, `FAIL name: what` or `skipped name: why` per check and `suite: N passed, N failed, N skipped` at the
 * end. They run on the kernel's queues too (where most checks are trivially true: that tests the program). With
 * USYSV_EXPECT=preload in the environment a program fails unless msgget really is the library's.
 */
#ifndef HYGIENE_H
#define HYGIENE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct hy_message {
	long mtype;
	char mtext[8192];
};

static const char *hy_suite = "hygiene";
static int hy_passed, hy_failed, hy_skipped;

/* Prints the verdict on one check; the format says what is wrong when it is. */
__attribute__((format(printf, 3, 4))) static inline bool hy_check(bool good, const char *name, const char *format, ...)
{
	if (good) {
		printf("ok %s\n", name);
		hy_passed++;
	} else {
		va_list ap;
		printf("FAIL %s: ", name);
		va_start(ap, format);
		vprintf(format, ap);
		va_end(ap);
		putchar('\n');
		hy_failed++;
	}
	fflush(stdout);
	return good;
}

__attribute__((unused)) static void hy_skip(const char *name, const char *why)
{
	printf("skipped %s: %s\n", name, why);
	fflush(stdout);
	hy_skipped++;
}

/* A step that everything after it depends on. */
__attribute__((unused)) static void hy_need(bool good, const char *what)
{
	if (good)
		return;
	hy_check(false, what, "%s", strerror(errno));
	printf("%s: %d passed, %d failed, %d skipped\n", hy_suite, hy_passed, hy_failed, hy_skipped);
	fflush(stdout);
	_exit(1);
}

/* True when the calls of this process are the library's and not the kernel's. */
__attribute__((unused)) static bool hy_ours(void)
{
	Dl_info where;
	void *p = dlsym(RTLD_DEFAULT, "msgget");
	memset(&where, 0, sizeof where);
	return p && dladdr(p, &where) && where.dli_fname && strstr(where.dli_fname, "usysv");
}

static inline void hy_too_slow(int sig)
{
	static const char text[] = "FAIL watchdog: the program hangs\n";
	(void)sig;
	if (write(STDOUT_FILENO, text, sizeof text - 1) < 0)
		_exit(3);
	_exit(3);
}

/* First thing in main. The watchdog ends the program when it hangs. */
__attribute__((unused)) static void hy_begin(const char *suite, unsigned seconds)
{
	const char *expect = getenv("USYSV_EXPECT");

	hy_suite = suite;
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	if (seconds) {
		signal(SIGALRM, hy_too_slow);
		alarm(seconds);
	}
	printf("%s: %s queues\n", suite, hy_ours() ? "usysv's" : "the kernel's");
	if (expect && strcmp(expect, "preload") == 0 && !hy_ours()) {
		hy_check(false, "loaded", "msgget is not the library's");
		printf("%s: %d passed, %d failed, %d skipped\n", hy_suite, hy_passed, hy_failed, hy_skipped);
		exit(1);
	}
}

__attribute__((unused)) static int hy_end(void)
{
	printf("%s: %d passed, %d failed, %d skipped\n", hy_suite, hy_passed, hy_failed, hy_skipped);
	fflush(stdout);
	return hy_failed != 0 || hy_passed + hy_skipped == 0;
}

__attribute__((unused)) static double hy_seconds(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Lines of a file of /proc. */
__attribute__((unused)) static long hy_lines(const char *path)
{
	long n = 0;
	int c;
	FILE *f = fopen(path, "r");
	if (!f)
		return -1;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

/* Entries of a directory, without . and .. */
__attribute__((unused)) static long hy_entries(const char *path)
{
	long n = 0;
	struct dirent *e;
	DIR *d = opendir(path);
	if (!d)
		return -1;
	while ((e = readdir(d)) != NULL)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

struct hy_usage {
	long files;       /* whatever is not a directory */
	long directories;
	long blocks; /* of 512 bytes */
};

/* What lies below a directory; the names are printed when `show`. */
__attribute__((unused)) static void hy_tree(const char *path, struct hy_usage *u, bool show)
{
	struct dirent *e;
	DIR *d = opendir(path);
	if (!d)
		return;
	while ((e = readdir(d)) != NULL) {
		char below[4096];
		struct stat st;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof below, "%s/%s", path, e->d_name);
		if (lstat(below, &st) != 0)
			continue;
		if (show)
			printf("  %s: %lld bytes, %lld blocks, mode %o\n", below, (long long)st.st_size, (long long)st.st_blocks,
			       (unsigned)st.st_mode);
		u->blocks += st.st_blocks;
		if (S_ISDIR(st.st_mode)) {
			u->directories++;
			hy_tree(below, u, show);
		} else {
			u->files++;
		}
	}
	closedir(d);
}

/* The namespace directory, or NULL on the kernel's queues or when it is not given. */
__attribute__((unused)) static const char *hy_directory(void)
{
	return hy_ours() ? getenv("USYSV_DIR") : NULL;
}

#endif
