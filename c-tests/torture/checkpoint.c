/*
 * checkpoint.c: what must hold with every worker parked, and what with every worker stopped wherever it happened to be.
 */
#define _GNU_SOURCE
#include "../state.h"
#include "torture.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

unsigned long freezes, checkpoints, allowed_total, used_total, messages_total, swaps;
int64_t longest_wake, longest_call;

static bool get_stat(struct msqid_ds *ds)
{
	int64_t t = now_ns();
	int r = msgctl(atomic_load(&sh->qid), IPC_STAT, ds);
	t = now_ns() - t;
	if (t > longest_call)
		longest_call = t;
	if (r != 0)
		failure(ERRORS, "IPC_STAT: %s", strerror(errno));
	return r == 0;
}

/* Receives one message without waiting; false when there is none. */
bool take_one(long want, size_t *len)
{
	int64_t t = now_ns();
	int e = do_receive(ORDINARY, want, MAX_TEXT, IPC_NOWAIT, false, len);
	t = now_ns() - t;
	if (t > longest_call)
		longest_call = t;
	return e == 0;
}

/* Empties the queue; counts. */
static void drain(unsigned long *count, unsigned long *bytes)
{
	size_t len;
	long want = random_below(&rnd, 4) ? 0 : LONG_MIN;

	*count = *bytes = 0;
	while (take_one(want, &len)) {
		++*count;
		*bytes += len;
		if (*count > 1000000) {
			failure(COUNTERS, "the queue never gets empty");
			return;
		}
	}
}

/* The queue's counters against its contents; nobody else may be at work. Empties the queue. */
static void check_counters(const char *when)
{
	struct msqid_ds before, after;
	unsigned long count, bytes;

	if (!get_stat(&before))
		return;
	drain(&count, &bytes);
	if (!get_stat(&after))
		return;
	checked(COUNTERS);
	if (before.msg_qnum != count || before.__msg_cbytes != bytes)
		failure(COUNTERS, "%s: IPC_STAT said %lu messages, %lu bytes; there were %lu messages, %lu bytes", when, before.msg_qnum,
			before.__msg_cbytes, count, bytes);
	if (after.msg_qnum != 0 || after.__msg_cbytes != 0)
		failure(COUNTERS, "%s: drained, yet IPC_STAT says %lu messages, %lu bytes", when, after.msg_qnum, after.__msg_cbytes);
	if (count > 0 && after.msg_lrpid != getpid())
		failure(COUNTERS, "%s: lrpid is %d, not %d", when, (int)after.msg_lrpid, (int)getpid());
}

/* The whole capacity is there. The queue must be empty and nobody else at work. */
static void check_capacity(const char *when)
{
	struct msqid_ds ds;
	unsigned limit = atomic_load(&sh->qbytes), n = 0, back = 0;
	int id = atomic_load(&sh->qid);
	struct message m = { .mtype = FILL_TYPE };

	checked(CAPACITY);
	for (;;) {
		m.u.raw[0] = (unsigned char)n;
		if (msgsnd(id, &m, 1, IPC_NOWAIT) != 0)
			break;
		if (++n > limit)
			break;
	}
	if (n > limit)
		failure(CAPACITY, "%s: more than %u messages of one byte fit", when, limit);
	else if (errno != EAGAIN)
		failure(CAPACITY, "%s: after %u messages msgsnd says %s", when, n, strerror(errno));
	else if (n != limit)
		failure(CAPACITY, "%s: only %u messages of one byte fit, not %u", when, n, limit);
	if (get_stat(&ds) && (ds.msg_qnum != n || ds.__msg_cbytes != n || ds.msg_lspid != getpid()))
		failure(COUNTERS, "%s: %u messages of one byte sent; qnum %lu, cbytes %lu, lspid %d", when, n, ds.msg_qnum, ds.__msg_cbytes,
			(int)ds.msg_lspid);
	ssize_t r;
	while ((r = msgrcv(id, &m, MAX_TEXT, 0, IPC_NOWAIT)) >= 0) {
		if (r != 1 || m.mtype != FILL_TYPE || m.u.raw[0] != (unsigned char)back)
			failure(TORN, "%s: filling message %u came back with %zd bytes, type %ld, text %u", when, back, r, m.mtype, m.u.raw[0]);
		if (++back > n)
			break;
	}
	if (back != n)
		failure(CAPACITY, "%s: %u messages of one byte sent, %u came back", when, n, back);
	if (get_stat(&ds) && (ds.msg_qnum != 0 || ds.__msg_cbytes != 0))
		failure(COUNTERS, "%s: emptied, yet qnum %lu, cbytes %lu", when, ds.msg_qnum, ds.__msg_cbytes);
}

