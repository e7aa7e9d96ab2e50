/*
 * everystep.c: end, stop or interrupt a call after each of its instructions.
 *
 * torture.c hits calls at random moments; this program hits them at chosen ones. A victim process makes one call under
 * ptrace, single-stepped. After k instructions one of these happens:
 *   kill      SIGKILL
 *   stop      it stays stopped while the supervisor makes a thousand calls on the queue, then it goes on
 *   nest      a signal handler sends, receives and asks for the status on the same queue, then the call goes on
 *   jump      a signal handler leaves the call by siglongjmp; the victim then sends and receives again
 *   nestkill  it is killed somewhere inside that handler
 *   nestjump  it jumps away from somewhere inside that handler, by a second signal
 *   fork      a signal handler forks; parent and child both return from it and finish the call, each in its own right
 *   removal   a signal handler removes the queue
 * The calls stand in the table below: sends, receives, msgctl commands, creation, opening and removal, and calls that
 * wait or for which others wait.
 *
 * Checked after each: the supervisor's calls return at once; IPC_STAT's counters equal what is in the queue; that is
 * what was there before, in order, with or without the effect of the victim's call as a whole (a killed or jumped
 * receiver may take its one message along); a victim that goes on gets the right answer, and no message is there twice;
 * sleepers wake within 1.5 s; a key whose creator or remover was stopped or killed can be found or created, used,
 * removed, and the namespace directory then holds no more files than before. Now and then: the full capacity is there.
 *
 * Usage: everystep [--seconds N] [--seed N] [--only CALL] [--fault FAULT] [--trace]
 *        everystep --all [--cold] [--stride N] [--from K] [--only CALL] [--fault FAULT] [--progress] [--trace]
 * Without --all calls, faults and instructions are drawn at random until the time is over; with it every N-th
 * instruction of each call is tried with each fault, the call being a first one in its process with --cold.
 * A trial's instruction is reached by breakpoints where the processor has them (step.c). --progress tells, on stderr, how fast that
 * goes; --only, --fault and --from split the matrix.
 * On the kernel's queues a call has few instructions of its own; there the program tests itself.
 * On aarch64 without LSE atomics single-stepping never gets through an exclusive load and store: do not use it there.
 */
#define _GNU_SOURCE
#include "everystep.h"

#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const fault_name[FAULTS] = { "kill", "stop", "nest", "jump", "nestkill", "nestjump", "fork", "removal" };
static const long FAR = 1000000;

static const struct call calls[] = {
	{ "send-short-empty", SEND, 5, 0, 16, 0, -1, 1, 0, 0 },
	{ "send-short", SEND, 5, IPC_NOWAIT, 16, 3, -1, 5, 1, 0 },
	{ "send-medium", SEND, 2, 0, 300, 3, -1, 1, 1, 0 },
	{ "send-long", SEND, 5, IPC_NOWAIT, LONG_TEXT, 1, -1, 1, 0, 16 },
	{ "send-full", FULL, 5, IPC_NOWAIT, 400, 2, -1, 1, 0, LONG_TEXT },
	{ "send-blocked", BLOCKSEND, 5, 0, 400, 2, -1, 1, 0, LONG_TEXT },
	{ "receive-head", RECEIVE, 0, 0, 16, 3, 0, 5, 1, 0 },
	{ "receive-last", RECEIVE, 0, 0, 16, 1, 0, 5, 1, 0 },
	{ "receive-long", RECEIVE, 0, 0, 6500, 2, 0, 5, 1, 0 },
	{ "receive-type", RECEIVE, 12, 0, 40, 30, 12, 0, 1, 0 },
	{ "receive-type-long", RECEIVE, 3, 0, 1500, 8, 3, 0, 1, 0 },
	{ "receive-lowest", RECEIVE, -30, 0, 40, 30, 29, 59, -1, 0 },
	{ "receive-except", RECEIVE, 1, MSG_EXCEPT, 40, 30, 20, 1, 0, 0 },
	{ "receive-nothing", NOTHING, 50, 0, 40, 30, -1, 1, 1, 0 },
	{ "receive-blocked", BLOCK, WAKE_TYPE, 0, 40, 3, -1, 1, 1, 0 },
	{ "receive-release", RELEASE, 0, 0, 400, 2, 0, 1, 0, LONG_TEXT },
	{ "copy", COPY, 1, MSG_COPY, 40, 3, 1, 1, 1, 0 },
	{ "stat", CONTROL, IPC_STAT, 0, 16, 3, -1, 1, 1, 0 },
	{ "stat-index", CONTROL, MSG_STAT, 0, 16, 3, -1, 1, 1, 0 },
	{ "msg-info", CONTROL, MSG_INFO, 0, 16, 3, -1, 1, 1, 0 },
	{ "ipc-info", CONTROL, IPC_INFO, 0, 16, 3, -1, 1, 1, 0 },
	{ "set", SET, 0, 0, 16, 3, -1, 1, 1, 0 },
	{ "wake", WAKE, WAKE_TYPE, 0, 16, 3, -1, 1, 1, 0 },
	{ "create", CREATE, 1, IPC_CREAT | 0600, 0, 0, -1, 1, 0, 0 },
	{ "create-private", CREATE, IPC_PRIVATE, 0600, 0, 0, -1, 1, 0, 0 },
	{ "open", OPEN, 1, 0600, 0, 0, -1, 1, 0, 0 },
	{ "remove", REMOVE, 0, 0, 16, 3, -1, 1, 1, 0 },
};
enum { CALLS = sizeof calls / sizeof *calls };

