/*
 * check.c: what must hold after a trial, seen through the API by a process that was never hurt.
 */
#define _GNU_SOURCE
#include "everystep.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void answered(int64_t since, const char *what)
{
	int64_t t = now_ns() - since;
	if (t > longest_answer)
		longest_answer = t;
	if (t > 1500000000)
		wrong("%s took %lld ms", what, (long long)(t / 1000000));
}

long files_below(const char *path)
{
	long n = 0;
	struct dirent *e;
	DIR *d = opendir(path);
	if (!d)
		return 0;
	while ((e = readdir(d)) != NULL) {
		char below[4096];
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof below, "%s/%s", path, e->d_name);
		n += 1 + files_below(below);
	}
	closedir(d);
	return n;
}

void fill(const struct call *c)
{
	struct message m;
	for (int i = 0; i < c->before; i++) {
		long type = c->first_type + c->step * i;
		if (c->kind == RECEIVE && c->flags == MSG_EXCEPT && i == c->target)
			type = 2;
		compose(&m, (uint32_t)(BEFORE + i), type < 1 ? 100 : type, c->filling ? c->filling : c->length);
		if (msgsnd(id, &m, m.t.length, IPC_NOWAIT) != 0) {
			printf("FAIL the queue cannot be filled: %s\n", strerror(errno));
			exit(1);
		}
	}
}

/* Empties the queue into tokens; checks the counters against it. Returns their number or -1. */
int take_all(uint32_t tokens[MOST])
{
	static struct message m;
	struct msqid_ds ds;
	unsigned long bytes = 0;
	int n = 0;
	int64_t t = now_ns();

	if (msgctl(id, IPC_STAT, &ds) != 0) {
		wrong("IPC_STAT: %s", strerror(errno));
		return -1;
	}
	for (;;) {
		ssize_t r = msgrcv(id, &m, sizeof m.t, 0, IPC_NOWAIT);
		if (r < 0)
			break;
		if (!intact(&m, r))
			wrong("message %d of the queue is broken: %zd bytes, token %u, length %u", n, r, m.t.token, m.t.length);
		if (n == MOST) {
			wrong("the queue never gets empty");
			return -1;
		}
		tokens[n++] = m.t.token;
		bytes += (unsigned long)r;
	}
	if (errno != ENOMSG)
		wrong("emptying the queue: %s", strerror(errno));
	if (ds.msg_qnum != (unsigned long)n || ds.__msg_cbytes != bytes)
		wrong("IPC_STAT said %lu messages, %lu bytes; there were %d, %lu", ds.msg_qnum, ds.__msg_cbytes, n, bytes);
	if (msgctl(id, IPC_STAT, &ds) != 0 || ds.msg_qnum != 0 || ds.__msg_cbytes != 0)
		wrong("emptied, yet IPC_STAT says %lu messages, %lu bytes", ds.msg_qnum, ds.__msg_cbytes);
	answered(t, "emptying the queue");
	return n;
}

/* Every kind of work on the (empty) queue; a thousand operations of it when `much`. */
void work(bool capacity, bool much)
{
	struct message m;
	int64_t t = now_ns();

	for (int i = 0; i < (much ? 500 : 3); i++)
		if (!pair_of(AFTER_TYPE, 8000 + (uint32_t)i, 20 + i % 3 * 1000)) {
			wrong("%s", sh->pair_wrong);
			break;
		}
	for (uint32_t i = 0; i < 12; i++) {
		compose(&m, 8600 + i, 1 + (long)(i % 4), 50);
		if (msgsnd(id, &m, 50, IPC_NOWAIT) != 0)
			wrong("msgsnd: %s", strerror(errno));
	}
	static const struct {
		long want;
		int flags;
		uint32_t token;
	} order[] = { { 3, 0, 8602 }, { -2, 0, 8600 }, { 2, MSG_EXCEPT, 8603 }, { 0, 0, 8601 }, { -4, 0, 8604 }, { 4, 0, 8607 },
		      { 0, 0, 8605 }, { 0, 0, 8606 },  { 0, 0, 8608 },	       { 0, 0, 8609 }, { 0, 0, 8610 }, { 0, 0, 8611 } };
	for (size_t i = 0; i < sizeof order / sizeof *order; i++)
		if (msgrcv(id, &m, sizeof m.t, order[i].want, order[i].flags | IPC_NOWAIT) != 50 || m.t.token != order[i].token)
			wrong("receive %zu of the rest gave token %u, not %u", i, m.t.token, order[i].token);
	if (capacity) {
		struct msqid_ds ds;
		unsigned long n = 0, back = 0;
		m.mtype = 1;
		msgctl(id, IPC_STAT, &ds);
		while (msgsnd(id, &m, 1, IPC_NOWAIT) == 0)
			n++;
		int e = errno;
		while (msgrcv(id, &m, sizeof m.t, 0, IPC_NOWAIT) == 1)
			back++;
		if (n != ds.msg_qbytes || e != EAGAIN || back != n)
			wrong("capacity: %lu of %lu messages fit (%s), %lu came back", n, ds.msg_qbytes, strerror(e), back);
	}
	answered(t, "work on the queue");
}

