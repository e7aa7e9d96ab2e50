/*
 * torture.c: kill, stop and interrupt participants of one queue at random moments and account for every message.
 *
 * A supervisor forks workers that send to and receive from one queue, and meanwhile
 *   - kills them with SIGKILL and replaces them,
 *   - stops them (SIGSTOP) for a while and lets them go on,
 *   - interrupts them with a handler that itself calls msgsnd, msgrcv and msgctl on the same queue (SIGUSR1), and now and then
 *     forks a child that does so,
 *   - interrupts them with a handler that leaves the call by siglongjmp (SIGUSR2), also out of the other handler,
 *     on the ordinary stack (even workers) and on an alternate one (odd workers),
 *   - freezes all of them at once and works with the queue itself.
 * With --threads each worker process has several threads at it; a signal then goes to one of them, a kill ends all.
 *
 * The program needs nothing but <sys/msg.h>: it runs on the kernel's queues (where it must pass: that is how the program
 * itself is tested) and on ours.
 *
 * Accounting. A message is named by a *token*, unique within an *epoch*, the time between two checkpoints. Tokens are handed
 * out in ascending order within a *lane*: one lane for the ordinary calls of a process, one for the calls of its handler.
 * sent[token] says what the sender knows: nothing, attempting (before msgsnd), acknowledged (msgsnd returned 0) or refused
 * (it returned -1). received[token] counts. Messages of 16 bytes and more carry token, epoch, length and a check word, and
 * their text is a function of the token; shorter ones (also empty ones) carry token and epoch in their type, which is
 * therefore unique.
 *
 * Properties checked (the names are those of the lines printed at the end):
 *   delivered   every acknowledged message was received, except at most one per receiver that was killed, or jumped away,
 *               between the start of msgrcv and the note of what it had received. The receivers' buffers are shared memory, so
 *               what such a victim had received in full is found there and noted for it; it uses up its allowance only if there is
 *               nothing. In every second epoch, a *strict* one, nobody who receives is killed or sent a jump: then nothing at
 *               all may be missing. A message whose sender was killed or jumped away may be there or not.
 *   doubled     no message was received twice.
 *   ghosts      nothing was received that was not sent: refused, of another epoch, of a token never handed out.
 *   torn        text, length and check word belong to the token; the type is one that was asked for.
 *   order       what one process receives from one (lane, type) has ascending tokens; and after it received token T by msgtyp 0,
 *               the head of the queue, nothing older than T of that lane comes any more.
 *   counters    at a checkpoint, with everybody parked or frozen: IPC_STAT's qnum and cbytes equal what draining the queue with
 *               IPC_NOWAIT finds, and are 0 afterwards.
 *   capacity    exactly qbytes messages of one byte fit, the next gets EAGAIN, all come back.
 *   awake       a blocked receiver for which a matching message is sent, and a blocked sender for which room is made,
 *               returns within 1.5 s.
 *   frozen      with every worker stopped wherever it happened to be, each call of the supervisor returns within 1.5 s
 *               with the right result.
 *   removal     IPC_RMID wakes every blocked sender and receiver with EIDRM within 1.5 s.
 *   errors      no call failed with an errno that it has no reason for.
 *   real        the run did what it was meant to: kills, stops, handlers, jumps and operations all happened.
 *
 * Usage: torture [--seconds N] [--workers N] [--threads N] [--seed N] [--no-kill] [--no-stop] [--no-signal] [--no-jump]
 *                [--no-altstack] [--containers] [--gdb]
 * --containers gives each worker, of one thread, a pid namespace of its own (as root): all are process 1 and thread 1 there, so that owner
 * words of different workers hold equal numbers. --gdb prints a backtrace of a worker that hangs. Exit status 0 when nothing failed.
 */
#define _GNU_SOURCE
#include "torture.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const check_name[CHECKS] = { "delivered", "doubled", "ghosts", "torn", "order", "counters",
						"capacity", "awake", "frozen", "removal", "errors" };

bool do_kill = true;
unsigned long kills;
static bool do_stop = true, do_signal = true, do_jump = true;
static unsigned long stops, user1, user2;

/* To one thread of a worker, or, with several, now and then to the process as a whole. */
static void send_signal(int w, int sig)
{
	int tid = atomic_load(&sh->slot[w * threads + (int)random_below(&rnd, (uint32_t)threads)].tid);
	/* A worker with a pid namespace of its own tells a number that means nothing here. */
	if (threads == 1 || own_pids >= 0 || tid == 0 || random_below(&rnd, 4) == 0)
		kill(pid_of[w], sig);
	else
		syscall(SYS_tgkill, pid_of[w], tid, sig);
}

