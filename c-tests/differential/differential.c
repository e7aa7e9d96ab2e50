/*
 * differential.c: the driver of the differential fuzzer. Random lists of calls, once on the kernel's queues and once on ours, and every
 * answer compared.
 *
 *     differential --lib libusysv.so [--seconds N] [--calls N] [--seed S]      look for differences
 *     differential --lib libusysv.so --list 0xSEED                             one list again, by the seed that a report names
 *     differential --lib libusysv.so --replay FILE                             a list from a file
 *     differential --itself ...                                                the kernel against itself: must find nothing
 *     differential --fault-lib faults.so --fault NAME ...                      the kernel against itself with a fault (faults.c)
 *
 *     --differs       to find a difference is success, and to find none is failure
 *     --at-most N     with --differs: and it must shrink to N operations
 *     --walk-in       do not avoid what is known to differ (known/)
 *     --avoid N       avoid only those bits of enum avoidance
 *     --save DIR      where the shrunk lists go (default: the working directory)
 *     --profile calls|blocking    only lists of that kind
 *
 * A list that differs is shrunk: operations are left out as long as it still differs, then what is left is made simpler. In a scene with
 * blocked processes the kernel itself may have a choice: an outcome of ours is a difference only if the kernel does not show it in many runs,
 * in which it is made to choose otherwise (the asking: kernel_shows here, order.c).
 *
 * Exit status 0 without a difference, 1 with one, 77 where the kernel gives no IPC namespace of one's own: nothing was compared then.
 */
#include "protocol.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KERNEL, OURS, SERVERS = OURS + LIMITS }; /* the others have other limits */
enum { KERNEL_RUNS = 150, SHRINK_RUNS = 25, SURE_RUNS = 500, FAILURES_MAX = 3, SHRINK_SECONDS = 60, PATIENCE = 280000 };
/* In haste: so many times more runs, a few seconds' worth; but no longer than this, however slow the machine. */
enum { HASTE = 8, ASKING_SECONDS = 60 };

struct server {
	struct side *side;
	int to, from;
	pid_t pid;
	char directory[64];
};

static struct server servers[SERVERS];
static const char *library, *fault_library, *fault, *save_to = ".", *profile;
static int itself;
static uint32_t avoid = AVOID_ALL;
static int blocking, limits;
static struct op list[OPS_MAX], best[OPS_MAX], trial[OPS_MAX];

/* An outcome of ours that is in question. */
struct outcome_seen {
	struct record records[OPS_MAX];
	uint32_t hung;
	int32_t end;
};
static struct outcome_seen seen, first;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "differential: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- servers ---- */

static void remove_directory(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	if (d) {
		while ((e = readdir(d)))
			if (e->d_name[0] != '.')
				unlinkat(dirfd(d), e->d_name, 0);
		closedir(d);
	}
	rmdir(path);
}

