/*
 * files.h: what the hostile suites know of a namespace directory and of the files in it (README, "Where queues live").
 */
#ifndef FILES_H
#define FILES_H

#include "../check.h"
#include <dirent.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

#define CONTROL_SIZE (4L << 20)
#define BODY_START (4L << 20)
#define OFFSET_ID 16
#define OFFSET_CUR 64

static inline const char *directory(void)
{
	const char *d = getenv("USYSV_DIR");
	if (!d)
		fail("USYSV_DIR must be set");
	return d;
}

/* Names rotate through many buffers: enough for what a row keeps. */
static inline char *name(const char *format, unsigned long number)
{
	static char place[256][300];
	static unsigned turn;
	char *p = place[turn++ % 256];
	int used = snprintf(p, sizeof place[0], "%s/", directory());
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(p + used, sizeof place[0] - (size_t)used, format, number);
#pragma GCC diagnostic pop
	return p;
}

static inline char *control_of(int id) { return name("usysv.q.%lu", (unsigned long)id & 0x7fff); }
static inline char *body_of(int id) { return name("usysv.b.%lu", (unsigned long)id); }
static inline char *link_of(key_t key) { return name("usysv.k.%08lx", (unsigned long)(unsigned)key); }
static inline char *link_slot(key_t key, int slot)
{
	char format[40];
	if (slot == 0)
		return link_of(key);
	snprintf(format, sizeof format, "usysv.k.%%08lx.%d", slot);
	return name(format, (unsigned long)(unsigned)key);
}

/* How many names begin with this. */
static inline int count_names(const char *prefix)
{
	int n = 0;
	struct dirent *e;
	DIR *d = opendir(directory());
	if (!d)
		fail("opendir: %s", strerror(errno));
	while ((e = readdir(d)))
		n += !strncmp(e->d_name, prefix, strlen(prefix));
	closedir(d);
	return n;
}

/* Runs `what` in a child, which has attached nothing yet, and joins it. */
#define in_fresh_process(...) \
	do { \
		pid_t fresh = fork_child(); \
		if (fresh == 0) { \
			__VA_ARGS__; \
			_exit(0); \
		} \
		join(fresh); \
	} while (0)

/* The same as another user. */
#define as_user(uid, ...) in_fresh_process(become(uid, uid); __VA_ARGS__)

#endif
