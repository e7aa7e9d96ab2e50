/*
 * races.c: creating, finding and removing queues at the same time, also by processes that are killed at it.
 *
 *   exclusive   two processes create the same key with IPC_CREAT|IPC_EXCL at the same moment, 2000 times: exactly one
 *               succeeds, the other gets EEXIST, and both then find the same identifier, which works
 *   plain       the same without IPC_EXCL: both succeed, with the same identifier
 *   removers    two processes remove the same queue: exactly one succeeds, the other gets EINVAL (or EIDRM)
 *   opener      a process that opens by key while another creates and removes gets a queue that works, ENOENT, or a queue that
 *               was removed meanwhile; never one that is not ready
 *   storm       four processes create, use and remove queues of the same few keys, and IPC_PRIVATE ones, in a loop; some are
 *               killed with SIGKILL at random moments, for some seconds; no call fails with an errno it has no reason for
 *   one-each    afterwards there is at most one queue per key, and
 *   usable      every key can be found or created, used and removed; IPC_PRIVATE too
 *   leftovers   queues of killed processes are ordinary queues: MSG_STAT lists them, they can be removed
 *   files       when all queues are removed, the namespace directory holds what it held before. A creator killed half-way may
 *               leave a file of its own under a temporary name until the next creation or removal comes across it: one more
 *               creation and removal is made before counting, and that must be sweep enough.
 *   ids         identifiers given out afterwards still differ from all removed ones (their sequence goes on)
 *
 * Usage: races [SECONDS of the storm, default 3]
 */
#include "hygiene.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { ROUNDS = 2000, STORMERS = 4, KEYS = 3, OPENED = 2000, ABSENT = 200 };

struct shared {
	atomic_int arrived[2];
	atomic_int result[2], error[2], found[2];
	atomic_int stop;
	atomic_ulong created, removed, lost_race, unexpected, broken;
	char first[160];
	atomic_int described;
};
static struct shared *sh;
static key_t base;

/* Both processes leave at the same moment. */
static void meet(int self, int round)
{
	atomic_store(&sh->arrived[self], round);
	for (unsigned spins = 0; atomic_load(&sh->arrived[!self]) < round; spins++)
		if (spins > 2000)
			sched_yield();
}

static void describe(const char *what, int error)
{
	if (atomic_exchange(&sh->described, 1) == 0)
		snprintf(sh->first, sizeof sh->first, "%s: %s", what, strerror(error));
}

enum pair_kind { EXCLUSIVE, PLAIN, REMOVERS };

/* One side of the races of two. Side 0 judges and cleans up. */
static void pair_side(int self, enum pair_kind kind, int first_round, long *wrong, char *what, size_t size)
{
	for (int i = 0; i < ROUNDS; i++) {
		int round = first_round + 3 * i, id = -1;
		key_t key = base + i % 7;

		if (kind == REMOVERS && self == 0)
			atomic_store(&sh->found[0], msgget(IPC_PRIVATE, 0600));
		meet(self, round);
		errno = 0;
		if (kind == REMOVERS)
			id = msgctl(atomic_load(&sh->found[0]), IPC_RMID, NULL);
		else
			id = msgget(key, IPC_CREAT | 0600 | (kind == EXCLUSIVE ? IPC_EXCL : 0));
		atomic_store(&sh->result[self], id);
		atomic_store(&sh->error[self], id < 0 ? errno : 0);
		if (kind != REMOVERS) {
			meet(self, round + 1);
			struct hy_message m;
			int found = msgget(key, 0);
			m.mtype = self + 1;
			bool works = found >= 0 && msgsnd(found, &m, 50, IPC_NOWAIT) == 0 &&
				     msgrcv(found, &m, sizeof m.mtext, self + 1, IPC_NOWAIT) == 50;
			atomic_store(&sh->found[self], works ? found : -1);
		}
		meet(self, round + 2);
		if (self != 0)
			continue;
		int r0 = atomic_load(&sh->result[0]), r1 = atomic_load(&sh->result[1]);
		int e0 = atomic_load(&sh->error[0]), e1 = atomic_load(&sh->error[1]);
		int f0 = atomic_load(&sh->found[0]), f1 = atomic_load(&sh->found[1]);
		int winner = r0 >= 0 ? r0 : r1, loser_error = r0 >= 0 ? e1 : e0;
		bool good;
		if (kind == EXCLUSIVE)
			good = (r0 >= 0) != (r1 >= 0) && loser_error == EEXIST && f0 == winner && f1 == winner;
		else if (kind == PLAIN)
			good = r0 >= 0 && r0 == r1 && f0 == r0 && f1 == r0;
		else
			good = (r0 >= 0) != (r1 >= 0) && (loser_error == EINVAL || loser_error == EIDRM);
		if (!good && (*wrong)++ == 0)
			snprintf(what, size, "round %d: results %d (%s), %d (%s), then found %d, %d", i, r0, strerror(e0), r1, strerror(e1), f0, f1);
		if (kind != REMOVERS) {
			int id_now;
			while ((id_now = msgget(key, 0)) >= 0)
				if (msgctl(id_now, IPC_RMID, NULL) != 0 && (*wrong)++ == 0)
					snprintf(what, size, "round %d: IPC_RMID: %s", i, strerror(errno));
		}
	}
}

