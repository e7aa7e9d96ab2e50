/*
 * vandal: a process that may use a queue writes anything anywhere into its files, while others use it.
 *
 *     vandal [--seconds N] [--seed N]
 *
 * Roles, each a process of its own: victims that send and receive on the target queue (by all ways of receiving, blocking too, and with
 * IPC_STAT, IPC_SET and MSG_COPY in between), the vandal that has mapped the target's files and scribbles into them, and two bystanders
 * that pass numbers to each other through another queue in the same directory. Every fifth of a second the target is thrown away and
 * another one takes its place, so that there is always something left to spoil; the vandal changes its manner each time:
 *
 *     noise   random words anywhere in what is in use      pages   whole pages of noise, of zeros, of ones
 *     aimed   plausible values where they mean something   storm   the word that every commit changes, without pause
 *     stale   pieces of the past written back              holes   pages punched out of the files
 *
 * What must hold:
 *  1. no victim ends by a signal, whatever it meets
 *  2. no call hangs: one that may not wait ends within PATIENCE seconds of processor time; one that may wait ends when a signal arrives
 *  3. nothing is written outside of a caller's buffer: every buffer lies against pages that cannot be written, and behind a canary
 *  4. errors are errors that msgop(2) and msgctl(2) have
 *  5. the bystanders' numbers arrive, each once and in order, while all this goes on
 *  6. the vandal did something: some messages did arrive and some calls did fail
 *
 * Prints its seed. Ends with `vandal: N passed, N failed, N skipped`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

enum { VICTIMS = 4, PAGE = 4096, LARGEST = 8192, PATIENCE = 5, ROUND_MS = 200 };
enum { ARENA = 4 << 20, SHOWN = 4 << 20 }; /* what the vandal maps of each file */

enum manner { NOISE, PAGES, AIMED, STORM, STALE, HOLES, MANNERS };
static const char *const manner_name[MANNERS] = { "noise", "pages", "aimed", "storm", "stale", "holes" };

struct victim {
	_Atomic uint64_t calls, good, bad;
	_Atomic int inside, may_wait; /* in a call; one that may wait */
	_Atomic unsigned errors[160];
	char pad[64];
};

static struct {
	_Atomic int target;  /* identifier */
	_Atomic int manner;
	_Atomic int stop, failed;
	_Atomic uint64_t passed_on, writes;
	char why[400];
	struct victim victim[VICTIMS];
} *sh;

static const char *directory;
static int other_queue;

static void fail(const char *format, ...)
{
	if (atomic_exchange(&sh->failed, 1) == 0) {
		va_list a;
		va_start(a, format);
		vsnprintf(sh->why, sizeof sh->why, format, a);
		va_end(a);
	}
}

static uint64_t state;
static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dULL;
}
static unsigned below(unsigned n) { return (unsigned)((rnd() >> 33) % n); }

static uint64_t milliseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the victims ---- */

struct message {
	long type;
	unsigned char text[];
};

/* A buffer for texts of exactly this size that ends where memory ends; before it a page that cannot be written either. */
static unsigned char *pages;
static struct message *buffer_of(size_t size)
{
	size_t whole = sizeof(long) + size;
	return (struct message *)(void *)(pages + PAGE + 4 * PAGE - whole);
}

static void set_up_buffer(void)
{
	pages = mmap(NULL, 6 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED || mprotect(pages + PAGE, 4 * PAGE, PROT_READ | PROT_WRITE) != 0)
		_exit(3);
}

static void note(struct victim *me, long got, int error)
{
	static const int known[] = { EINVAL, EIDRM, EAGAIN, ENOMSG, E2BIG, ENOMEM, EINTR, EACCES, EPERM };
	me->calls++;
	if (got >= 0) {
		me->good++;
		return;
	}
	me->bad++;
	if (error > 0 && error < 160)
		me->errors[error]++;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (known[i] == error)
			return;
	fail("a call answered errno %d (%s)", error, strerror(error));
}

static void on_signal(int number) { (void)number; }

