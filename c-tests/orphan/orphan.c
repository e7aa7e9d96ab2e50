/*
 * orphan.c: what becomes of a message that was handed to a sleeping receiver who never comes to take it.
 *
 * A receiver sleeps in msgrcv for one type while messages of other types are in the queue. It shares one processor with the sender,
 * which has precedence: so it is handed the message but cannot run before the sender kills it, or makes it leave the call by
 * siglongjmp. The kernel loses that message with the receiver. It may also come back; but then in its place:
 *   lost-or-kept   all other messages are there, the orphan at most once, and IPC_STAT's counters say so
 *   place          what is received by msgtyp 0 comes in the order in which it was sent
 *   type-place     and so do those of the orphan's own type, sent after it
 * The same after messages were taken out in the meantime, and with short and long texts.
 */
#define _GNU_SOURCE
#include "../hygiene/hygiene.h"
#include "../state.h"

#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { KEPT_TYPE = 1, ORPHAN_TYPE = 3, ROUNDS = 40 };

static int id;
static struct hy_message m;
static sigjmp_buf escape;
static atomic_int *left;

static void jump(int sig)
{
	(void)sig;
	siglongjmp(escape, 1);
}

static _Noreturn void receiver(void)
{
	static struct hy_message mine;
	static volatile bool again;
	struct sched_param none = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sched_setscheduler(0, SCHED_IDLE, &none);
	signal(SIGUSR2, jump);
	if (sigsetjmp(escape, 1) == 0) {
		ssize_t r = msgrcv(id, &mine, sizeof mine.mtext, ORPHAN_TYPE, 0);
		_exit(r >= 0 ? 1 : 2);
	}
	/* Having jumped, it goes on to use the queue: what it left behind is put in order at the latest now. */
	struct msqid_ds ds;
	again = msgctl(id, IPC_STAT, &ds) == 0 && msgrcv(id, &mine, sizeof mine.mtext, 99, IPC_NOWAIT) == -1;
	atomic_store(left, again ? 1 : -1);
	pause();
	_exit(0);
}

static bool send(long type, int number, size_t length)
{
	m.mtype = type;
	memset(m.mtext, number, sizeof m.mtext);
	return msgsnd(id, &m, length, IPC_NOWAIT) == 0;
}

/* One round; returns a complaint, or NULL. *kept: whether the orphan came back; *missed: the receiver was too fast. */
static const char *round_of(bool by_kill, size_t length, bool take_one, bool by_type, bool *kept, bool *missed)
{
	static char what[160];
	struct msqid_ds ds;
	int order[16], n = 0, status;

	*kept = *missed = false;
	atomic_store(left, 0);
	for (int i = 1; i <= 3; i++)
		if (!send(KEPT_TYPE, i, length))
			return "a message cannot be sent";
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		receiver();
	for (int i = 0; i < 1000 && state_of(pid) != 'S'; i++)
		usleep(1000);
	usleep(2000);
	/* From here on the receiver does not run. */
	bool sent = send(ORPHAN_TYPE, 4, length);
	kill(pid, by_kill ? SIGKILL : SIGUSR2);
	sent = send(ORPHAN_TYPE, 5, length) && sent;
	sent = send(KEPT_TYPE, 6, length) && sent;
	if (take_one)
		sent = msgrcv(id, &m, sizeof m.mtext, KEPT_TYPE, IPC_NOWAIT) == (ssize_t)length && m.mtext[0] == 1 && sent;
	if (by_kill) {
		waitpid(pid, &status, 0);
		*missed = WIFEXITED(status);
	} else {
		for (int i = 0; i < 1500 && !atomic_load(left) && waitpid(pid, &status, WNOHANG) == 0; i++)
			usleep(1000);
		*missed = atomic_load(left) == 0;
		if (!*missed) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
		}
	}
	if (!sent)
		return "a call of the sender failed";
	if (msgctl(id, IPC_STAT, &ds) != 0)
		return "IPC_STAT failed";
	while (by_type && n < 16 && msgrcv(id, &m, sizeof m.mtext, ORPHAN_TYPE, IPC_NOWAIT) >= 0)
		order[n++] = m.mtext[0];
	int of_type = n;
	while (n < 16 && msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
		order[n++] = m.mtext[0];
	if (*missed)
		return NULL;
	unsigned seen = 0;
	bool ascending = true;
	for (int i = 0; i < n; i++) {
		if (seen & 1u << order[i])
			return "a message came twice";
		seen |= 1u << order[i];
		ascending = ascending && (i == 0 || i == of_type || order[i] > order[i - 1]);
	}
	*kept = seen & 1u << 4;
	if ((seen | 1u << 4) != (take_one ? 0x7cu : 0x7eu))
		snprintf(what, sizeof what, "messages are missing: mask %#x", seen);
	else if (ds.msg_qnum != (unsigned)n || ds.__msg_cbytes != (unsigned)n * length)
		snprintf(what, sizeof what, "IPC_STAT said %lu messages, %lu bytes; there were %d", ds.msg_qnum, ds.__msg_cbytes, n);
	else if (!ascending)
		snprintf(what, sizeof what, "wrong order: %d %d %d %d %d %d, number 4 being the orphan", order[0], order[1], order[2],
			 n > 3 ? order[3] : 0, n > 4 ? order[4] : 0, n > 5 ? order[5] : 0);
	else
		return NULL;
	return what;
}

int main(void)
{
	cpu_set_t one;

	hy_begin("orphan", 120);
	left = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	hy_need(left != MAP_FAILED, "mmap");
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	hy_need(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
	for (int kind = 0; kind < 16; kind++) {
		bool by_kill = kind & 1, longer = kind & 2, take_one = kind & 4, by_type = kind & 8, kept, missed;
		char name[80];
		int bad = 0, came_back = 0, too_fast = 0;
		const char *first = "";
		static char kept_first[160];
		snprintf(name, sizeof name, "%s-%s%s%s", by_kill ? "killed" : "jumped", longer ? "long" : "short", take_one ? "-one-taken" : "",
			 by_type ? "-by-type" : "");
		id = msgget(IPC_PRIVATE, 0600);
		hy_need(id >= 0, "msgget");
		for (int i = 0; i < ROUNDS / 4; i++) {
			const char *complaint = round_of(by_kill, longer ? 1000 : 20, take_one, by_type, &kept, &missed);
			came_back += kept;
			too_fast += missed;
			if (complaint && bad++ == 0) {
				snprintf(kept_first, sizeof kept_first, "%s", complaint);
				first = kept_first;
			}
		}
		msgctl(id, IPC_RMID, NULL);
		if (too_fast == ROUNDS / 4)
			hy_skip(name, "the receiver was always faster");
		else
			hy_check(bad == 0, name, "%d of %d rounds, first: %s (the orphan came back %d times)", bad, ROUNDS / 4, first, came_back);
		if (bad == 0 && too_fast < ROUNDS / 4)
			printf("note: the orphan came back %d times, the receiver was faster %d times\n", came_back, too_fast);
	}
	return hy_end();
}