static void wait_stopped(int w)
{
	siginfo_t info;
	while (waitid(P_PID, (id_t)pid_of[w], &info, WSTOPPED | WEXITED | WNOWAIT) < 0)
		if (errno != EINTR)
			die("waitid");
}

/* Stops everybody wherever they are; the supervisor must be able to do everything, and the counters must be exact. */
void freeze(void)
{
	struct msqid_ds ds;

	beat("freezing the workers");
	for (int w = 0; w < workers; w++)
		kill(pid_of[w], SIGSTOP);
	for (int w = 0; w < workers; w++)
		wait_stopped(w);
	beat("working while all workers are stopped");
	freezes++;
	checked(FROZEN);
	int64_t before = longest_call;
	longest_call = 0;
	check_counters("all workers stopped");
	for (int i = 0; i < 16; i++) {
		long type = 1 + (long)random_below(&rnd, TYPES);
		size_t len = random_length(&rnd), got = 0;
		int e = do_send(ORDINARY, type, len, IPC_NOWAIT, false);
		if (e < 0)
			break;
		if (e != 0)
			failure(FROZEN, "all workers stopped, queue empty: msgsnd of %zu bytes: %s", len, strerror(e));
		else if (get_stat(&ds) && (ds.msg_qnum != 1 || ds.__msg_cbytes != len))
			failure(FROZEN, "all workers stopped, one message of %zu bytes: qnum %lu, cbytes %lu", len, ds.msg_qnum,
				ds.__msg_cbytes);
		if (e == 0 && (!take_one(len < HEADER || i % 2 ? 0 : type, &got) || got != len))
			failure(FROZEN, "all workers stopped: a message of %zu bytes came back with %zu", len, got);
	}
	if (random_below(&rnd, 8) == 0)
		check_capacity("all workers stopped");
	if (longest_call > PATIENCE_NS)
		failure(FROZEN, "all workers stopped: a call took %lld ms", (long long)(longest_call / 1000000));
	if (longest_call < before)
		longest_call = before;
	/* Now and then one of them never runs again. */
	int w0 = (int)random_below(&rnd, (uint32_t)workers);
	if (do_kill && random_below(&rnd, 3) == 0 && (!strict_epoch() || sends_only(w0))) {
		int w = w0;
		kill_worker(w);
		kills++;
		start_worker(w);
	}
	for (int w = 0; w < workers; w++) {
		stopped_until[w] = 0;
		kill(pid_of[w], SIGCONT);
	}
}

static int count_parked(void)
{
	int n = 0;
	for (int i = 0; i < workers * threads; i++)
		n += atomic_load(&sh->slot[i].parked) && !atomic_load(&sh->slot[i].nested_active);
	return n;
}

/* Everybody who does not park in time is reported and replaced, so that the run can go on. */
static void replace_hung(enum check c, const char *why)
{
	for (int n = 0; n < workers * threads; n++) {
		struct slot *s = &sh->slot[n];
		if (atomic_load(&s->parked) && !atomic_load(&s->nested_active))
			continue;
		long want = atomic_load(&s->want);
		int flags = atomic_load(&s->flags), call = atomic_load(&s->call);
		printf("hung: %s\n", why);
		show_slot(n);
		size_t len;
		struct msqid_ds ds = { 0 };
		get_stat(&ds);
		bool there = call == CALL_RECEIVE && do_receive(ORDINARY, want, MAX_TEXT, IPC_NOWAIT | (flags & MSG_EXCEPT), false, &len) == 0;
		failure(c, "%s: worker %d thread %d in %s, want %ld, flags %#x; qnum %lu, cbytes %lu of %lu; %s", why, n / threads, n % threads,
			call == CALL_SEND      ? "msgsnd"
			: call == CALL_RECEIVE ? "msgrcv"
					       : "no blocking call",
			want, (unsigned)flags, ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes,
			there ? "a matching message is in the queue" : "nothing matching is in the queue");
		kill_worker(n / threads);
		start_worker(n / threads);
	}
}