static void victim(int number)
{
	struct victim *me = &sh->victim[number];
	struct sigaction act = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &act, NULL);
	set_up_buffer();
	while (!sh->stop) {
		int id = sh->target;
		size_t size = below(4) ? below(200) : below(LARGEST + 1);
		unsigned what = below(100);
		struct message *m = buffer_of(size);
		struct msqid_ds ds;
		long got;
		int error, flags = below(64) ? IPC_NOWAIT : 0;

		errno = 0;
		me->may_wait = flags == 0 && what < 85;
		me->inside = 1;
		if (what < 40) {
			m->type = 1 + (long)below(8);
			memset(m->text, (int)m->type, size);
			got = msgsnd(id, m, size, flags);
			error = errno;
		} else if (what < 85) {
			static const long types[] = { 0, 0, 1, 3, -4, -8, 7, -1 };
			unsigned char *guard = (unsigned char *)m - 64;
			memset(guard, 0xa5, 64);
			memset(m->text, 0x5a, size);
			got = msgrcv(id, m, size, types[below(8)], flags | (below(2) ? MSG_NOERROR : 0) | (below(8) ? 0 : MSG_EXCEPT));
			error = errno;
			for (int i = 0; i < 64; i++)
				if (guard[i] != 0xa5)
					fail("msgrcv wrote before the buffer");
			if (got > (long)size)
				fail("msgrcv says %ld bytes in a buffer of %zu", got, size);
			for (size_t i = got < 0 ? 0 : (size_t)got; i < size; i++)
				if (m->text[i] != 0x5a) {
					fail("msgrcv wrote beyond the %ld bytes that it received", got);
					break;
				}
		} else if (what < 90) {
			got = msgrcv(id, m, size, (long)below(20), IPC_NOWAIT | MSG_COPY);
			error = errno;
			if (got > (long)size)
				fail("MSG_COPY says %ld bytes in a buffer of %zu", got, size);
		} else if (what < 96) {
			got = msgctl(id, IPC_STAT, &ds);
			error = errno;
		} else if (what < 98) {
			memset(&ds, 0, sizeof ds);
			ds.msg_perm.mode = 0600;
			ds.msg_perm.uid = geteuid();
			ds.msg_perm.gid = getegid();
			ds.msg_qbytes = 16384;
			got = msgctl(id, IPC_SET, &ds);
			error = errno;
		} else {
			struct msginfo info;
			got = msgctl(0, below(2) ? MSG_INFO : IPC_INFO, (struct msqid_ds *)(void *)&info);
			error = errno;
		}
		me->inside = 0;
		note(me, got, error);
		if (got < 0 && (error == EINVAL || error == EIDRM) && sh->target == id)
			usleep(200); /* gone until the next comes */
	}
	_exit(0);
}

/* ---- the bystanders ---- */

static void bystander(int sends)
{
	struct { long type; uint64_t number; char rest[100]; } m = { .type = 1 };
	for (uint64_t n = 0; !sh->stop || !sends; n++) {
		if (sends) {
			m.number = n;
			memset(m.rest, (int)n, sizeof m.rest);
			size_t size = sizeof n + (n % 7 ? 0 : sizeof m.rest);
			while (msgsnd(other_queue, &m, size, IPC_NOWAIT) != 0) {
				if (errno != EAGAIN) {
					fail("a bystander's msgsnd: %s", strerror(errno));
					_exit(1);
				}
				if (sh->stop)
					break;
				usleep(100);
			}
		} else {
			ssize_t got;
			while ((got = msgrcv(other_queue, &m, sizeof m - sizeof m.type, 0, IPC_NOWAIT)) < 0) {
				if (errno != ENOMSG) {
					fail("a bystander's msgrcv: %s", strerror(errno));
					_exit(1);
				}
				if (sh->stop > 1)
					_exit(0);
				usleep(100);
			}
			if (m.number != n || got != (ssize_t)(sizeof n + (n % 7 ? 0 : sizeof m.rest))) {
				fail("a bystander got %llu, %zd bytes, instead of %llu", (unsigned long long)m.number, got, (unsigned long long)n);
				_exit(1);
			}
			sh->passed_on++;
		}
		if (n % 64 == 0)
			usleep(50);
	}
	_exit(0);
}

/* ---- the vandal ---- */

static uint64_t plausible(uint64_t before)
{
	static const uint64_t some[] = { 0, 1, 2, 3, 4, 6, 7, 31, 32, 33, 63, 64, 80, 81, 4094, 4095, 4096, 1 << 24, (1 << 24) + 5, (1 << 25) - 1,
		16744448, 16744447, 0x40000000, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, INT64_MAX };
	uint64_t value = some[below(sizeof some / sizeof some[0])], tag = ~(((uint64_t)1 << 25) - 1);
	switch (below(8)) {
	case 0: return value;
	case 1: return (before & tag) | (value & ~tag);
	case 2: return (before & ~tag) | (value << 25);
	case 3: return before + 1;
	case 4: return value << 32 | value;
	case 5: return (before & 0xffffffff) | value << 32;
	case 6: return before ^ ((uint64_t)1 << below(64));
	default: return rnd();
	}
}

/* The end of what is in use: both files are mostly holes, and touching those would only make them large. */
static size_t in_use(int fd, size_t from)
{
	off_t end = lseek(fd, (off_t)from, SEEK_HOLE);
	size_t used = end < 0 ? PAGE : (size_t)end - from;
	return used > SHOWN ? SHOWN : used < PAGE ? PAGE : used;
}