/* One thing that happens to one worker. */
static void event(void)
{
	int w = (int)random_below(&rnd, (uint32_t)workers);
	uint32_t dice = random_below(&rnd, 100);
	bool victim = !strict_epoch() || sends_only(w);

	if (do_signal && dice < 45) {
		send_signal(w, SIGUSR1);
		user1++;
		/* Something else while the handler is at it. */
		for (uint32_t i = random_below(&rnd, 400); i > 0; i--)
			atomic_signal_fence(memory_order_seq_cst);
		dice = random_below(&rnd, 180);
	}
	if (do_signal && do_jump && victim && dice >= 45 && dice < 65) {
		send_signal(w, SIGUSR2);
		user2++;
	} else if (do_stop && dice >= 65 && dice < 82) {
		kill(pid_of[w], SIGSTOP);
		stops++;
		stopped_until[w] = now_ns() + (random_below(&rnd, 50) == 0 ? 2000000000LL : 1000LL * random_below(&rnd, 50000));
	} else if (do_stop && dice == 82) {
		freeze();
	} else if (do_kill && victim && dice > 82 && dice < 92) {
		kill_worker(w);
		kills++;
		start_worker(w);
	}
}

/* Keeps things moving when all receivers wait for types that nobody can send because the queue is full of others. */
static void pump(void)
{
	static unsigned long before;
	unsigned long done = 0, n = 0;
	size_t len;

	for (int i = 0; i < workers * threads; i++)
		done += atomic_load(&sh->slot[i].sends) + atomic_load(&sh->slot[i].receives);
	if (done - before < 100) {
		while (n < 64 && take_one(0, &len))
			n++;
		for (long type = 1; type <= TYPES; type++)
			do_send(ORDINARY, type, HEADER + random_below(&rnd, 64), IPC_NOWAIT, false);
	}
	before = done;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' }, { "workers", required_argument, NULL, 'w' },
		{ "threads", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 'r' },    { "no-kill", no_argument, NULL, 'k' },
		{ "no-stop", no_argument, NULL, 't' },       { "no-signal", no_argument, NULL, 'i' },
		{ "no-jump", no_argument, NULL, 'j' },
		{ "no-altstack", no_argument, NULL, 'a' },
		{ "containers", no_argument, NULL, 'c' },
		{ "gdb", no_argument, NULL, 'g' },           { NULL, 0, NULL, 0 },
	};
	double seconds = 10;
	uint64_t seed = (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 32);
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': seconds = atof(optarg); break;
		case 'w': workers = atoi(optarg); break;
		case 'n': threads = atoi(optarg); break;
		case 'r': seed = strtoull(optarg, NULL, 0); break;
		case 'k': do_kill = false; break;
		case 't': do_stop = false; break;
		case 'i': do_signal = false; break;
		case 'j': do_jump = false; break;
		case 'a': alternate_stacks = false; break;
		case 'c':
			own_pids = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
			if (own_pids < 0)
				die("/proc/self/ns/pid");
			break;
		case 'g': use_gdb = true; break;
		default:
			fprintf(stderr, "usage: %s [--seconds N] [--workers N] [--threads N] [--seed N] [--no-kill] [--no-stop] [--no-signal] [--no-jump] [--no-altstack] [--containers] [--gdb]\n",
				argv[0]);
			return 2;
		}
	}
	if (own_pids >= 0 && threads != 1) {
		fprintf(stderr, "torture: --containers goes with one thread per worker\n");
		return 2;
	}
	if (workers < 2 || threads < 1 || workers > MAX_SLOTS || threads > MAX_SLOTS || workers * threads > MAX_SLOTS) {
		fprintf(stderr, "torture: at least 2 workers and 1 thread, at most %d threads in all\n", MAX_SLOTS);
		return 2;
	}
	Dl_info where = { 0 };
	dladdr(dlsym(RTLD_DEFAULT, "msgsnd"), &where);
	bool ours = where.dli_fname && strstr(where.dli_fname, "usysv");
	printf("torture: %s queues, %.0f s, %d workers of %d threads, seed %llu\n", ours ? "usysv's" : "the kernel's", seconds, workers, threads,
	       (unsigned long long)seed);
	fflush(stdout);
	const char *expect = getenv("USYSV_EXPECT");
	if (expect && strcmp(expect, "preload") == 0 && !ours) {
		printf("FAIL the library is not loaded\ntorture: 0 passed, 1 failed, 0 skipped\n");
		return 1;
	}

	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		die("mmap");
	rnd = mix(seed);
	prctl(PR_SET_TIMERSLACK, 1);
	make_queue();
	atomic_store(&sh->epoch, 1);
	enter_epoch();

	/* Workers inherit the handlers with the signals blocked, and let them in when they are ready. */
	struct sigaction sa = { .sa_handler = nested_handler, .sa_flags = SA_RESTART | SA_ONSTACK };
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_handler = jump_handler;
	sigaction(SIGUSR2, &sa, NULL);
	sa.sa_handler = watchdog;
	sa.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &sa, NULL);
	sigset_t two;
	sigemptyset(&two);
	sigaddset(&two, SIGUSR1);
	sigaddset(&two, SIGUSR2);
	sigprocmask(SIG_BLOCK, &two, NULL);
	struct itimerval second = { { 1, 0 }, { 1, 0 } };
	beat("running");
	setitimer(ITIMER_REAL, &second, NULL);

	for (int w = 0; w < workers; w++)
		start_worker(w);
	int64_t end = now_ns() + (int64_t)(seconds * 1e9), next_checkpoint = now_ns() + 1000000000, next_pump = 0;
	for (;;) {
		int64_t t = now_ns();
		if (t >= end)
			break;
		last_beat = t;
		if (t >= next_checkpoint || atomic_load(&sh->want_checkpoint)) {
			checkpoint(false);
			next_checkpoint = now_ns() + 1000000LL * (1000 + random_below(&rnd, 2000));
		}
		for (int w = 0; w < workers; w++) {
			if (stopped_until[w] && stopped_until[w] <= t) {
				stopped_until[w] = 0;
				kill(pid_of[w], SIGCONT);
			}
		}
		if (t >= next_pump) {
			pump();
			next_pump = t + 10000000;
		}
		event();
		beat("running");
		sleep_ns((long)random_below(&rnd, 400000));
	}
	checkpoint(true);
	beat("ending");
	for (int w = 0; w < workers; w++) {
		int64_t t0 = now_ns();
		int status = 0;
		pid_t p;
		while ((p = waitpid(pid_of[w], &status, WNOHANG)) == 0 && now_ns() - t0 < PATIENCE_NS)
			sleep_ns(1000000);
		if (p != pid_of[w]) {
			failure(AWAKE, "worker %d does not end", w);
			kill(pid_of[w], SIGKILL);
			waitpid(pid_of[w], &status, 0);
		} else if (status != 0) {
			failure(ERRORS, "worker %d ended with status %#x", w, (unsigned)status);
		}
	}

	/* The account. */
	unsigned long sends = 0, receives = 0, handlers = 0, nested = 0, jumps = 0, forks = 0;
	for (int i = 0; i < workers * threads; i++) {
		sends += atomic_load(&sh->slot[i].sends);
		receives += atomic_load(&sh->slot[i].receives);
		handlers += atomic_load(&sh->slot[i].handlers);
		nested += atomic_load(&sh->slot[i].nested_calls);
		jumps += atomic_load(&sh->slot[i].jumps);
		forks += atomic_load(&sh->slot[i].forks);
	}
	printf("operations: %lu sends, %lu receives, %lu messages accounted for\n", sends, receives, messages_total);
	printf("faults: %lu kills, %lu stops, %lu freezes of all, %lu + %lu signals, %lu handlers with %lu calls and %lu forks, %lu longjmps\n", kills,
	       stops, freezes, user1, user2, handlers, nested, forks, jumps);
	printf("checkpoints: %lu, %lu queues removed; losses allowed %lu, used %lu; %lu messages found with victims\n", checkpoints, swaps, allowed_total,
	       used_total, atomic_load(&sh->recovered));
	printf("waits: longest wake-up %lld us, longest call of the supervisor %lld us\n", (long long)(longest_wake / 1000),
	       (long long)(longest_call / 1000));
	/* These are checked with every message. */
	for (int i = 0; i < CHECKS; i++)
		if (i == TORN || i == ORDER || i == ERRORS)
			atomic_store(&sh->checked[i], receives);
	int passed = 0, failed = 0, skipped = 0;
	for (int i = 0; i < CHECKS; i++) {
		unsigned long f = atomic_load(&sh->failed[i]), n = atomic_load(&sh->checked[i]);
		if (f) {
			printf("FAIL %s: %lu times, first: %s\n", check_name[i], f, sh->description[i]);
			failed++;
		} else if (n == 0) {
			printf("skipped %s: never checked in this run\n", check_name[i]);
			skipped++;
		} else {
			printf("ok %s (%lu times)\n", check_name[i], n);
			passed++;
		}
	}
	if (sends == 0 || receives == 0 || (do_kill && !kills) || (do_stop && !(stops && freezes)) || (do_signal && !(nested && forks && (jumps || !do_jump)))) {
		printf("FAIL real: something that was to happen never did\n");
		failed++;
	} else {
		printf("ok real\n");
		passed++;
	}
	printf("torture: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
	return failed != 0;
}