/* Lets every worker end its present call: room for blocked senders, then a matching message for each blocked receiver in turn. */
static void park_all(void)
{
	beat("parking the workers");
	for (int w = 0; w < workers; w++) {
		stopped_until[w] = 0;
		kill(pid_of[w], SIGCONT);
	}
	atomic_store(&sh->mode, PARK);
	int parked = count_parked(), fed = -1;
	unsigned fed_serial = 0;
	int64_t progress = now_ns(), start = progress;
	while (parked < workers * threads) {
		bool sender = false;
		int receiver = -1;
		for (int n = 0; n < workers * threads; n++) {
			int call = atomic_load(&sh->slot[n].call);
			if (call == CALL_SEND)
				sender = true;
			else if (call == CALL_RECEIVE)
				receiver = n;
		}
		if (sender) {
			unsigned long n, b;
			drain(&n, &b);
			fed = -1;
		} else if (receiver >= 0 && (fed != receiver || fed_serial != atomic_load(&sh->slot[receiver].serial))) {
			long want = atomic_load(&sh->slot[receiver].want);
			int flags = atomic_load(&sh->slot[receiver].flags);
			long type = want > 0 ? (flags & MSG_EXCEPT ? want % TYPES + 1 : want) : 1;
			fed_serial = atomic_load(&sh->slot[receiver].serial);
			int e = do_send(ORDINARY, type, HEADER, IPC_NOWAIT, false);
			if (e == 0) {
				fed = receiver;
				start = now_ns();
			} else if (e == EAGAIN) {
				unsigned long n, b;
				drain(&n, &b);
			}
		}
		sleep_ns(20000);
		int n = count_parked();
		int64_t t = now_ns();
		if (n > parked) {
			if (t - start > longest_wake)
				longest_wake = t - start;
			progress = start = t;
			parked = n;
			fed = -1; /* somebody else may have taken it */
		} else if (t - progress > PATIENCE_NS) {
			replace_hung(AWAKE, "not awake 1.5 s after it should be");
			progress = start = now_ns();
			fed = -1;
		}
		last_beat = now_ns();
	}
	checked(AWAKE);
}

/* Removes the queue under blocked workers and makes a new one. */
static void check_removal(void)
{
	struct msqid_ds ds;
	int id = atomic_load(&sh->qid);
	struct message m = { .mtype = FILL_TYPE };
	bool asleep[MAX_SLOTS] = { false };

	beat("removing the queue");
	while (msgsnd(id, &m, 1, IPC_NOWAIT) == 0)
		;
	atomic_store(&sh->mode, REMOVAL);
	atomic_fetch_add(&sh->removals, 1);
	int64_t t0 = now_ns();
	for (int n = 0; n < workers * threads; n++) {
		while (!asleep[n] && now_ns() - t0 < PATIENCE_NS) {
			char path[64];
			sleep_ns(300000);
			if (atomic_load(&sh->slot[n].call) == CALL_NONE)
				continue;
			snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid_of[n / threads], seen_tid(n));
			asleep[n] = state_in(path) == 'S';
		}
		if (!asleep[n])
			failure(REMOVED, "worker %d thread %d does not fall asleep in its blocking call", n / threads, n % threads);
	}
	t0 = now_ns();
	if (msgctl(id, IPC_RMID, NULL) != 0)
		failure(REMOVED, "IPC_RMID: %s", strerror(errno));
	while (count_parked() < workers * threads && now_ns() - t0 < PATIENCE_NS)
		sleep_ns(50000);
	int64_t took = now_ns() - t0;
	if (count_parked() < workers * threads)
		replace_hung(REMOVED, "not awake 1.5 s after IPC_RMID");
	else if (took > longest_wake)
		longest_wake = took;
	for (int n = 0; n < workers * threads; n++) {
		int e = atomic_load(&sh->slot[n].removal_errno);
		if (asleep[n] && e != EIDRM)
			failure(REMOVED, "worker %d thread %d asleep in %s was told %s, not EIDRM", n / threads, n % threads, n % 2 ? "msgsnd" : "msgrcv",
				e == -1 ? "success" : strerror(e));
	}
	if (msgctl(id, IPC_STAT, &ds) != -1 || (errno != EINVAL && errno != EIDRM))
		failure(REMOVED, "IPC_STAT works after IPC_RMID");
	checked(REMOVED);
	swaps++;
	atomic_store(&sh->mode, PARK);
}