struct shared *sh;
int id;
key_t key;
pid_t victim_pid, sleeper_pid;
volatile int64_t last_beat;
int64_t longest_answer, longest_wake;
const char *directory;

static uint64_t rnd;
static bool trace;
static int current;
static long wrong_calls[CALLS], trials[CALLS], longest_steps[CALLS];
static char first_wrong[CALLS][240];
static unsigned long total_trials;
static char doing[120];
static struct path paths[CALLS][2], handler_paths[CALLS]; /* cold and warm */
static unsigned long astray; /* trials made again because the victim did not come by where it was expected */
static int released; /* how often a call that waits was given what it waits for */

int64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

uint32_t random_below(uint32_t n)
{
	rnd = rnd * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(((rnd >> 32) * n) >> 32);
}

void wrong(const char *format, ...)
{
	if (wrong_calls[current]++ == 0 || trace) {
		char text[sizeof *first_wrong];
		va_list ap;
		int n = snprintf(text, sizeof text, "%s: ", doing);
		va_start(ap, format);
		vsnprintf(text + n, sizeof text - (size_t)n, format, ap);
		va_end(ap);
		if (wrong_calls[current] == 1)
			memcpy(first_wrong[current], text, sizeof text);
		if (trace)
			printf("FAIL now: %s\n", text);
	}
}

static void watchdog(int sig)
{
	(void)sig;
	if (now_ns() - last_beat < 20000000000LL)
		return;
	char text[240];
	int n = snprintf(text, sizeof text, "FAIL a call of the supervisor hangs: %s\neverystep: 0 passed, 1 failed, 0 skipped\n", doing);
	if (write(STDOUT_FILENO, text, (size_t)n) < 0)
		_exit(3);
	if (victim_pid > 0)
		kill(victim_pid, SIGKILL);
	if (sleeper_pid > 0)
		kill(sleeper_pid, SIGKILL);
	_exit(3);
}

/* ---- accounting ---------------------------------------------------------------------------------------------------- */

/* What a trial may have left in the queue. */
struct left {
	int before[MOST], others[MOST]; /* places of those that were there before, tokens of the rest; in order */
	int n_before, n_others;
};

/* Sorts what was in the queue; what was there before must be first, and in order. */
static struct left sort_out(const uint32_t *tokens, int n)
{
	struct left left = { .n_before = 0 };
	for (int i = 0; i < n; i++) {
		bool old = tokens[i] >= BEFORE && tokens[i] < BEFORE + MOST;
		if (!old) {
			left.others[left.n_others++] = (int)tokens[i];
			continue;
		}
		int place = (int)tokens[i] - BEFORE;
		if (left.n_others > 0 || (left.n_before > 0 && left.before[left.n_before - 1] >= place))
			wrong("out of order: token %u is number %d in the queue", tokens[i], i);
		left.before[left.n_before++] = place;
	}
	return left;
}

static int count(const struct left *left, int token)
{
	int n = 0;
	for (int i = 0; i < left->n_others; i++)
		n += left->others[i] == token;
	return n;
}

static bool holds(const struct left *left, int place)
{
	for (int i = 0; i < left->n_before; i++)
		if (left->before[i] == place)
			return true;
	return false;
}