static void spoil(int id, enum manner manner, _Atomic uint64_t *control, _Atomic uint64_t *body, int fds[2])
{
	static uint64_t past[2][512];
	_Atomic uint64_t *file[2] = { control, body };
	int which = (int)below(2);
	size_t words = in_use(fds[which], which ? ARENA : 0) / 8;
	_Atomic uint64_t *at = file[which] + below((unsigned)words);

	(void)id;
	switch (manner) {
	case NOISE:
		*at = rnd();
		break;
	case PAGES: {
		_Atomic uint64_t *page = file[which] + below((unsigned)(words / 512)) * 512;
		unsigned kind = below(4);
		for (int i = 0; i < 512; i++)
			page[i] = kind == 0 ? 0 : kind == 1 ? UINT64_MAX : kind == 2 ? rnd() : plausible(page[i]);
		usleep(1000);
		break;
	}
	case AIMED:
		if (which == 0) {
			/* cur, the records of the first participants, what they hold, the free lists. */
			unsigned seat = below(4), kind = below(5);
			size_t offset = kind == 0 ? 64 : kind == 1 ? 128 + 8 * below(26) : 1024 + seat * 1024 + (kind == 2 ? 8 * below(16) : kind == 3 ? 128 + 8 * below(96) : 896 + 8 * below(10));
			at = control + offset / 8;
		} else {
			at = body + below((unsigned)(words / 16)) * 16 + below(16) % 9;
		}
		*at = plausible(*at);
		if (below(3) == 0)
			usleep(below(300));
		break;
	case STORM:
		for (int i = 0; i < 2000; i++)
			control[8] = below(2) ? control[8] + (1 << 14) : plausible(control[8]);
		break;
	case STALE: {
		size_t n = words < 512 ? words : 512;
		if (below(2))
			for (size_t i = 0; i < n; i++)
				past[which][i] = file[which][i];
		else if (past[which][0])
			for (size_t i = 0; i < n; i++)
				if (below(4))
					file[which][i] = past[which][i];
		usleep(200);
		break;
	}
	case HOLES: {
		off_t from = (which ? ARENA : 0) + (off_t)below((unsigned)(words / 512)) * PAGE;
		if (fallocate(fds[which], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, PAGE) != 0 && errno != EOPNOTSUPP)
			fail("a hole: %s", strerror(errno));
		usleep(2000);
		break;
	}
	case MANNERS:
		break;
	}
	sh->writes++;
}

static void vandal(void)
{
	while (!sh->stop) {
		int id = sh->target, fds[2];
		char path[2][300];
		snprintf(path[0], sizeof path[0], "%s/usysv.q.%d", directory, id & 0x7fff);
		snprintf(path[1], sizeof path[1], "%s/usysv.b.%d", directory, id);
		fds[0] = open(path[0], O_RDWR | O_CLOEXEC);
		fds[1] = open(path[1], O_RDWR | O_CLOEXEC);
		if (fds[0] >= 0 && fds[1] >= 0) {
			void *control = mmap(NULL, SHOWN, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
			void *body = mmap(NULL, SHOWN, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], ARENA);
			if (control == MAP_FAILED || body == MAP_FAILED)
				_exit(3);
			usleep(below(20000)); /* something to spoil first */
			while (!sh->stop && sh->target == id)
				spoil(id, (enum manner)sh->manner, control, body, fds);
			munmap(control, SHOWN);
			munmap(body, SHOWN);
		}
		close(fds[0]);
		close(fds[1]);
	}
	_exit(0);
}

/* ---- the supervisor ---- */

static pid_t start(void (*role)(int), int argument)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		state = state * 31 + (uint64_t)argument + 1;
		role(argument);
	}
	return pid;
}

static void run_vandal(int n) { (void)n; vandal(); }

static int make_target(void)
{
	int id = msgget(IPC_PRIVATE, 0600);
	if (id < 0)
		fail("msgget beside the vandal: %s", strerror(errno));
	return id;
}

static void throw_away(int id)
{
	char path[300];
	/* It may be so spoilt that it cannot be removed as a queue; then its owner takes the files away. */
	snprintf(path, sizeof path, "%s/usysv.q.%d", directory, id & 0x7fff);
	unlink(path);
	snprintf(path, sizeof path, "%s/usysv.b.%d", directory, id);
	unlink(path);
}

static uint64_t processor_time(pid_t pid)
{
	clockid_t clock;
	return clock_getcpuclockid(pid, &clock) == 0 ? milliseconds(clock) : 0;
}