static void pair(enum pair_kind kind, const char *name)
{
	long wrong = 0;
	char what[200] = "";
	int status = -1, first_round = 1 + (int)kind * 3 * ROUNDS;

	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pair_side(1, kind, first_round, &wrong, what, sizeof what);
		_exit(0);
	}
	pair_side(0, kind, first_round, &wrong, what, sizeof what);
	waitpid(pid, &status, 0);
	hy_check(wrong == 0 && status == 0, name, "%ld of %d rounds; %s", wrong, ROUNDS, what);
}

static void opener(void)
{
	static struct hy_message m;
	long wrong = 0, opened = 0, absent = 0;
	char what[160] = "";
	int status = -1;
	struct msqid_ds ds;

	atomic_store(&sh->stop, 0);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (!atomic_load(&sh->stop)) {
			int id = msgget(base, IPC_CREAT | 0640);
			if (id < 0 || msgctl(id, IPC_RMID, NULL) != 0)
				_exit(1);
		}
		_exit(0);
	}
	double until = hy_seconds() + 10;
	while ((opened < OPENED || absent < ABSENT) && hy_seconds() < until) {
		int id = msgget(base, 0);
		if (id < 0) {
			absent++;
			if (errno != ENOENT && wrong++ == 0)
				snprintf(what, sizeof what, "msgget: %s", strerror(errno));
			continue;
		}
		opened++;
		m.mtype = 1;
		if (msgctl(id, IPC_STAT, &ds) == 0) {
			if ((ds.msg_qbytes == 0 || (ds.msg_perm.mode & 0777) != 0640 || ds.msg_perm.__key != base || ds.msg_ctime == 0) && wrong++ == 0)
				snprintf(what, sizeof what, "a queue that is not ready: qbytes %lu, mode %o, key %#x", ds.msg_qbytes,
					 (unsigned)ds.msg_perm.mode, (unsigned)ds.msg_perm.__key);
		} else if (errno != EINVAL && errno != EIDRM && wrong++ == 0) {
			snprintf(what, sizeof what, "IPC_STAT: %s", strerror(errno));
		}
		/* While the creator is off the processor, one queue may well be filled. */
		if (msgsnd(id, &m, 10, IPC_NOWAIT) != 0 && errno != EINVAL && errno != EIDRM && errno != EAGAIN && wrong++ == 0)
			snprintf(what, sizeof what, "msgsnd: %s", strerror(errno));
	}
	atomic_store(&sh->stop, 1);
	waitpid(pid, &status, 0);
	printf("note: opened %ld times, absent %ld times\n", opened, absent);
	hy_check(wrong == 0 && status == 0 && opened > 0, "opener", "%ld times, first: %s; the creator's status is %#x", wrong, what, (unsigned)status);
}

