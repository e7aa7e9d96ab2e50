/*
 * marker.h: how a program under tools/count_syscalls says where a section begins and ends: a getppid system call with
 * arguments, which getppid ignores and the tracer sees.
 */
#ifndef MARKER_H
#define MARKER_H

#include <sys/syscall.h>
#include <unistd.h>

#define MARKER_MAGIC 0x75737973L
enum marker_action { MARKER_BEGIN = 1, MARKER_END, MARKER_SKIP };

/* `most` is the number of system calls the section may make; a negative one, -n: it must make at least n (that is how the
 * counter itself is tested). `name` is read by the tracer. MARKER_SKIP reports the section as skipped. */
static inline void marker(enum marker_action action, long most, const char *name)
{
	syscall(SYS_getppid, MARKER_MAGIC, (long)action, most, name);
}

#endif