/* An outcome as text, for complaints. */
static const char *said(struct outcome *o)
{
	static char text[2][100];
	static int turn;
	turn = !turn;
	snprintf(text[turn], sizeof text[turn], "%s, result %d (%s), token %u", atomic_load(&o->done) ? "done" : "not done",
		 atomic_load(&o->result), strerror(atomic_load(&o->error)), atomic_load(&o->got));
	return text[turn];
}

static bool is_done(struct outcome *o)
{
	return atomic_load(&o->done);
}

static bool succeeded(struct outcome *o)
{
	return is_done(o) && atomic_load(&o->result) >= 0;
}

static bool failed_with(struct outcome *o, int error)
{
	return is_done(o) && atomic_load(&o->result) == -1 && atomic_load(&o->error) == error;
}

/* One of an outcome's answers is as it must be, given the fault that was there. */
static bool plausible(const struct call *c, struct outcome *o, bool handled, bool forked)
{
	uint32_t got = atomic_load(&o->got);
	switch (c->kind) {
	case SEND:
	case WAKE:
	case SET: return atomic_load(&o->result) == 0;
	case CONTROL:
	case CREATE: return succeeded(o);
	case FULL: return failed_with(o, EAGAIN);
	case NOTHING: return failed_with(o, ENOMSG);
	case BLOCKSEND: return succeeded(o) || (handled && failed_with(o, EINTR));
	case BLOCK: return (succeeded(o) && got >= RELEASING && got < (uint32_t)(RELEASING + released)) || (handled && failed_with(o, EINTR));
	case COPY: return succeeded(o) && got == (uint32_t)(BEFORE + c->target);
	case RECEIVE:
	case RELEASE:
		if (forked) /* the other one may have been faster */
			return failed_with(o, ENOMSG) || (succeeded(o) && got >= BEFORE && got < (uint32_t)(BEFORE + c->before));
		return succeeded(o) && got == (uint32_t)(BEFORE + c->target);
	case OPEN: return succeeded(o);
	case REMOVE: return succeeded(o) || (forked && (failed_with(o, EINVAL) || failed_with(o, EIDRM)));
	}
	return false;
}

/* The queue after a trial, when nobody of it is alive any more: `helped` messages were taken from its head, or one more sent
 * (WAKE), on behalf of a sleeper. */
static void account(const struct call *c, enum fault fault, const uint32_t *tokens, int n, bool sleeper_has, int helped)
{
	struct left left = sort_out(tokens, n);
	struct outcome *own = &sh->own, *child = &sh->child;
	bool forked = fault == FORK && atomic_load(&sh->forked);
	bool handled = fault == NEST || fault == FORK || fault == NESTJUMP;
	bool uncertain = !is_done(own); /* its effect may be there or not */

	if (forked && !is_done(child))
		wrong("the forked child did not get to the end of the call");
	struct outcome *both[] = { own, child };
	for (int i = 0; i < 2; i++)
		if (is_done(both[i]) && !plausible(c, both[i], handled, forked))
			wrong("%s: %s", i ? "the child" : "the call", said(both[i]));

	/* What a handler had sent but not yet received when it was ended. */
	int nested = count(&left, NESTED) + count(&left, NESTED + 1);
	if (nested > (fault == NESTKILL || fault == NESTJUMP))
		wrong("the handler left %d messages", nested);

	int mine = count(&left, MINE), rest = left.n_others - nested - mine;
	int sent = succeeded(own) + succeeded(child);
	switch (c->kind) {
	case WAKE:
		mine += sleeper_has;
		/* fall through */
	case SEND:
	case BLOCKSEND: {
		bool once = forked && sent == 2; /* the handler may have run after the call: then it was one */
		if (mine > sent + uncertain || (mine < sent && !(once && mine == 1)))
			wrong("the message is there %d times; the call: %s; the child: %s", mine, said(own), said(child));
		break;
	}
	default:
		if (mine != 0)
			wrong("a message from nowhere");
	}
	if (c->kind == BLOCK) {
		for (int i = 0; i < released; i++) {
			int token = RELEASING + i, there = count(&left, token);
			int got = (succeeded(own) && atomic_load(&own->got) == (uint32_t)token) +
				  (succeeded(child) && atomic_load(&child->got) == (uint32_t)token);
			rest -= there;
			if (there + got != 1 && !(there + got == 0 && uncertain))
				wrong("message %d is there %d times and was received %d times", token, there, got);
		}
	}
	if (c->kind == RELEASE) {
		if (count(&left, SLEEPERS) != 1)
			wrong("the sleeper's message is there %d times", count(&left, SLEEPERS));
		rest--;
	}
	if (rest != 0)
		wrong("%d messages from nowhere", rest);

	/* What was there before: all of it, but for what was received. */
	int missing = 0;
	for (int place = 0; place < c->before; place++) {
		bool got = c->kind != COPY && ((succeeded(own) && atomic_load(&own->got) == (uint32_t)(BEFORE + place)) ||
					       (succeeded(child) && atomic_load(&child->got) == (uint32_t)(BEFORE + place)));
		if (holds(&left, place)) {
			if (got)
				wrong("message %d was received, and is still there", BEFORE + place);
			continue;
		}
		if (got)
			continue;
		bool head = (c->kind == RELEASE || c->kind == BLOCKSEND) && helped-- > 0;
		bool taken_along = (c->kind == RECEIVE && place == c->target) || (c->kind == RELEASE && place < 2);
		if (!head && !(taken_along && uncertain && missing++ == 0))
			wrong("message %d is gone; the call: %s", BEFORE + place, said(own));
	}
}