/* Creates, uses and removes until it is killed or told to stop. */
static _Noreturn void stormer(unsigned random)
{
	static struct hy_message m;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!atomic_load(&sh->stop)) {
		random = random * 1664525 + 1013904223;
		unsigned dice = random >> 16;
		int flags = IPC_CREAT | 0600 | (dice & 1 ? IPC_EXCL : 0);
		bool private = (dice >> 1) % 8 == 0;
		int id = msgget(private ? IPC_PRIVATE : base + (key_t)((dice >> 4) % KEYS), flags);
		if (id < 0) {
			if (errno != EEXIST) {
				describe("msgget", errno);
				atomic_fetch_add(&sh->unexpected, 1);
			} else {
				atomic_fetch_add(&sh->lost_race, 1);
				id = msgget(base + (key_t)((dice >> 4) % KEYS), 0);
				if (id < 0 && errno != ENOENT) {
					describe("msgget of an existing key", errno);
					atomic_fetch_add(&sh->unexpected, 1);
				}
			}
			if (id < 0)
				continue;
		}
		atomic_fetch_add(&sh->created, 1);
		m.mtype = 1 + (long)(dice % 3);
		if (msgsnd(id, &m, dice % 2000, IPC_NOWAIT) != 0 && errno != EINVAL && errno != EIDRM && errno != EAGAIN) {
			describe("msgsnd", errno);
			atomic_fetch_add(&sh->unexpected, 1);
		}
		ssize_t r = msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT);
		if (r < 0 && errno != EINVAL && errno != EIDRM && errno != ENOMSG) {
			describe("msgrcv", errno);
			atomic_fetch_add(&sh->unexpected, 1);
		}
		if (msgctl(id, IPC_RMID, NULL) == 0) {
			atomic_fetch_add(&sh->removed, 1);
		} else if (errno != EINVAL && errno != EIDRM) {
			describe("IPC_RMID", errno);
			atomic_fetch_add(&sh->unexpected, 1);
		} else if (private) {
			describe("IPC_RMID of a private queue that nobody else knows", errno);
			atomic_fetch_add(&sh->unexpected, 1);
		}
	}
	_exit(0);
}

/* Counts our queues (by key, or private ones when alone), and removes them when `remove`. */
static int ours(bool alone, bool remove, int per_key[KEYS])
{
	struct msginfo info;
	struct msqid_ds ds;
	int n = 0, highest = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);

	memset(per_key, 0, KEYS * sizeof *per_key);
	for (int i = 0; i <= highest; i++) {
		int id = msgctl(i, MSG_STAT, &ds);
		if (id < 0)
			continue;
		long k = (long)ds.msg_perm.__key - base;
		bool keyed = k >= 0 && k < KEYS;
		if (keyed)
			per_key[k]++;
		else if (!alone || ds.msg_perm.__key != IPC_PRIVATE)
			continue;
		n++;
		if (remove && msgctl(id, IPC_RMID, NULL) != 0)
			describe("removing a leftover", errno);
	}
	return n;
}