void make_queue(void)
{
	static const unsigned choice[] = { 16384, 16384, 16384, 9000, 1200, 300 };
	struct msqid_ds ds;

	int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	if (id < 0)
		die("msgget");
	if (msgctl(id, IPC_STAT, &ds) != 0)
		die("IPC_STAT");
	unsigned want = choice[random_below(&rnd, sizeof choice / sizeof *choice)];
	if (want < ds.msg_qbytes) {
		ds.msg_qbytes = want;
		if (msgctl(id, IPC_SET, &ds) != 0)
			die("IPC_SET");
	}
	if (msgctl(id, IPC_STAT, &ds) != 0)
		die("IPC_STAT");
	atomic_store(&sh->qbytes, (unsigned)ds.msg_qbytes);
	atomic_store(&sh->qid, id);
}

/* Goes through the tokens of the epoch; the queue is empty and everybody is parked. */
static void settle(void)
{
	unsigned blocks = atomic_load(&sh->next_block);
	if (blocks > BLOCKS)
		blocks = BLOCKS;
	uint32_t n = blocks * BLOCK;
	unsigned long lost = 0, allowed = atomic_load(&sh->allowance);
	uint32_t first_lost = 0;

	for (uint32_t t = 0; t < n; t++) {
		uint8_t s = atomic_load_explicit(&sh->sent[t], memory_order_relaxed);
		uint8_t r = atomic_load_explicit(&sh->received[t], memory_order_relaxed);
		messages_total += r;
		if (s == ACKNOWLEDGED && r == 0 && lost++ == 0)
			first_lost = t;
		if (r > 1)
			failure(DOUBLED, "token %u was received %u times", t, r);
		if (r > 0 && s != ACKNOWLEDGED && s != ATTEMPTING)
			failure(GHOSTS, "token %u was %s, yet received", t, s == REFUSED ? "refused" : "not sent");
	}
	checked(DELIVERED);
	checked(DOUBLED);
	checked(GHOSTS);
	allowed_total += allowed;
	used_total += lost;
	if (lost > allowed)
		failure(DELIVERED, "checkpoint %lu: %lu acknowledged messages not received, %lu allowed; first is token %u of lane %u", checkpoints,
			lost, allowed, first_lost, sh->lane_of[first_lost / BLOCK]);
	memset(sh->sent, 0, n);
	memset(sh->received, 0, n);
}

void checkpoint(bool last)
{
	park_all();
	beat("checking the counters");
	check_counters("all workers parked");
	settle();
	beat("checking the capacity");
	check_capacity("all workers parked");
	checkpoints++;
	if (last || checkpoints % 3 == 0)
		check_removal();
	/* The next epoch. */
	atomic_store(&sh->next_block, 0);
	atomic_store(&sh->next_lane, 0);
	atomic_store(&sh->allowance, 0);
	atomic_store(&sh->want_checkpoint, 0);
	if (checkpoints % 3 == 0 && !last)
		make_queue();
	atomic_fetch_add(&sh->epoch, 1);
	enter_epoch();
	beat("running");
	atomic_store(&sh->mode, last ? QUIT : RUN);
}