/* ---- a trial ------------------------------------------------------------------------------------------------------- */

static void release_receiver(void)
{
	struct message m;
	if (released < 8) {
		compose(&m, (uint32_t)(RELEASING + released), WAKE_TYPE, 40);
		released += msgsnd(id, &m, 40, IPC_NOWAIT) == 0;
	}
}

/* Never more than stood there before: the next one might be the victim's own. */
static void release_sender(void)
{
	static struct message m;
	if (released < calls[current].before)
		released += msgrcv(id, &m, sizeof m.t, 0, IPC_NOWAIT) >= 0;
}

/* What is checked while the victim is stopped, and after it went on. */
static void stopped_trial(const struct call *c, long files, bool inside)
{
	static struct message m;
	uint32_t tokens[MOST];

	if (c->kind == CREATE || c->kind == OPEN || (c->kind == REMOVE && inside)) {
		check_key(c, true, files);
		finish_victim(0, NULL);
		return;
	}
	if (c->kind == REMOVE) {
		finish_victim(0, NULL);
		return;
	}
	bool ready = c->kind == WAKE || c->kind == RELEASE;
	bool helped = ready && await_sleeper(c);
	bool sleeper_has = helped && c->kind == WAKE;
	end_sleeper();
	if (c->kind == BLOCK && inside) {
		/* A message for which it is in line, but does not take. */
		compose(&m, SECOND, WAKE_TYPE, 40);
		if (msgsnd(id, &m, 40, IPC_NOWAIT) != 0 || msgrcv(id, &m, sizeof m.t, WAKE_TYPE, IPC_NOWAIT) != 40 || m.t.token != SECOND)
			wrong("stopped: a message that it waits for cannot be taken by another");
	}
	int n = take_all(tokens);
	work(random_below(16) == 0, true);
	struct left left = sort_out(tokens, n);
	int sent = count(&left, MINE);
	bool taken = left.n_before < c->before - (c->kind == RELEASE && helped);
	if (sent > (c->kind == SEND || (c->kind == BLOCKSEND && !inside)) || left.n_before < c->before - 2 ||
	    (taken && c->kind != RECEIVE && c->kind != RELEASE))
		wrong("stopped: the queue held %d messages, not what was put there", n);
	finish_victim(0, c->kind == BLOCK ? release_receiver : NULL);

	int r = atomic_load(&sh->own.result), e = atomic_load(&sh->own.error);
	uint32_t got = atomic_load(&sh->own.got);
	int after = take_all(tokens);
	struct left now = sort_out(tokens, after);
	sent += sleeper_has + count(&now, MINE);
	switch (c->kind) {
	case SEND:
	case WAKE:
	case BLOCKSEND:
		if (r != 0 || sent != 1)
			wrong("went on: result %d (%s), the message is there %d times", r, strerror(e), sent);
		break;
	case FULL:
		if (r == 0 ? sent != 1 : e != EAGAIN || sent != 0)
			wrong("went on: result %d (%s), the message is there %d times", r, strerror(e), sent);
		break;
	case RECEIVE:
	case RELEASE:
		if (taken ? r < 0 || got < BEFORE || got >= (uint32_t)(BEFORE + c->before) : r != -1 || e != ENOMSG)
			wrong("went on: result %d (%s), token %u, though the message was %s", r, strerror(e), got,
			      taken ? "taken" : "emptied out");
		break;
	case BLOCK:
		if (r < 0 || got < RELEASING || got >= (uint32_t)(RELEASING + released) || after != released - 1)
			wrong("went on: result %d (%s), token %u, %d of %d messages left", r, strerror(e), got, after, released);
		return;
	case COPY:
		if (r < 0 ? e != ENOMSG : got != (uint32_t)(BEFORE + c->target))
			wrong("went on: result %d (%s), token %u", r, strerror(e), got);
		break;
	default: break;
	}
	if (now.n_before != 0 || now.n_others != count(&now, MINE))
		wrong("went on: %d messages from nowhere", after);
}