int main(int argc, char **argv)
{
	unsigned seconds = 10;
	uint64_t seed = (uint64_t)getpid() * 1000003 + (uint64_t)time(NULL), end;
	pid_t pid[VICTIMS + 3];
	struct { uint64_t calls, since, cpu; } seen[VICTIMS] = { { 0, 0, 0 } };
	unsigned rounds[MANNERS] = { 0 }, round = 0;
	int status;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--seconds"))
			seconds = (unsigned)atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
	}
	directory = getenv("USYSV_DIR");
	if (!directory) {
		puts("FAIL vandal: USYSV_DIR must name a directory of its own\nvandal: 0 passed, 1 failed, 0 skipped");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("vandal: seed %llu, %u seconds, %d victims\n", (unsigned long long)seed, seconds, VICTIMS);
	state = seed | 1;
	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		return 3;
	other_queue = msgget(IPC_PRIVATE, 0600);
	sh->target = make_target();
	for (int i = 0; i < VICTIMS; i++)
		pid[i] = start(victim, i);
	pid[VICTIMS] = start(bystander, 1);
	pid[VICTIMS + 1] = start(bystander, 0);
	pid[VICTIMS + 2] = start(run_vandal, 100);

	end = milliseconds(CLOCK_MONOTONIC) + 1000ull * seconds;
	while (milliseconds(CLOCK_MONOTONIC) < end && !sh->failed) {
		sh->manner = (int)(round % MANNERS);
		rounds[sh->manner]++;
		for (int slice = 0; slice < 10 && !sh->failed; slice++) {
			usleep(ROUND_MS * 100);
			uint64_t now = milliseconds(CLOCK_MONOTONIC);
			for (int i = 0; i < VICTIMS + 3; i++)
				if (waitpid(pid[i], &status, WNOHANG) == pid[i]) {
					fail("%s %d ended: %s %d", i < VICTIMS ? "victim" : "helper", i, WIFSIGNALED(status) ? "signal" : "status",
						WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
					pid[i] = 0;
				}
			for (int i = 0; i < VICTIMS && !sh->failed; i++) {
				struct victim *v = &sh->victim[i];
				if (v->calls != seen[i].calls || !v->inside || !pid[i]) {
					seen[i].calls = v->calls;
					seen[i].since = now;
					seen[i].cpu = pid[i] ? processor_time(pid[i]) : 0;
					continue;
				}
				/* The same call still: one that waits is interrupted; one that works gets its time. */
				if (now - seen[i].since > 300 && v->may_wait)
					kill(pid[i], SIGUSR1);
				if (processor_time(pid[i]) - seen[i].cpu > PATIENCE * 1000 || now - seen[i].since > 60000)
					fail("victim %d hangs in a call that may %swait", i, v->may_wait ? "" : "not ");
			}
		}
		int old = sh->target;
		sh->target = make_target();
		throw_away(old);
		round++;
	}
	sh->stop = 1;
	for (int i = 0; i < VICTIMS + 1; i++)
		for (int tries = 0; pid[i] && waitpid(pid[i], &status, WNOHANG) == 0; tries++) {
			usleep(10000);
			if (i < VICTIMS)
				kill(pid[i], SIGUSR1);
			if (tries > 6000) {
				fail("process %d does not come to an end", i);
				kill(pid[i], SIGKILL);
			}
		}
	usleep(100000);
	sh->stop = 2;
	for (int i = VICTIMS + 1; i < VICTIMS + 3; i++)
		if (pid[i])
			waitpid(pid[i], &status, 0);

	uint64_t calls = 0, good = 0, bad = 0;
	printf("vandal: rounds");
	for (int m = 0; m < MANNERS; m++)
		printf(" %s %u", manner_name[m], rounds[m]);
	for (int i = 0; i < VICTIMS; i++) {
		calls += sh->victim[i].calls;
		good += sh->victim[i].good;
		bad += sh->victim[i].bad;
	}
	printf("; %llu strokes, %llu calls of victims, %llu of them errors (", (unsigned long long)sh->writes, (unsigned long long)calls, (unsigned long long)bad);
	for (int e = 0; e < 160; e++) {
		unsigned n = 0;
		for (int i = 0; i < VICTIMS; i++)
			n += sh->victim[i].errors[e];
		if (n)
			printf("%s %u, ", strerrorname_np(e), n);
	}
	printf("), %llu numbers between bystanders\n", (unsigned long long)sh->passed_on);
	if (!sh->failed && (good == 0 || bad == 0 || sh->passed_on == 0 || sh->writes == 0))
		fail("too little happened");
	throw_away(sh->target);
	if (msgctl(other_queue, IPC_RMID, NULL) != 0)
		fail("the bystanders' queue cannot be removed: %s", strerror(errno));
	if (sh->failed) {
		printf("FAIL vandal: %s (seed %llu)\nvandal: 0 passed, 1 failed, 0 skipped\n", sh->why, (unsigned long long)seed);
		return 1;
	}
	puts("ok vandal\nvandal: 1 passed, 0 failed, 0 skipped");
	return 0;
}