/* The sleeper must get through within 1.5 s of what it waits for.
 * WAKE: whether the victim's message was sent cannot be seen: one handed over is in no count, and its receiver may not know yet. So
 * after a moment a second message is sent: the sleeper takes that one if the first was not sent, and in any case gets something.
 * RELEASE: after a moment a message is taken out, in case the victim did not do it; the sleeper's then fits.
 * Returns whether it was the victim's doing (WAKE), or whether a message was taken out here (RELEASE: its token is in sh->own.got, if
 * the victim has not put its own there). */
bool await_sleeper(const struct call *c)
{
	static struct message m;
	int64_t t0 = now_ns();
	int got;
	bool helped = false;
	/* Mostly the moment is short, so that a trial is; whoever was woken is there within it, unless the machine is busy. */
	int64_t moment = random_below(16) ? 1000000 : 20000000;

	while ((got = atomic_load(&sh->sleeper_got)) == 0 && now_ns() - t0 < 1500000000) {
		usleep(100);
		if (!helped && now_ns() - t0 > moment && atomic_load(&sh->sleeper_got) == 0) {
			if (c->kind == RELEASE) {
				/* One of those before: after a fork both may be gone, and the first is the sleeper's own, who has yet to say so. */
				helped = msgrcv(id, &m, sizeof m.t, c->first_type, IPC_NOWAIT) >= 0;
				if (helped && m.t.token != BEFORE && m.t.token != BEFORE + 1)
					wrong("the first message is %u", m.t.token);
			} else {
				compose(&m, SECOND, WAKE_TYPE, 16);
				helped = msgsnd(id, &m, 16, IPC_NOWAIT) == 0;
			}
		}
	}
	if (!got)
		wrong(c->kind == RELEASE ? "1.5 s after a message was taken its sender still sleeps" :
					   "1.5 s after a message was sent its receiver still sleeps");
	else if (got == -1)
		wrong("the sleeper fails: %s", strerror(atomic_load(&sh->sleeper_error)));
	else if (!helped && now_ns() - t0 > longest_wake)
		longest_wake = now_ns() - t0;
	if (c->kind == RELEASE)
		return helped;
	if (got == MINE && helped) {
		/* After a fork there may be another one of the victim's; that one stays, to be counted. */
		ssize_t r;
		int others = 0;
		while ((r = msgrcv(id, &m, sizeof m.t, WAKE_TYPE, IPC_NOWAIT)) == 16 && m.t.token == MINE && intact(&m, r))
			others++;
		bool second = r == 16 && m.t.token == SECOND;
		for (; others > 0; others--) {
			compose(&m, MINE, WAKE_TYPE, 16);
			if (msgsnd(id, &m, 16, IPC_NOWAIT) != 0)
				wrong("msgsnd: %s", strerror(errno));
		}
		if (!second)
			wrong("the sleeper took the first message, and the second is gone");
	}
	return got == MINE;
}

/* Removes every queue but the main one: what a killed creator of a private queue made is nobody's. */
void remove_others(void)
{
	struct msqid_ds ds;
	struct msginfo info;
	int highest = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);
	for (int index = 0; index <= highest; index++) {
		int there = msgctl(index, MSG_STAT, &ds);
		if (there >= 0 && there != id && msgctl(there, IPC_RMID, NULL) != 0)
			wrong("IPC_RMID of a queue left over: %s", strerror(errno));
	}
}

/* Creation and removal: whatever the victim left, the key can be used, and nothing stays behind. */
void check_key(const struct call *c, bool stopped, long files_before)
{
	struct msqid_ds ds;
	int64_t t = now_ns();

	int q = msgget(key, 0);
	if (q < 0 && errno != ENOENT)
		wrong("msgget of the key: %s", strerror(errno));
	if (q >= 0 && msgctl(q, IPC_STAT, &ds) != 0)
		wrong("IPC_STAT of a queue found by key: %s", strerror(errno));
	q = msgget(key, IPC_CREAT | 0600);
	int saved = id;
	id = q;
	if (q < 0)
		wrong("msgget(IPC_CREAT): %s", strerror(errno));
	else if (c->kind != REMOVE || !stopped) {
		uint32_t tokens[MOST];
		take_all(tokens);
		work(false, stopped);
	}
	if (q >= 0 && msgctl(q, IPC_RMID, NULL) != 0)
		wrong("IPC_RMID: %s", strerror(errno));
	if (msgget(key, 0) != -1 || errno != ENOENT)
		wrong("the key is still there after IPC_RMID");
	id = saved;
	answered(t, "creation and removal");
	if (!stopped && directory) {
		q = msgget(key, IPC_CREAT | 0600);
		msgctl(q, IPC_RMID, NULL);
		long files = files_below(directory);
		if (files > files_before)
			wrong("%ld files became %ld", files_before, files);
	}
}