/* After a handler removed the queue: everybody noticed, and a new one takes its place. */
static void removed_trial(const struct call *c, long files)
{
	struct msqid_ds ds;
	struct outcome *own = &sh->own;
	int e = atomic_load(&own->error);

	if (sleeper_pid > 0) {
		int64_t t0 = now_ns();
		while (atomic_load(&sh->sleeper_got) == 0 && now_ns() - t0 < 1500000000)
			usleep(100);
		bool gone = atomic_load(&sh->sleeper_got) == -1 &&
			    (atomic_load(&sh->sleeper_error) == EIDRM || atomic_load(&sh->sleeper_error) == EINVAL);
		bool served = atomic_load(&sh->sleeper_got) > 0;
		if (!gone && !served)
			wrong("the queue was removed, and the sleeper: %d (%s)", atomic_load(&sh->sleeper_got),
			      strerror(atomic_load(&sh->sleeper_error)));
		end_sleeper();
	}
	if (!is_done(own))
		wrong("the call did not end");
	else if (!succeeded(own) && e != EINVAL && e != EIDRM && e != EINTR && !plausible(c, own, true, false))
		wrong("the queue was removed, and the call says %s", said(own));
	if (msgctl(id, IPC_STAT, &ds) != -1 || (errno != EINVAL && errno != EIDRM))
		wrong("the queue was removed, and is still there");
	id = msgget(IPC_PRIVATE, 0600);
	if (id < 0)
		wrong("msgget: %s", strerror(errno));
	long now = directory ? files_below(directory) : 0;
	if (now > files)
		wrong("%ld files became %ld", files, now);
	work(false, false);
}

/* How the victim gets to its instruction: along the path that was written down, by steps, or by steps that are written down. */
enum way { BY_PATH, BY_STEPS, SURVEY };

/* Lets a victim make `most` instructions more in its handler. Returns at the handler's end, too. */
static void step_in_handler(long most, struct path *p, bool waits, bool *slept)
{
	while (most-- > 0 && !atomic_load(&sh->nested) && victim_pid > 0 && !atomic_load(&sh->over) && (waits ? step_or_sleep(slept) : step(0))) {
		if (p)
			note_place(p);
		if (*slept && asleep(victim_pid)) {
			interrupt(SIGUSR2);
			break;
		}
	}
}

/* Somewhere into the handler. A path leads only near to that place, and not always: a handler that goes another way, because of what it
 * interrupted, is to be met on that way too. */
static void go_into_handler(int call, bool waits, bool *slept)
{
	struct path *p = &handler_paths[call];
	long more = random_below(random_below(4) ? 400 : 4000), rest = random_below(40);
	bool by_steps = random_below(32) == 0;
	if (!p->surveyed) {
		note_place(p);
		step_in_handler(FAR, p, waits, slept);
		survey(p);
	} else if (by_steps || more <= rest) {
		step_in_handler(more, NULL, waits, slept);
	} else {
		long made = reach(p, more - rest, &sh->nested, waits, slept);
		step_in_handler(made < 0 ? rest : more - made, NULL, waits, slept);
	}
}

/* One trial: the call, the fault, after k instructions. Returns false when the call was over before, and sets `lost` when the victim
 * is not where it should be. */