static void storm(double seconds, bool alone)
{
	pid_t pid[STORMERS];
	unsigned random = (unsigned)getpid() * 2654435761u;
	unsigned long kills = 0;
	int per_key[KEYS], status, ended = 0;

	atomic_store(&sh->stop, 0);
	fflush(stdout);
	for (int i = 0; i < STORMERS; i++)
		if ((pid[i] = fork()) == 0)
			stormer(random + (unsigned)i);
	for (double until = hy_seconds() + seconds; hy_seconds() < until;) {
		random = random * 1664525 + 1013904223;
		struct timespec ts = { 0, (long)((random >> 8) % 3000000) };
		nanosleep(&ts, NULL);
		int i = (int)((random >> 20) % STORMERS);
		kill(pid[i], SIGKILL);
		waitpid(pid[i], &status, 0);
		ended += !WIFSIGNALED(status);
		kills++;
		if ((pid[i] = fork()) == 0)
			stormer(random);
	}
	atomic_store(&sh->stop, 1);
	double t = hy_seconds();
	for (int i = 0; i < STORMERS; i++) {
		pid_t p;
		while ((p = waitpid(pid[i], &status, WNOHANG)) == 0 && hy_seconds() - t < 3)
			usleep(1000);
		if (p == 0) {
			describe("a process of the storm hangs", 0);
			ended++;
			kill(pid[i], SIGKILL);
			waitpid(pid[i], &status, 0);
		}
	}
	printf("note: %lu queues created or found, %lu removed, %lu races lost, %lu kills\n", atomic_load(&sh->created), atomic_load(&sh->removed),
	       atomic_load(&sh->lost_race), kills);
	hy_check(atomic_load(&sh->unexpected) == 0 && ended == 0 && atomic_load(&sh->removed) > 0, "storm",
		 "%lu unexpected results, %d processes hung or ended by themselves; first: %s", atomic_load(&sh->unexpected), ended, sh->first);

	int left = ours(alone, false, per_key), most = 0;
	for (int k = 0; k < KEYS; k++)
		most = per_key[k] > most ? per_key[k] : most;
	printf("note: %d queues left behind by killed processes\n", left);
	hy_check(most <= 1, "one-each", "%d queues with the same key", most);

	static struct hy_message m;
	int wrong = 0;
	char what[120] = "";
	for (int k = -1; k < KEYS; k++) {
		int id = k < 0 ? msgget(IPC_PRIVATE, 0600) : msgget(base + k, IPC_CREAT | 0600);
		bool good = id >= 0;
		while (good && msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) >= 0)
			;
		for (int i = 0; good && i < 10; i++) {
			m.mtype = 9;
			good = msgsnd(id, &m, 1500, IPC_NOWAIT) == 0;
		}
		for (int i = 0; good && i < 10; i++)
			good = msgrcv(id, &m, sizeof m.mtext, 9, IPC_NOWAIT) == 1500;
		good = good && msgctl(id, IPC_RMID, NULL) == 0;
		good = good && (k < 0 || (msgget(base + k, 0) == -1 && errno == ENOENT));
		if (!good && wrong++ == 0)
			snprintf(what, sizeof what, "key %d: %s", k, strerror(errno));
	}
	hy_check(wrong == 0, "usable", "%d of %d; %s", wrong, KEYS + 1, what);
	if (alone) {
		atomic_store(&sh->described, 0);
		sh->first[0] = 0;
		ours(alone, true, per_key);
		left = ours(alone, false, per_key);
		struct msginfo info;
		int r = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);
		hy_check(left == 0 && r >= 0 && info.msgpool == 0, "leftovers", "%d are listed, MSG_INFO counts %d; %s", left, info.msgpool, sh->first);
	} else {
		hy_skip("leftovers", "others use this namespace");
	}
}

int main(int argc, char **argv)
{
	const char *directory = hy_directory();
	struct hy_usage before = { 0, 0, 0 }, after = { 0, 0, 0 };
	struct msginfo info;

	hy_begin("races", 240);
	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	hy_need(sh != MAP_FAILED, "mmap");
	base = (key_t)(0x5a000000 + (getpid() & 0xffff) * 16);
	int id = msgget(base, IPC_CREAT | 0600);
	hy_need(id >= 0 && msgctl(id, IPC_RMID, NULL) == 0, "a queue");
	hy_need(msgctl(0, MSG_INFO, (struct msqid_ds *)&info) >= 0, "MSG_INFO");
	bool alone = info.msgpool == 0;
	if (directory)
		hy_tree(directory, &before, false);

	pair(EXCLUSIVE, "exclusive");
	pair(PLAIN, "plain");
	pair(REMOVERS, "removers");
	opener();
	storm(argc > 1 ? atof(argv[1]) : 3, alone);

	static int ids[300];
	int wrong = 0;
	for (int i = 0; i < 300; i++) {
		ids[i] = msgget(base, IPC_CREAT | 0600);
		for (int k = 0; k < i; k++)
			wrong += ids[k] == ids[i];
		wrong += ids[i] < 0 || msgctl(ids[i], IPC_RMID, NULL) != 0;
	}
	hy_check(wrong == 0, "ids", "%d identifiers of removed queues were given out again, or calls failed", wrong);
	if (directory && alone) {
		hy_tree(directory, &after, false);
		if (!hy_check(after.files <= before.files && after.directories <= before.directories, "files",
			      "%ld files and %ld directories became %ld and %ld", before.files, before.directories, after.files,
			      after.directories))
			hy_tree(directory, &after, true);
	} else {
		hy_skip("files", "no USYSV_DIR, the kernel's queues, or others use this namespace");
	}
	return hy_end();
}
