/*
 * module.c: a library that comes before ours, or binds past it.
 *
 * Built as libways.so, which the ways suite is linked with, so that its constructor runs before the one of a preloaded library; and as
 * sub/libdeep.so and sub/libdeeper.so, which are loaded with RTLD_DEEPBIND, the second by the first and by its name alone.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int module_early; /* what the constructor could do */

__attribute__((constructor)) static void early(void)
{
	char text[16];
	struct stat s;
	FILE *f;
	int fd = open("/proc/sys/kernel/msgmax", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, text, sizeof text) > 1 && text[0] >= '0' && text[0] <= '9')
		module_early |= 1;
	close(fd);
	fd = open("/dev/null", O_RDWR);
	if (fd >= 0 && close(fd) == 0)
		module_early |= 2;
	f = fopen("/proc/sysvipc/msg", "r");
	if (f && fgetc(f) == ' ' && fclose(f) == 0)
		module_early |= 4;
	if (syscall(SYS_getpid) == getpid() && syscall(SYS_close, -1) == -1 && errno == EBADF)
		module_early |= 8;
	if (stat("/", &s) == 0 && S_ISDIR(s.st_mode) && access("/proc/sysvipc/msg", R_OK) == 0)
		module_early |= 16;
	errno = 0;
}

int module_send(int id)
{
	struct { long type; char text[1]; } m = { 9, "d" };

	return msgsnd(id, &m, 1, IPC_NOWAIT);
}

void *module_load(const char *name)
{
	return dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
}