static bool attempt(int call, enum fault fault, long k, bool warm, enum way way, bool *lost)
{
	const struct call *c = &calls[call];
	uint32_t tokens[MOST];
	int status, main_queue = id, opened = -1;
	bool own_queue = c->kind == CREATE || c->kind == REMOVE || c->kind == OPEN;
	bool waits = c->kind == BLOCK || c->kind == BLOCKSEND;
	void (*release)(void) = c->kind == BLOCK ? release_receiver : c->kind == BLOCKSEND ? release_sender : NULL;

	current = call;
	released = 0;
	last_beat = now_ns();
	snprintf(doing, sizeof doing, "%s, %s after %ld instructions%s", c->name, fault_name[fault], k, warm ? "" : ", first use");
	memset(sh, 0, sizeof *sh);
	long files = directory ? files_below(directory) : 0;
	if (c->kind == REMOVE)
		id = msgget(key, IPC_CREAT | 0600);
	if (c->kind == OPEN)
		opened = msgget(key, IPC_CREAT | 0600);
	fill(c);
	if (c->kind == WAKE || c->kind == RELEASE) {
		sleeper_pid = fork();
		if (sleeper_pid == 0)
			sleeper(c);
		for (int i = 0; i < 4000 && !asleep(sleeper_pid); i++)
			usleep(100);
	}
	fflush(stdout);
	victim_pid = fork();
	if (victim_pid == 0)
		victim(c, fault, warm);
	if (waitpid(victim_pid, &status, 0) != victim_pid || !WIFSTOPPED(status)) {
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			printf("skipped everything: ptrace is not permitted here\neverystep: 0 passed, 0 failed, 1 skipped\n");
			exit(77);
		}
		wrong("the victim does not start: status %#x", (unsigned)status);
		victim_pid = 0;
	}
	struct path *path = &paths[call][warm];
	long steps = 0;
	bool slept = false;
	if (victim_pid > 0 && run_until(&sh->begun)) {
		if (way == SURVEY)
			note_place(path);
		else if (way == BY_PATH)
			steps = reach(path, k, &sh->over, waits, &slept);
	}
	if (steps < 0) {
		*lost = true;
		snprintf(doing, sizeof doing, "%s, %s near instruction %ld%s", c->name, fault_name[fault], k, warm ? "" : ", first use");
	}
	while (victim_pid > 0 && !*lost && steps < k && !slept && !atomic_load(&sh->over) && (waits ? step_or_sleep(&slept) : step(0))) {
		if (++steps % 4096 == 0)
			last_beat = now_ns();
		if (way == SURVEY && !slept && !atomic_load(&sh->over))
			note_place(path);
	}
	last_beat = now_ns();
	bool inside = victim_pid > 0 && !atomic_load(&sh->over);
	if ((!inside || slept) && steps > longest_steps[call])
		longest_steps[call] = steps;

	int first = fault == JUMP ? SIGUSR2 : fault == STOP ? SIGSTOP : SIGUSR1;
	if (slept && fault != KILL)
		interrupt(first);
	switch (fault) {
	case KILL: kill_victim(); break;
	case STOP: stopped_trial(c, files, inside); break;
	case NEST:
	case JUMP:
	case FORK:
	case REMOVAL: finish_victim(inside ? first : 0, fault == REMOVAL ? NULL : release); break;
	case NESTKILL:
	case NESTJUMP:
		if (inside && step(SIGUSR1))
			go_into_handler(call, waits, &slept);
		if (fault == NESTKILL)
			kill_victim();
		else
			finish_victim(inside && victim_pid > 0 ? SIGUSR2 : 0, release);
		break;
	default: break;
	}
	last_beat = now_ns();

	if (atomic_load(&sh->broken))
		wrong("a received text is broken");
	if (atomic_load(&sh->descriptors))
		wrong("%d descriptors stay open", atomic_load(&sh->descriptors));
	if (atomic_load(&sh->after_right) < 0)
		wrong("after the jump the victim's calls fail: %s", sh->pair_wrong);
	if (atomic_load(&sh->nested_wrong) && c->kind != REMOVE)
		wrong("the calls in the handler fail: %s (%s)", sh->pair_wrong, strerror(atomic_load(&sh->nested_wrong)));
	if (fault == REMOVAL && atomic_load(&sh->removed)) {
		if (c->kind == CREATE || c->kind == OPEN)
			main_queue = id = msgget(IPC_PRIVATE, 0600);
		else if (c->kind == REMOVE)
			id = main_queue;
		else
			removed_trial(c, files);
	}
	if (own_queue) {
		if (is_done(&sh->own) && fault != STOP && fault != REMOVAL && !plausible(c, &sh->own, true, fault == FORK))
			wrong("the call: %s", said(&sh->own));
		if (opened >= 0 && succeeded(&sh->own) && atomic_load(&sh->own.result) != opened)
			wrong("opened %d, not %d", atomic_load(&sh->own.result), opened);
		id = main_queue;
		if (c->want == IPC_PRIVATE && c->kind == CREATE)
			remove_others();
		check_key(c, false, files);
		/* A handler ended in between may have left a message in the queue it used. */
		int n = take_all(tokens);
		if (n > (fault == NESTKILL || fault == NESTJUMP ? 1 : 0))
			wrong("%d messages from nowhere", n);
	} else if (fault != STOP && !(fault == REMOVAL && atomic_load(&sh->removed))) {
		bool ready = c->kind == WAKE || c->kind == RELEASE;
		bool helped = ready && await_sleeper(c);
		end_sleeper();
		int n = take_all(tokens);
		if (n >= 0)
			account(c, fault, tokens, n, helped && c->kind == WAKE, c->kind == BLOCKSEND ? released : helped);
		work(random_below(16) == 0, false);
	}
	bury_victim();
	end_sleeper();
	trials[call]++;
	total_trials++;
	return inside && !slept;
}

