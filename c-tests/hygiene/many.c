/*
 * many.c: as many queues at once as the system allows (32000 by default; fewer with an argument).
 *
 *   create    all of them can be created, half with a key, half IPC_PRIVATE; all identifiers differ; then ENOSPC (only where
 *             nobody else makes queues: in a namespace of our own)
 *   use       each takes and keeps a message of its own
 *   info      MSG_INFO counts queues, messages and bytes
 *   list      MSG_STAT over 0..highest index finds each exactly once, with its message; MSG_STAT_ANY too
 *   find      a child process that never saw them finds some by key and by identifier
 *   receive   each gives back its own message
 *   remove    each can be removed; nothing is left in MSG_INFO or in the namespace directory
 *   time      all that takes less than 120 s
 */
#include "hygiene.h"

#include <sys/wait.h>

#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

enum { MOST = 32768 };

static int id[MOST];
static unsigned char listed[MOST];
static struct {
	long mtype;
	char mtext[64];
} m;

static int compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct msginfo limits, before, after;
	struct msqid_ds ds;
	struct hy_usage u0 = { 0, 0, 0 }, u1 = { 0, 0, 0 };
	const char *directory = hy_directory();
	int n = 0, wrong = 0;
	long bytes = 0;
	double start = hy_seconds(), t = start;

	hy_begin("many", 240);
	/* One cycle first: the namespace's own files come into being. */
	int one = msgget(IPC_PRIVATE, 0600);
	hy_need(one >= 0 && msgctl(one, IPC_RMID, NULL) == 0, "a queue");
	if (directory)
		hy_tree(directory, &u0, false);
	hy_need(msgctl(0, IPC_INFO, (struct msqid_ds *)&limits) >= 0, "IPC_INFO");
	hy_need(msgctl(0, MSG_INFO, (struct msqid_ds *)&before) >= 0, "MSG_INFO");
	int want = limits.msgmni - before.msgpool;
	bool alone = before.msgpool == 0;
	if (argc > 1 && atoi(argv[1]) < want)
		want = atoi(argv[1]);
	if (want > MOST)
		want = MOST;
	key_t key = (key_t)(0x58000000 + (getpid() & 0xff) * 65536);

	for (; n < want; n++) {
		id[n] = msgget(n % 2 ? key + n : IPC_PRIVATE, IPC_CREAT | IPC_EXCL | 0600);
		if (id[n] < 0)
			break;
	}
	hy_check(n == want, "create", "only %d of %d: %s", n, want, strerror(errno));
	printf("note: %d queues created in %.2f s\n", n, hy_seconds() - t);
	if (alone && n == limits.msgmni) {
		int extra = msgget(IPC_PRIVATE, 0600);
		hy_check(extra == -1 && errno == ENOSPC, "limit", "one more than msgmni gives %d, %s", extra, strerror(errno));
		if (extra >= 0)
			msgctl(extra, IPC_RMID, NULL);
	} else {
		hy_skip("limit", "fewer queues than msgmni, or others are there");
	}
	static int sorted[MOST];
	memcpy(sorted, id, sizeof sorted);
	qsort(sorted, (size_t)n, sizeof *sorted, compare);
	for (int i = 1; i < n; i++)
		wrong += sorted[i] == sorted[i - 1];
	hy_check(wrong == 0, "identifiers", "%d are not unique", wrong);

	t = hy_seconds();
	for (int i = wrong = 0; i < n; i++) {
		size_t len = (size_t)(i % 60 + 1);
		m.mtype = i + 1;
		memset(m.mtext, i & 0xff, sizeof m.mtext);
		wrong += msgsnd(id[i], &m, len, IPC_NOWAIT) != 0;
		bytes += (long)len;
	}
	hy_check(wrong == 0, "use", "%d of %d messages could not be sent: %s", wrong, n, strerror(errno));
	printf("note: a message to each in %.2f s\n", hy_seconds() - t);

	t = hy_seconds();
	int highest = msgctl(0, MSG_INFO, (struct msqid_ds *)&after);
	long dq = after.msgpool - before.msgpool, dm = after.msgmap - before.msgmap, db = after.msgtql - before.msgtql;
	hy_check(highest >= 0 && (alone ? dq == n && dm == n && db == bytes : dq >= n - 50), "info",
		 "%ld queues, %ld messages, %ld bytes more; expected %d, %d, %ld", dq, dm, db, n, n, bytes);
	int found = 0;
	for (int i = wrong = 0; i <= highest; i++) {
		int q = msgctl(i, i % 2 ? MSG_STAT : MSG_STAT_ANY, &ds);
		if (q < 0)
			continue;
		const int *at = bsearch(&q, sorted, (size_t)n, sizeof *sorted, compare);
		if (!at)
			continue;
		found++;
		wrong += listed[at - sorted]++ || ds.msg_qnum != 1 || ds.msg_lspid != getpid();
	}
	hy_check(found == n && wrong == 0, "list", "%d of %d found, %d of them wrong", found, n, wrong);
	printf("note: listed in %.2f s\n", hy_seconds() - t);

	fflush(stdout);
	pid_t pid = fork();
	int status = -1;
	if (pid == 0) {
		for (int i = 0; i < n; i += 97)
			if ((i % 2 && msgget(key + i, 0) != id[i]) || msgctl(id[i], IPC_STAT, &ds) != 0 || ds.msg_qnum != 1)
				_exit(1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	hy_check(status == 0, "find", "a child cannot find all of them");

	t = hy_seconds();
	for (int i = wrong = 0; i < n; i++) {
		memset(&m, 0, sizeof m);
		ssize_t r = msgrcv(id[i], &m, sizeof m.mtext, 0, IPC_NOWAIT);
		wrong += r != i % 60 + 1 || m.mtype != i + 1 || m.mtext[0] != (char)(i & 0xff) || m.mtext[r - 1] != (char)(i & 0xff);
	}
	hy_check(wrong == 0, "receive", "%d of %d messages are wrong or missing", wrong, n);
	printf("note: received in %.2f s\n", hy_seconds() - t);

	t = hy_seconds();
	for (int i = wrong = 0; i < n; i++)
		wrong += msgctl(id[i], IPC_RMID, NULL) != 0;
	hy_check(wrong == 0, "remove", "%d of %d could not be removed", wrong, n);
	printf("note: removed in %.2f s\n", hy_seconds() - t);
	hy_need(msgctl(0, MSG_INFO, (struct msqid_ds *)&after) >= 0, "MSG_INFO");
	hy_check(alone ? after.msgpool == 0 && after.msgmap == 0 && after.msgtql == 0 : after.msgpool <= before.msgpool + 50, "left",
		 "MSG_INFO still counts %d queues, %d messages, %d bytes", after.msgpool, after.msgmap, after.msgtql);
	if (directory) {
		hy_tree(directory, &u1, false);
		if (!hy_check(u1.files <= u0.files, "files", "%ld files became %ld", u0.files, u1.files))
			printf("  (%ld directories, %ld blocks; before %ld, %ld)\n", u1.directories, u1.blocks, u0.directories, u0.blocks);
	} else {
		hy_skip("files", "no USYSV_DIR, or the kernel's queues");
	}
	t = hy_seconds() - start;
	hy_check(t < 120, "time", "%.1f s", t);
	printf("note: %.2f s in all\n", t);
	return hy_end();
}