static void start(int which)
{
	struct server *s = &servers[which];
	int there[2], back[2], memory;
	char fd[16], from[16], to[16];

	memory = memfd_create("side", 0);
	if (memory < 0 || ftruncate(memory, sizeof(struct side)) != 0 || pipe2(there, O_CLOEXEC) != 0 || pipe2(back, O_CLOEXEC) != 0)
		die("start");
	s->side = mmap(NULL, sizeof(struct side), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (s->side == MAP_FAILED)
		die("mmap");
	if (which != KERNEL && library) {
		const char *base = getenv("USYSV_DIR");
		snprintf(s->directory, sizeof s->directory, "%s/usysv-differential.XXXXXX", base ? base : "/dev/shm");
		if (!mkdtemp(s->directory) || chmod(s->directory, 01777) != 0)
			die(s->directory);
	}
	s->pid = fork();
	if (s->pid < 0)
		die("fork");
	if (s->pid == 0) {
		/* Only now: what is preloaded must not see the driver. */
		if (which != KERNEL && library) {
			setenv("LD_PRELOAD", library, 1);
			setenv("USYSV_DIR", s->directory, 1);
		}
		if (which > OURS) {
			char number[16];
			snprintf(number, sizeof number, "%d", limits_of[which - OURS].msgmax);
			setenv("USYSV_MSGMAX", number, 1);
			snprintf(number, sizeof number, "%d", limits_of[which - OURS].msgmnb);
			setenv("USYSV_MSGMNB", number, 1);
			snprintf(number, sizeof number, "%d", limits_of[which - OURS].msgmni);
			setenv("USYSV_MSGMNI", number, 1);
		}
		if (which != KERNEL && fault) {
			setenv("LD_PRELOAD", fault_library, 1);
			setenv("FAULT", fault, 1);
		}
		fcntl(there[0], F_SETFD, 0);
		fcntl(back[1], F_SETFD, 0);
		snprintf(fd, sizeof fd, "%d", memory);
		snprintf(from, sizeof from, "%d", there[0]);
		snprintf(to, sizeof to, "%d", back[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/proc/self/exe", "differential", "--server", fd, from, to, which != KERNEL && library ? "0" : "1", (char *)NULL);
		_exit(127);
	}
	close(memory);
	close(there[0]);
	close(back[1]);
	s->to = there[1];
	s->from = back[0];
}

static void stop_all(void)
{
	for (int i = 0; i < SERVERS; i++) {
		struct server *s = &servers[i];
		if (s->pid <= 0)
			continue;
		close(s->to);
		waitpid(s->pid, NULL, 0);
		s->pid = 0;
		if (s->directory[0])
			remove_directory(s->directory);
	}
}

static struct server *ours(void)
{
	return &servers[library ? OURS + limits : OURS];
}

static void request(struct server *s, const struct op *ops, uint32_t count, int verbose, uint32_t perturb)
{
	s->side->perturb = perturb;
	s->side->count = count;
	s->side->blocking = (uint32_t)blocking;
	s->side->limits = (uint32_t)limits;
	s->side->verbose = (uint32_t)verbose;
	s->side->avoid = avoid;
	memcpy(s->side->ops, ops, count * sizeof *ops);
	if (write(s->to, "x", 1) != 1)
		die("a server is gone");
}

static void await(struct server *s)
{
	struct pollfd p = { .fd = s->from, .events = POLLIN };
	char byte;
	if (poll(&p, 1, PATIENCE) != 1 || read(s->from, &byte, 1) != 1)
		die("a server does not answer");
	if (WIFEXITED(s->side->end) && WEXITSTATUS(s->side->end) >= 3) {
		fprintf(stderr, "differential: a conductor could not be set up (status %d)\n", WEXITSTATUS(s->side->end));
		exit(2);
	}
}

static void run_one(struct server *s, const struct op *ops, uint32_t count, uint32_t perturb)
{
	request(s, ops, count, 0, perturb);
	await(s);
}

static void run_both(const struct op *ops, uint32_t count, int verbose)
{
	request(&servers[KERNEL], ops, count, verbose, 0);
	request(ours(), ops, count, verbose, 0);
	await(&servers[KERNEL]);
	await(ours());
}

/* ---- comparing ---- */

static int same(const struct record *a, const struct record *b)
{
	return memcmp(a, b, sizeof *a) == 0;
}

/* The first operation whose record differs; `count` if none does, but one side hung or died. */
static int difference(const struct record *a, const struct record *b, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!same(&a[i], &b[i]))
			return (int)i;
	return -1;
}

static int compare(uint32_t count)
{
	struct side *k = servers[KERNEL].side, *o = ours()->side;
	int d = difference(k->records, o->records, count);
	if (d < 0 && (k->hung != o->hung || k->end != o->end))
		return (int)count;
	return d;
}

static void note(struct outcome_seen *o, uint32_t count)
{
	struct side *side = ours()->side;
	memcpy(o->records, side->records, count * sizeof *side->records);
	o->hung = side->hung;
	o->end = side->end;
}

static int is_hasty(const struct op *ops, uint32_t count)
{
	for (uint32_t i = 0; i + 1 < count; i++)
		if (ops[i].hasty)
			return 1;
	return 0;
}

/*
 * Whether the kernel has this outcome of a scene as well, in `runs` runs: one in four as it comes, the others perturbed, each in its own way
 * (order.c). Where processes act at once there are many more orders than where one acts and the others wait: a pair has two, three pairs
 * have eight, and each is drawn anew; so a scene in haste is asked for longer. Patience costs nothing but time, and that only after an
 * alarm: what the kernel never does it does not do in a thousand runs either.
 */
static int kernel_shows(const struct op *ops, uint32_t count, const struct outcome_seen *o, int runs)
{
	const struct side *kernel = servers[KERNEL].side;
	double end = now() + ASKING_SECONDS;
	if (is_hasty(ops, count))
		runs *= HASTE;
	for (int i = 0; i < runs && now() < end; i++) {
		run_one(&servers[KERNEL], ops, count, i % 4 ? (uint32_t)i : 0);
		if (difference(kernel->records, o->records, count) < 0 && kernel->hung == o->hung && kernel->end == o->end)
			return 1;
	}
	return 0;
}

/* Where these operations come out differently, or -1. In a scene: differently from all that the kernel shows in `runs` runs. */
static int differs(const struct op *ops, uint32_t count, int runs)
{
	int d;
	run_both(ops, count, 0);
	d = compare(count);
	if (d < 0 || !blocking)
		return d;
	note(&seen, count);
	return kernel_shows(ops, count, &seen, runs) ? -1 : d;
}

/* ---- shrinking ---- */

static int still_differs(const struct op *ops, uint32_t count)
{
	return differs(ops, count, SHRINK_RUNS) >= 0;
}

static uint32_t shrink(uint32_t count)
{
	double end = now() + SHRINK_SECONDS;
	int d = differs(best, count, SHRINK_RUNS);

	/* What follows the difference has no part in it. */
	if (d >= 0 && (uint32_t)d + 1 < count && still_differs(best, (uint32_t)d + 1))
		count = (uint32_t)d + 1;
	for (uint32_t chunk = count / 2 ? count / 2 : 1; now() < end;) {
		int progress = 0;
		for (uint32_t at = 0; at < count && now() < end;) {
			uint32_t n = chunk < count - at ? chunk : count - at;
			memcpy(trial, best, at * sizeof *trial);
			memcpy(trial + at, best + at + n, (count - at - n) * sizeof *trial);
			if (count > n && still_differs(trial, count - n)) {
				count -= n;
				memcpy(best, trial, count * sizeof *best);
				progress = 1;
			} else {
				at += n;
			}
		}
		if (chunk == 1 && !progress)
			break;
		if (!progress || chunk > count)
			chunk = chunk > 1 ? chunk / 2 : 1;
		if (chunk > count / 2 && chunk > 1)
			chunk = count / 2 ? count / 2 : 1;
	}
	/* Simpler values, one at a time. */
	for (uint32_t i = 0; i < count && now() < end; i++) {
		for (int what = 0; what < 10; what++) {
			memcpy(trial, best, count * sizeof *trial);
			struct op *op = &trial[i];
			switch (what) {
			case 0: op->actor = 0; break;
			case 1: op->forked = op->align = 0; break;
			case 2: op->buffer = GOOD; break;
			case 3: op->naming = BY_SLOT; break;
			case 4: op->flags = op->kind == SEND || op->kind == RECEIVE ? op->flags & 04000 : op->kind == GET ? 01666 : op->flags; break;
			case 5: op->b = op->kind == RECEIVE ? limits_of[LARGE].msgmax : op->kind == SEND ? 1 : op->b; break;
			case 6: op->b = op->kind == SEND ? 0 : op->b; break;
			case 7: op->a = op->kind == SEND ? 1 : op->kind == CREDENTIALS ? op->a : 0; break;
			case 8: op->hasty = 0; break;
			default: op->slot = op->kind < CREDENTIALS ? 0 : op->slot; break;
			}
			if (memcmp(op, &best[i], sizeof *op) && still_differs(trial, count))
				memcpy(best, trial, count * sizeof *best);
		}
	}
	return count;
}

/* ---- reporting ---- */

static const char *outcome(const struct record *r, const char *detail, char *text, size_t size)
{
	switch (r->outcome) {
	case NOT_RUN: return "not reached";
	case AVOIDED: return "avoided: known to differ";
	case BUSY: return "-";
	case STILL_BLOCKED: return "still blocked at the end";
	case DIED: snprintf(text, size, "died of signal %d (after %d)", r->error, r->done_at); return text;
	}
	int used = snprintf(text, size, "%" PRId64 "%s%s", r->result, r->error ? " " : "", r->error ? strerrorname_np(r->error) : "");
	if (r->done_at)
		used += snprintf(text + used, size - (size_t)used, " (after %d)", r->done_at);
	if (detail[0])
		snprintf(text + used, size - (size_t)used, " [%s]", detail);
	return text;
}

static void report(uint32_t count)
{
	struct side *k = servers[KERNEL].side, *o = ours()->side;
	char words[400], a[DETAIL + 100], b[DETAIL + 100];

	run_both(best, count, 1);
	for (int i = 0; blocking && i < KERNEL_RUNS && compare(count) < 0; i++)
		run_both(best, count, 1);
	for (uint32_t i = 0; i < count; i++) {
		describe(&best[i], words, sizeof words);
		const char *kernel = outcome(&k->records[i], k->detail[i], a, sizeof a);
		const char *us = outcome(&o->records[i], o->detail[i], b, sizeof b);
		if (same(&k->records[i], &o->records[i]))
			printf("  %4u  %s\n           %s\n", i, words, kernel);
		else
			printf("  %4u  %s\n        *  kernel: %s\n        *  ours:   %s\n", i, words, kernel, us);
	}
	if (k->hung || o->hung)
		printf("  the kernel's side %s, ours %s\n", k->hung ? "hung" : "ended", o->hung ? "hung" : "ended");
	if (k->end != o->end)
		printf("  the conductor ended with status 0x%x on the kernel, 0x%x on ours\n", (unsigned)k->end, (unsigned)o->end);
}

/* Of a difference that may never come again: what was seen of it. */
static void report_once(uint32_t count, int d, const struct record *kernels)
{
	char words[400], a[DETAIL], b[DETAIL];
	if ((uint32_t)d >= count)
		return;
	describe(&list[d], words, sizeof words);
	printf("  %4d  %s\n        *  kernel: %s, memory %016" PRIx64 "\n", d, words, outcome(kernels, "", a, sizeof a), kernels->memory);
	printf("        *  ours:   %s, memory %016" PRIx64 "\n", outcome(&first.records[d], "", b, sizeof b), first.records[d].memory);
}

static void save_list(uint64_t seed, uint32_t count, const char *what)
{
	char path[512];
	snprintf(path, sizeof path, "%s/differential-%016" PRIx64 ".ops", save_to, seed);
	FILE *f = fopen(path, "we");
	if (!f)
		return;
	fprintf(f, "# %s\n", what);
	save(f, best, count, blocking, limits);
	fclose(f);
	printf("  saved as %s; again: --replay %s, or the whole list: --list 0x%016" PRIx64 "\n", path, path, seed);
}

/* ---- main ---- */

static void usage(void)
{
	fprintf(stderr, "usage: see the head of differential.c\n");
	exit(2);
}

int main(int argc, char **argv)
{
	double seconds = 0, begin = now(), said = begin;
	uint64_t calls_wanted = 0, seed = 0, one = 0;
	int have_seed = 0, want_difference = 0, have_one = 0;
	unsigned long at_most = OPS_MAX;
	const char *replay = NULL;

	if (argc == 6 && !strcmp(argv[1], "--server")) {
		struct side *side = mmap(NULL, sizeof *side, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0);
		if (side == MAP_FAILED)
			die("mmap");
		return serve(side, atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
	}
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (!strcmp(argv[i], "--differs")) {
			want_difference = 1;
			continue;
		} else if (!strcmp(argv[i], "--walk-in")) {
			avoid = 0;
			continue;
		} else if (!strcmp(argv[i], "--itself")) {
			itself = 1;
			continue;
		}
		if (!value)
			usage();
		i++;
		if (!strcmp(argv[i - 1], "--lib"))
			library = value;
		else if (!strcmp(argv[i - 1], "--fault-lib"))
			fault_library = value;
		else if (!strcmp(argv[i - 1], "--fault"))
			fault = value;
		else if (!strcmp(argv[i - 1], "--seconds"))
			seconds = atof(value);
		else if (!strcmp(argv[i - 1], "--calls"))
			calls_wanted = strtoull(value, NULL, 0);
		else if (!strcmp(argv[i - 1], "--seed"))
			seed = strtoull(value, NULL, 0), have_seed = 1;
		else if (!strcmp(argv[i - 1], "--list"))
			one = strtoull(value, NULL, 0), have_one = 1;
		else if (!strcmp(argv[i - 1], "--replay"))
			replay = value;
		else if (!strcmp(argv[i - 1], "--save"))
			save_to = value;
		else if (!strcmp(argv[i - 1], "--profile"))
			profile = value;
		else if (!strcmp(argv[i - 1], "--avoid"))
			avoid = (uint32_t)strtoul(value, NULL, 0);
		else if (!strcmp(argv[i - 1], "--at-most"))
			at_most = strtoul(value, NULL, 0);
		else
			usage();
	}
	if (!library + !fault + !itself != 2 || (fault && !fault_library))
		usage();
	if (access("/proc/sys/kernel/msgmax", F_OK) != 0) {
		printf("skipped differential: this kernel has no System V message queues to compare with\n");
		return 77;
	}
	pid_t probe = fork();
	if (probe == 0)
		_exit(unshare(CLONE_NEWIPC) != 0);
	int status;
	waitpid(probe, &status, 0);
	if (status != 0) {
		printf("skipped differential: no IPC namespace of our own here (unshare), so the kernel's side would not begin empty\n");
		return 77;
	}
	signal(SIGPIPE, SIG_IGN);
	atexit(stop_all);
	start(KERNEL);
	start(OURS);
	for (int i = OURS + 1; library && i < SERVERS; i++)
		start(i);
	if (!have_seed)
		seed = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();

	uint64_t lists = 0, calls = 0, avoided = 0, scenes = 0, choices = 0;
	int failures = 0;
	printf("differential: seed %" PRIu64 "\n", seed);
	for (uint64_t i = 0; failures < (want_difference ? 1 : FAILURES_MAX); i++) {
		uint64_t this = have_one ? one : mix(seed + i * 0x9e3779b97f4a7c15);
		uint32_t count;
		if (replay) {
			FILE *f = fopen(replay, "re");
			if (!f)
				die(replay);
			count = load(f, list, &blocking, &limits);
			fclose(f);
			if (count == 0) {
				fprintf(stderr, "differential: %s is not a list of operations\n", replay);
				return 2;
			}
		} else {
			count = generate(list, this, &blocking, &limits);
			if (profile && !have_one && blocking != !strcmp(profile, "blocking"))
				continue;
		}
		run_both(list, count, 0);
		lists++;
		scenes += (uint64_t)blocking;
		avoided += ours()->side->avoided;
		ours()->side->avoided = 0;
		int d = compare(count);
		if (d >= 0) {
			struct record kernels = { 0 };
			if ((uint32_t)d < count)
				kernels = servers[KERNEL].side->records[d];
			note(&first, count);
			printf("list 0x%016" PRIx64 " (%s, %u operations): differs at operation %d\n", this, blocking ? "a scene" : "calls", count, d);
			fflush(stdout);
			/* In a scene the question is the outcome just seen, which need not come again. */
			int again = !blocking ? differs(list, count, 0) : kernel_shows(list, count, &first, KERNEL_RUNS) ? -1 : d;
			if (again < 0 && blocking) {
				/* The kernel shows it as well: it had a choice. */
				printf("  the kernel shows that outcome too, in other runs\n");
				choices++;
			} else if (again < 0) {
				printf("FAIL list 0x%016" PRIx64 ": differed once, at operation %d, and not again\n", this, d);
				report_once(count, d, &kernels);
				failures++;
			} else {
				memcpy(best, list, count * sizeof *best);
				uint32_t shrunk = shrink(count);
				/* Leaving out also selects for what the kernel shows seldom: be sure, of what is left or else of the whole. */
				int left = !blocking || differs(best, shrunk, SURE_RUNS) >= 0;
				if (!left && kernel_shows(list, count, &first, SURE_RUNS)) {
					printf("  shrunk to %u operations, and the kernel shows that outcome too, but seldom\n", shrunk);
					choices++;
				} else {
					if (!left) {
						shrunk = count;
						memcpy(best, list, count * sizeof *best);
						report_once(count, d, &kernels);
					}
					printf("FAIL list 0x%016" PRIx64 ", shrunk to %u operations:\n", this, shrunk);
					report(shrunk);
					save_list(this, shrunk, "shrunk by the differential fuzzer");
					failures++;
				}
				if (want_difference && failures && shrunk > at_most) {
					printf("FAIL shrunk to %u operations, %lu expected at most\n", shrunk, at_most);
					want_difference = 0;
				}
			}
			fflush(stdout);
		}
		calls = servers[KERNEL].side->calls;
		if (now() - said > 30) {
			said = now();
			printf("  %.0f s: %" PRIu64 " lists, %" PRIu64 " calls\n", said - begin, lists, calls);
			fflush(stdout);
		}
		if (have_one || replay || (seconds > 0 && now() - begin >= seconds) || (calls_wanted && calls >= calls_wanted))
			break;
	}
	double took = now() - begin;
	printf("differential: %" PRIu64 " lists (%" PRIu64 " scenes), %" PRIu64 " calls compared in %.0f s (%.0f a second); %" PRIu64
	       " operations avoided, %" PRIu64 " choices of the kernel; %d differences\n",
		lists, scenes, calls, took, (double)calls / took, avoided, choices, failures);
	return want_difference ? failures == 0 : failures != 0;
}