/* Writes down the path of a call, in a trial that ends after it. The very first goes another way: the queue and the library's memory of
 * it are new. So that one is not written down, and need not be stepped through. */
static void find_path(int call, bool warm)
{
	struct path *p = &paths[call][warm];
	bool lost = false;
	if (!p->surveyed)
		attempt(call, NEST, 0, warm, BY_STEPS, &lost);
	p->n = p->lost = 0;
	p->fixed = true;
	attempt(call, KILL, FAR, warm, SURVEY, &lost);
	survey(p);
}

/* The trial of one instruction. One that went astray counts, but not as that: it is made again. A call has a few paths, by what is left
 * of the trials before; mostly the next victim goes the usual one, but the others have instructions of their own, so one in four that
 * went astray is made by steps at once, and any that does so three times. */
static bool trial(int call, enum fault fault, long k, bool warm)
{
	struct path *p = &paths[call][warm];
	bool lost = false;
	for (int tries = 0; tries < 3; tries++) {
		if (p->lost >= 8)
			find_path(call, warm);
		bool inside = attempt(call, fault, k, warm, BY_PATH, &lost);
		if (!lost)
			return inside;
		lost = false;
		astray++;
		if (random_below(4) == 0)
			break;
	}
	p->lost++;
	return attempt(call, fault, k, warm, BY_STEPS, &lost);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' }, { "seed", required_argument, NULL, 'r' },   { "all", no_argument, NULL, 'a' },
		{ "only", required_argument, NULL, 'o' },    { "fault", required_argument, NULL, 'f' },  { "trace", no_argument, NULL, 't' },
		{ "cold", no_argument, NULL, 'c' },	     { "stride", required_argument, NULL, 'd' }, { "from", required_argument, NULL, 'k' },
		{ "progress", no_argument, NULL, 'p' },
		{ NULL, 0, NULL, 0 },
	};
	double seconds = 10;
	uint64_t seed = (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 32);
	bool all = false, cold = false, progress = false;
	long stride = 1, from = 0;
	const char *only = NULL, *only_fault = NULL;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's': seconds = atof(optarg); break;
		case 'r': seed = strtoull(optarg, NULL, 0); break;
		case 'a': all = true; break;
		case 'c': cold = true; break;
		case 'd': stride = atol(optarg) > 0 ? atol(optarg) : 1; break;
		case 'k': from = atol(optarg); break;
		case 'o': only = optarg; break;
		case 'f': only_fault = optarg; break;
		case 't': trace = true; break;
		case 'p': progress = true; break;
		default:
			fprintf(stderr, "usage: %s [--seconds N] [--seed N] [--all [--cold] [--stride N] [--from K]] [--only CALL] [--fault FAULT] [--progress] [--trace]\n", argv[0]);
			return 2;
		}
	}
	Dl_info where = { 0 };
	dladdr(dlsym(RTLD_DEFAULT, "msgsnd"), &where);
	bool ours = where.dli_fname && strstr(where.dli_fname, "usysv");
	const char *expect = getenv("USYSV_EXPECT");
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	printf("everystep: %s queues, seed %llu\n", ours ? "usysv's" : "the kernel's", (unsigned long long)seed);
	if (expect && strcmp(expect, "preload") == 0 && !ours) {
		printf("FAIL the library is not loaded\neverystep: 0 passed, 1 failed, 0 skipped\n");
		return 1;
	}
	directory = ours ? getenv("USYSV_DIR") : NULL;
	rnd = seed * 2 + 1;
	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	key = (key_t)(0x5b000000 + (getpid() & 0xffffff));
	id = msgget(key, IPC_CREAT | 0600);
	if (sh == MAP_FAILED || id < 0 || msgctl(id, IPC_RMID, NULL) != 0 || (id = msgget(IPC_PRIVATE, 0600)) < 0) {
		perror("everystep");
		return 2;
	}
	struct sigaction sa = { .sa_handler = watchdog, .sa_flags = SA_RESTART };
	sigaction(SIGALRM, &sa, NULL);
	/* The dynamic linker looks names up at their first use; that is none of the library's instructions. */
	struct message nothing = { .mtype = 1 };
	if (msgsnd(-1, &nothing, 0, 0) == 0 || msgrcv(-1, &nothing, 0, 0, 0) >= 0)
		return 2;
	struct itimerval second = { { 1, 0 }, { 1, 0 } };
	last_beat = now_ns();
	setitimer(ITIMER_REAL, &second, NULL);

	bool wanted_call[CALLS], wanted_fault[FAULTS];
	for (int c = 0; c < CALLS; c++)
		wanted_call[c] = !only || strcmp(only, calls[c].name) == 0;
	for (int f = 0; f < FAULTS; f++)
		wanted_fault[f] = !only_fault || strcmp(only_fault, fault_name[f]) == 0;
	if (all) {
		for (int c = 0; c < CALLS; c++)
			for (int f = 0; f < FAULTS && wanted_call[c]; f++) {
				if (!wanted_fault[f])
					continue;
				if (trace)
					printf("%s %s\n", calls[c].name, fault_name[f]);
				if (!paths[c][!cold].surveyed)
					find_path(c, !cold);
				int64_t start = now_ns();
				unsigned long before = total_trials;
				for (long k = from; trial(c, (enum fault)f, k, !cold); k += stride)
					;
				if (progress)
					fprintf(stderr, "%s%s, %s: %lu trials, %.0f a second%s\n", cold ? "cold " : "", calls[c].name, fault_name[f],
						total_trials - before, (double)(total_trials - before) * 1e9 / (double)(now_ns() - start),
						wrong_calls[c] ? ", FAIL" : "");
			}
	} else {
		for (int c = 0; c < CALLS; c++)
			if (wanted_call[c]) {
				find_path(c, false);
				find_path(c, true);
			}
		int64_t end = now_ns() + (int64_t)(seconds * 1e9);
		while (now_ns() < end) {
			int c = (int)random_below(CALLS), f = (int)random_below(FAULTS);
			if (!wanted_call[c] || !wanted_fault[f])
				continue;
			bool warm = random_below(4) != 0;
			long k = (long)random_below((uint32_t)longest_steps[c] + 1);
			if (warm && random_below(2)) /* a call that is not a first one is shorter */
				k = (long)random_below((uint32_t)longest_steps[c] / 2 + 1);
			trial(c, (enum fault)f, k, warm);
			if (trace)
				printf("%s\n", doing);
		}
	}
	if (msgctl(id, IPC_RMID, NULL) != 0)
		printf("FAIL IPC_RMID of the queue: %s\n", strerror(errno));

	int passed = 0, failed = 0, skipped = 0;
	for (int c = 0; c < CALLS; c++) {
		if (!wanted_call[c])
			continue;
		if (wrong_calls[c]) {
			printf("FAIL %s: %ld times in %ld trials, first: %s\n", calls[c].name, wrong_calls[c], trials[c], first_wrong[c]);
			failed++;
		} else if (trials[c] <= (all ? 2 : 4)) {
			printf("skipped %s: not tried\n", calls[c].name);
			skipped++;
		} else {
			printf("ok %s: %ld trials, up to %ld instructions\n", calls[c].name, trials[c], longest_steps[c]);
			passed++;
		}
	}
	printf("note: %lu trials, %lu of them astray; longest answer %lld us, longest wake-up after a fault %lld us\n", total_trials, astray,
	       (long long)(longest_answer / 1000), (long long)(longest_wake / 1000));
	printf("everystep: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
	return failed != 0;
}
