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
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_SLOTS = 64, /* workers x threads */
	MAX_TEXT = 8192,
	HEADER = 16,      /* bytes of struct text before the body */
	TYPES = 5,        /* ordinary types are 1..TYPES */
	BLOCK = 64,       /* tokens are handed to a lane by the block */
	BLOCKS = 1 << 16, /* so many blocks an epoch */
	TOKENS = BLOCK * BLOCKS,
	LANES = 4096,
	SPARE_BLOCKS = 1024, /* a checkpoint is asked for while so many blocks are left */
	FILL_TYPE = 900,     /* messages of one byte that test the capacity */
	NEVER_TYPE = 901,    /* nobody sends these */
};
#define TINY_FLAG (1L << 30) /* type of a short message: flag | epoch : 6 | token : 24 */
#define PATIENCE_NS 1500000000LL

enum mode { RUN, PARK, REMOVAL, QUIT };
enum call { CALL_NONE, CALL_SEND, CALL_RECEIVE };
enum state { NOT_SENT, ATTEMPTING, ACKNOWLEDGED, REFUSED };
static const char *const sent_name[] = { "not sent", "its sender jumped or was killed", "acknowledged", "refused" };
enum receiving { OUTSIDE, IN_MSGRCV, NOTING };
enum level { ORDINARY, NESTED, LEVELS };
enum check { DELIVERED, DOUBLED, GHOSTS, TORN, ORDER, COUNTERS, CAPACITY, AWAKE, FROZEN, REMOVED, ERRORS, CHECKS };
static const char *const check_name[CHECKS] = { "delivered", "doubled", "ghosts", "torn", "order", "counters",
						"capacity", "awake", "frozen", "removal", "errors" };

struct text {
	uint32_t token, epoch, len, check;
	unsigned char body[MAX_TEXT - HEADER];
};
struct message {
	long mtype;
	union {
		struct text t;
		unsigned char raw[MAX_TEXT];
	} u;
};

/* What a thread of a worker shows the supervisor. Everything here survives the worker. */
struct slot {
	struct message in[LEVELS];
	atomic_int room[LEVELS];
	atomic_int call;   /* enum call: a blocking call is under way */
	atomic_uint serial; /* counts blocking calls */
	atomic_long want;
	atomic_int flags;
	atomic_int in_receive[LEVELS]; /* enum receiving */
	atomic_int parked;
	atomic_int nested_active;
	atomic_int removal_errno;
	atomic_int tid; /* 0 until it is ready for signals */
	atomic_ulong sends, receives, handlers, nested_calls, jumps, forks;
	char pad[64];
};

struct shared {
	atomic_int mode;
	atomic_uint epoch, removals;
	atomic_int qid;
	atomic_uint qbytes;
	atomic_int want_checkpoint;
	atomic_uint next_block, next_lane;
	atomic_ulong allowance; /* of this epoch */
	atomic_ulong recovered;
	atomic_ulong failed[CHECKS], checked[CHECKS];
	atomic_int described[CHECKS];
	char description[CHECKS][240];
	struct slot slot[MAX_SLOTS];
	uint16_t lane_of[BLOCKS];
	_Atomic uint8_t sent[TOKENS], received[TOKENS];
};

/* One receiver's memory of what it has seen, for the order. */
struct view {
	uint32_t last[LANES][TYPES + 1]; /* token + 1 of the last one received of this lane and type */
	uint32_t floor[LANES];           /* token + 1 of the last one received from the head of the queue */
};

struct lane {
	unsigned id;
	uint32_t next, end;
	uint64_t random;
};

static struct shared *sh;
static _Thread_local struct slot *me; /* NULL in the supervisor */
static _Thread_local struct lane lane[LEVELS];
static _Thread_local struct view view[LEVELS];
static _Thread_local struct message out[LEVELS];
static struct message supervisor_in;
static _Thread_local uint32_t my_epoch;
static _Thread_local bool exhausted;
static _Thread_local sigjmp_buf escape;
static _Thread_local volatile sig_atomic_t jump_ok;
static _Thread_local int my_number = -1; /* of the slot */
static int workers = 8, threads = 1;
static bool alternate_stacks = true;
static size_t msgmax = MAX_TEXT;

/* ---- small things ------------------------------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void sleep_ns(long ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };
	nanosleep(&ts, NULL);
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(((*state >> 32) * n) >> 32);
}

__attribute__((format(printf, 2, 3))) static void failure(enum check c, const char *format, ...)
{
	atomic_fetch_add(&sh->failed[c], 1);
	if (atomic_exchange(&sh->described[c], 1) == 0) {
		va_list ap;
		va_start(ap, format);
		vsnprintf(sh->description[c], sizeof sh->description[c], format, ap);
		va_end(ap);
	}
}

static void checked(enum check c)
{
	atomic_fetch_add(&sh->checked[c], 1);
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

/* The text of a token, from its byte 0 on. */
static void pattern(unsigned char *p, size_t len, uint32_t token, uint32_t epoch)
{
	uint64_t x = mix(((uint64_t)epoch << 32) | token);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = x ^ (i * 0x9e3779b97f4a7c15ULL);
		memcpy(p + i, &w, len - i < 8 ? len - i : 8);
	}
}

static bool pattern_matches(const unsigned char *p, size_t len, uint32_t token, uint32_t epoch)
{
	uint64_t x = mix(((uint64_t)epoch << 32) | token);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = x ^ (i * 0x9e3779b97f4a7c15ULL);
		if (memcmp(p + i, &w, len - i < 8 ? len - i : 8) != 0)
			return false;
	}
	return true;
}

static uint32_t check_word(uint32_t token, uint32_t epoch, uint32_t len, long type)
{
	return (uint32_t)mix((((uint64_t)token << 32) | epoch) ^ mix(((uint64_t)len << 32) | (uint32_t)type));
}

static void compose(struct message *m, uint32_t token, long type, size_t len)
{
	if (len < HEADER) {
		m->mtype = TINY_FLAG | (long)(my_epoch & 63) << 24 | (long)token;
		pattern(m->u.raw, len, token, my_epoch);
		return;
	}
	m->mtype = type;
	m->u.t.token = token;
	m->u.t.epoch = my_epoch;
	m->u.t.len = (uint32_t)len;
	m->u.t.check = check_word(token, my_epoch, (uint32_t)len, type);
	pattern(m->u.t.body, len - HEADER, token, my_epoch);
}

static bool type_wanted(long type, long want, int flags)
{
	if (want == 0)
		return true;
	if (want > 0)
		return (flags & MSG_EXCEPT) ? type != want : type == want;
	return type <= (want == LONG_MIN ? LONG_MAX : -want);
}

/* Notes a received message and checks what can be checked at once. Runs in workers, in their handlers and in the supervisor. */
static void record(enum level level, const struct message *m, size_t len, size_t room, long want, int flags)
{
	uint32_t token;
	long type = m->mtype;
	bool tiny = (type & TINY_FLAG) != 0;

	if (type == FILL_TYPE)
		return; /* left over after a failed capacity check */
	if (!type_wanted(type, want, flags))
		failure(TORN, "asked for type %ld (flags %#x), got type %ld", want, (unsigned)flags, type);
	if (tiny) {
		token = (uint32_t)(type & 0xffffff);
		if (((type >> 24) & 63) != (long)(my_epoch & 63)) {
			failure(GHOSTS, "short message of another epoch: type %#lx in epoch %u", (unsigned long)type, my_epoch);
			return;
		}
		if (len >= HEADER || !pattern_matches(m->u.raw, len, token, my_epoch)) {
			failure(TORN, "short message of token %u: wrong text or length %zu", token, len);
			return;
		}
	} else {
		if (len < HEADER) {
			failure(TORN, "type %ld with only %zu bytes", type, len);
			return;
		}
		token = m->u.t.token;
		if (m->u.t.check != check_word(token, m->u.t.epoch, m->u.t.len, type)) {
			failure(TORN, "header does not match: token %u epoch %u length %u of %zu type %ld", token, m->u.t.epoch,
				m->u.t.len, len, type);
			return;
		}
		if (m->u.t.epoch != my_epoch) {
			failure(GHOSTS, "message of epoch %u received in epoch %u", m->u.t.epoch, my_epoch);
			return;
		}
		if (m->u.t.len != len && !((flags & MSG_NOERROR) && m->u.t.len > len && len == room)) {
			failure(TORN, "token %u: sent %u bytes, received %zu", token, m->u.t.len, len);
			return;
		}
		if (!pattern_matches(m->u.t.body, len - HEADER, token, my_epoch)) {
			failure(TORN, "token %u: text of %zu bytes is not what was sent", token, len);
			return;
		}
	}
	if (token >= TOKENS || token / BLOCK >= atomic_load(&sh->next_block) || atomic_load(&sh->sent[token]) == NOT_SENT) {
		failure(GHOSTS, "token %u was never handed out", token);
		return;
	}
	if (atomic_fetch_add(&sh->received[token], 1) != 0)
		failure(DOUBLED, "token %u (type %ld, %zu bytes) received again", token, type, len);

	unsigned from = sh->lane_of[token / BLOCK];
	struct view *v = &view[level];
	if (token + 1 <= v->floor[from])
		failure(ORDER, "lane %u: token %u (%s, type %ld, %zu bytes, asked for %ld) after %u had been at the head", from, token,
			sent_name[atomic_load(&sh->sent[token]) & 3], type, len, want, v->floor[from] - 1);
	if (!tiny && type >= 1 && type <= TYPES) {
		if (token + 1 <= v->last[from][type])
			failure(ORDER, "lane %u, type %ld: token %u (%s, %zu bytes) after %u", from, type, token,
				sent_name[atomic_load(&sh->sent[token]) & 3], len, v->last[from][type] - 1);
		v->last[from][type] = token + 1;
	}
	if (want == 0 && v->floor[from] < token + 1)
		v->floor[from] = token + 1;
}

/* Accounts for a receiver that was killed or has jumped away in msgrcv: what it had received in full is in its buffer, which was
 * cleared before the call; otherwise it may have lost one message. */
static void account_for_victim(struct slot *s, enum level level)
{
	const struct message *m = &s->in[level];
	int state = atomic_load(&s->in_receive[level]);
	size_t room = (size_t)atomic_load(&s->room[level]);
	uint32_t token = TOKENS, epoch = atomic_load(&sh->epoch);

	if (state == OUTSIDE)
		return;
	if (m->mtype & TINY_FLAG) {
		if (((m->mtype >> 24) & 63) == (long)(epoch & 63))
			token = (uint32_t)(m->mtype & 0xffffff);
	} else if (m->mtype != 0 && m->u.t.len >= HEADER && m->u.t.len <= MAX_TEXT && m->u.t.epoch == epoch &&
		   m->u.t.check == check_word(m->u.t.token, epoch, m->u.t.len, m->mtype)) {
		size_t len = m->u.t.len < room ? m->u.t.len : room;
		if (pattern_matches(m->u.t.body, len - HEADER, m->u.t.token, epoch))
			token = m->u.t.token;
	}
	if (token >= TOKENS) {
		atomic_fetch_add(&sh->allowance, 1);
	} else if (state == IN_MSGRCV || atomic_load(&sh->received[token]) == 0) {
		if (atomic_fetch_add(&sh->received[token], 1) != 0)
			failure(DOUBLED, "token %u (type %ld) received again, by a victim", token, m->mtype);
		atomic_fetch_add(&sh->recovered, 1);
	}
	atomic_store(&s->in_receive[level], OUTSIDE);
}

/* ---- lanes and epochs --------------------------------------------------------------------------------------------- */

/* Takes new lanes for a new epoch. Never runs inside a call or a handler; a handler that interrupts it makes no calls, because
 * my_epoch is of no epoch until all is ready. */
static void enter_epoch(void)
{
	uint32_t epoch = atomic_load(&sh->epoch);
	my_epoch = ~0U;
	atomic_signal_fence(memory_order_seq_cst);
	memset(view, 0, sizeof view);
	exhausted = false;
	unsigned first = atomic_fetch_add(&sh->next_lane, LEVELS);
	for (int i = 0; i < LEVELS; i++) {
		lane[i].id = first + (unsigned)i;
		lane[i].next = lane[i].end = 0;
		lane[i].random = mix(((uint64_t)epoch << 20) ^ (lane[i].random + first + (unsigned)i));
	}
	if (first + LEVELS > LANES) {
		exhausted = true;
		atomic_store(&sh->want_checkpoint, 1);
	}
	atomic_signal_fence(memory_order_seq_cst);
	my_epoch = epoch;
}

static bool take_token(enum level level, uint32_t *token)
{
	struct lane *l = &lane[level];
	if (exhausted)
		return false;
	if (l->next == l->end) {
		unsigned b = atomic_fetch_add(&sh->next_block, 1);
		if (b + SPARE_BLOCKS >= BLOCKS)
			atomic_store(&sh->want_checkpoint, 1);
		if (b >= BLOCKS) {
			exhausted = true;
			return false;
		}
		sh->lane_of[b] = (uint16_t)l->id;
		l->next = b * BLOCK;
		l->end = l->next + BLOCK;
	}
	*token = l->next++;
	return true;
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

static size_t random_length(uint64_t *r)
{
	uint32_t top = random_below(r, 20), n;
	if (top < 4)
		n = random_below(r, HEADER);
	else if (top < 13)
		n = HEADER + random_below(r, 112);
	else if (top < 17)
		n = HEADER + random_below(r, 1024);
	else
		n = random_below(r, MAX_TEXT + 1);
	size_t most = atomic_load(&sh->qbytes);
	if (most > msgmax)
		most = msgmax;
	return n > most ? n % (most + 1) : n;
}

/* Returns msgsnd's errno, 0 when acknowledged, -1 when there was no token. `jumpable`: a SIGUSR2 during the call may leave it. */
static int do_send(enum level level, long type, size_t len, int flags, bool jumpable)
{
	uint32_t token;
	struct message *m = &out[level];

	if (!take_token(level, &token))
		return -1;
	compose(m, token, type, len);
	if (me && !(flags & IPC_NOWAIT)) {
		atomic_fetch_add(&me->serial, 1);
		atomic_store(&me->call, CALL_SEND);
	}
	atomic_store(&sh->sent[token], ATTEMPTING);
	jump_ok = jumpable;
	atomic_signal_fence(memory_order_seq_cst);
	int r = msgsnd(atomic_load(&sh->qid), m, len, flags);
	int e = r == 0 ? 0 : errno;
	atomic_signal_fence(memory_order_seq_cst);
	jump_ok = 0;
	atomic_store(&sh->sent[token], e == 0 ? ACKNOWLEDGED : REFUSED);
	if (me && !(flags & IPC_NOWAIT))
		atomic_store(&me->call, CALL_NONE);
	if (e == 0) {
		if (me)
			atomic_fetch_add(&me->sends, 1);
	} else if (!((flags & IPC_NOWAIT) ? e == EAGAIN : e == EINTR)) {
		failure(ERRORS, "msgsnd (flags %#x, %zu bytes, type %ld): %s", (unsigned)flags, len, m->mtype, strerror(e));
	}
	return e;
}

/* Returns msgrcv's errno, 0 when something was received; *got is its length. */
static int do_receive(enum level level, long want, size_t room, int flags, bool jumpable, size_t *got)
{
	struct message *m = me ? &me->in[level] : &supervisor_in;

	if (me) {
		if (!(flags & IPC_NOWAIT)) {
			atomic_fetch_add(&me->serial, 1);
			atomic_store(&me->want, want);
			atomic_store(&me->flags, flags);
			atomic_store(&me->call, CALL_RECEIVE);
		}
		memset(m, 0, sizeof m->mtype + HEADER);
		atomic_store(&me->room[level], (int)room);
		atomic_store(&me->in_receive[level], IN_MSGRCV);
	}
	jump_ok = jumpable;
	atomic_signal_fence(memory_order_seq_cst);
	ssize_t r = msgrcv(atomic_load(&sh->qid), m, room, want, flags);
	int e = r >= 0 ? 0 : errno;
	atomic_signal_fence(memory_order_seq_cst);
	jump_ok = 0;
	if (me)
		atomic_store(&me->in_receive[level], e == 0 ? NOTING : OUTSIDE);
	if (e == 0)
		record(level, m, (size_t)r, room, want, flags);
	if (me) {
		atomic_store(&me->in_receive[level], OUTSIDE);
		if (!(flags & IPC_NOWAIT))
			atomic_store(&me->call, CALL_NONE);
	}
	if (e == 0) {
		if (got)
			*got = (size_t)r;
		if (me)
			atomic_fetch_add(&me->receives, 1);
	} else if (!((flags & IPC_NOWAIT) ? e == ENOMSG : e == EINTR) && !(e == E2BIG && room < msgmax && !(flags & MSG_NOERROR))) {
		failure(ERRORS, "msgrcv (flags %#x, want %ld, room %zu): %s", (unsigned)flags, want, room, strerror(e));
	}
	return e;
}

/* Receives something at random. */
static int random_receive(enum level level, int wait_flag, bool jumpable)
{
	uint64_t *r = &lane[level].random;
	long want = 0;
	size_t room = MAX_TEXT;
	int flags = wait_flag;

	switch (random_below(r, 8)) {
	case 0: /* exact type */
	case 1:
		want = 1 + (long)random_below(r, TYPES);
		break;
	case 2: /* any other type */
		want = 1 + (long)random_below(r, TYPES);
		flags |= MSG_EXCEPT;
		break;
	case 3: /* lowest type first */
		want = random_below(r, 2) ? -1 - (long)random_below(r, TYPES) : LONG_MIN + (long)random_below(r, 2);
		break;
	default: /* the head of the queue */
		break;
	}
	switch (random_below(r, 16)) {
	case 0: /* perhaps too small: E2BIG */
		room = random_below(r, 2048);
		break;
	case 1: /* perhaps cut short */
		room = HEADER + random_below(r, 2048);
		flags |= MSG_NOERROR;
		break;
	default:
		break;
	}
	return do_receive(level, want, room, flags, jumpable, NULL);
}

static void random_send(enum level level, int wait_flag, bool jumpable)
{
	uint64_t *r = &lane[level].random;
	long type = 1 + (long)random_below(r, TYPES);
	do_send(level, type, random_length(r), wait_flag, jumpable);
}

/* ---- workers ------------------------------------------------------------------------------------------------------ */

/* Whether a worker may be killed or jumped away in this epoch: in a strict one only those who never receive. */
static bool strict_epoch(void)
{
	return atomic_load(&sh->epoch) % 2 == 0;
}

static bool sends_only(int process)
{
	return process % 3 == 0;
}

/* A child of a handler, wherever the interrupted code was, uses the queue and ends; it takes and leaves nothing there. */
static void forked_calls(void)
{
	static _Thread_local struct message m; /* the alternate stack is small */
	struct msqid_ds ds;
	int q = atomic_load(&sh->qid), status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 3; i++) {
			if (msgctl(q, IPC_STAT, &ds) != 0)
				_exit(errno == EINVAL || errno == EIDRM ? 0 : errno);
			if (msgrcv(q, &m, sizeof m.u, NEVER_TYPE, IPC_NOWAIT) >= 0)
				_exit(255);
			if (errno != ENOMSG && errno != EINVAL && errno != EIDRM)
				_exit(errno);
		}
		_exit(0);
	}
	if (pid < 0)
		return;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		failure(ERRORS, "the child of a handler ended with status %#x", (unsigned)status);
	atomic_fetch_add(&me->forks, 1);
}

/* SIGUSR1: calls on the same queue, wherever the interrupted code was. */
static void nested_handler(int sig)
{
	(void)sig;
	if (!me)
		return;
	int saved_errno = errno;
	sig_atomic_t saved_jump = jump_ok;
	jump_ok = 0;
	atomic_store(&me->nested_active, 1);
	atomic_fetch_add(&me->handlers, 1);
	if (atomic_load(&sh->mode) == RUN && my_epoch == atomic_load(&sh->epoch)) {
		uint64_t *r = &lane[NESTED].random;
		int calls = 1 + (int)random_below(r, 4);
		if (random_below(r, 64) == 0)
			forked_calls();
		for (int i = 0; i < calls; i++) {
			struct msqid_ds ds;
			uint32_t what = random_below(r, 5);
			if (strict_epoch() && sends_only(my_number / threads) && (what == 2 || what == 3))
				what = 0;
			switch (what) {
			case 0:
			case 1:
				random_send(NESTED, IPC_NOWAIT, saved_jump);
				break;
			case 2:
			case 3:
				random_receive(NESTED, IPC_NOWAIT, saved_jump);
				break;
			default:
				jump_ok = saved_jump;
				atomic_signal_fence(memory_order_seq_cst);
				int s = msgctl(atomic_load(&sh->qid), IPC_STAT, &ds);
				atomic_signal_fence(memory_order_seq_cst);
				jump_ok = 0;
				if (s != 0)
					failure(ERRORS, "IPC_STAT in a handler: %s", strerror(errno));
				else if (ds.msg_qnum > ds.msg_qbytes || ds.__msg_cbytes > ds.msg_qbytes)
					failure(COUNTERS, "IPC_STAT in a handler: qnum %lu, cbytes %lu, qbytes %lu", ds.msg_qnum,
						ds.__msg_cbytes, ds.msg_qbytes);
				break;
			}
			atomic_fetch_add(&me->nested_calls, 1);
		}
	}
	atomic_store(&me->nested_active, 0);
	jump_ok = saved_jump;
	errno = saved_errno;
}

/* SIGUSR2: away from the call, if there is one. What it was receiving may be lost: that is counted before the marks go. */
static void jump_handler(int sig)
{
	(void)sig;
	if (!me || !jump_ok)
		return;
	jump_ok = 0;
	for (int i = 0; i < LEVELS; i++)
		account_for_victim(me, i);
	atomic_fetch_add(&me->jumps, 1);
	atomic_store(&me->call, CALL_NONE);
	atomic_store(&me->nested_active, 0);
	siglongjmp(escape, 1);
}

/* The blocking call that IPC_RMID is to end. */
static void await_removal(void)
{
	static _Thread_local struct message m;
	int e;

	atomic_store(&me->removal_errno, 0);
	atomic_store(&me->parked, 0);
	do {
		atomic_store(&me->call, my_number % 2 ? CALL_SEND : CALL_RECEIVE);
		m.mtype = FILL_TYPE;
		if (my_number % 2)
			e = msgsnd(atomic_load(&sh->qid), &m, 1, 0) == 0 ? -1 : errno;
		else
			e = msgrcv(atomic_load(&sh->qid), &m, MAX_TEXT, NEVER_TYPE, 0) >= 0 ? -1 : errno;
	} while (e == EINTR);
	atomic_store(&me->removal_errno, e);
	atomic_store(&me->call, CALL_NONE);
	atomic_store(&me->parked, 1);
}

/* Waits while the supervisor looks at the queue. A stale `parked` is impossible: it is taken back before the mode is read
 * again, and the supervisor sets the mode before it reads `parked`. */
static void park(void)
{
	static _Thread_local unsigned removals_seen;
	static _Thread_local bool first = true;

	if (first)
		removals_seen = atomic_load(&sh->removals);
	first = false;
	for (;;) {
		atomic_store(&me->parked, 1);
		int mode;
		while ((mode = atomic_load(&sh->mode)) == PARK || (mode == REMOVAL && removals_seen == atomic_load(&sh->removals)))
			sleep_ns(200000);
		if (mode == QUIT)
			_exit(0);
		if (mode == REMOVAL) {
			removals_seen = atomic_load(&sh->removals);
			await_removal();
			continue;
		}
		atomic_store(&me->parked, 0);
		if (atomic_load(&sh->mode) == RUN)
			return;
	}
}

static _Noreturn void work(int number, uint64_t seed)
{
	static _Thread_local char alternate[65536];

	my_number = number;
	me = &sh->slot[number];
	for (int i = 0; i < LEVELS; i++)
		lane[i].random = mix(seed + (uint64_t)i);
	if (number % 2 && alternate_stacks) {
		stack_t ss = { .ss_sp = alternate, .ss_size = sizeof alternate };
		sigaltstack(&ss, NULL);
	}
	my_epoch = ~0U;
	/* The mask is open before it is saved, or a jump would close it for good; nobody jumps outside a call. */
	sigset_t none;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	if (sigsetjmp(escape, 1) == 0)
		atomic_store(&me->tid, (int)syscall(SYS_gettid));
	for (;;) {
		if (atomic_load(&sh->mode) != RUN)
			park();
		if (my_epoch != atomic_load(&sh->epoch))
			enter_epoch();
		if (exhausted) {
			sleep_ns(200000);
			continue;
		}
		uint64_t *r = &lane[ORDINARY].random;
		int process = my_number / threads;
		bool send = sends_only(process) || (process % 3 == 2 && random_below(r, 2));
		int flags = random_below(r, 3) ? IPC_NOWAIT : 0;
		if (send) {
			random_send(ORDINARY, flags, true);
		} else if (random_receive(ORDINARY, flags, true) == ENOMSG && random_below(r, 4) == 0) {
			sched_yield();
		}
		if (random_below(r, 64) == 0)
			sched_yield();
	}
}

static uint64_t worker_seed;

static void *thread(void *number)
{
	work((int)(intptr_t)number, mix(worker_seed + (uint64_t)(intptr_t)number));
}

static _Noreturn void worker(int process, uint64_t seed)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	worker_seed = seed;
	for (int i = 1; i < threads; i++) {
		pthread_t t;
		if (pthread_create(&t, NULL, thread, (void *)(intptr_t)(process * threads + i)) != 0)
			_exit(5);
	}
	work(process * threads, seed);
}

/* ---- supervisor --------------------------------------------------------------------------------------------------- */

static pid_t pid_of[MAX_SLOTS];
static int64_t stopped_until[MAX_SLOTS]; /* 0: not stopped by us */
static uint64_t rnd;
static bool do_kill = true, do_stop = true, do_signal = true, do_jump = true, use_gdb;
static int own_pids = -1; /* with --containers: the supervisor's pid namespace */
static unsigned long kills, stops, user1, user2, freezes, checkpoints, allowed_total, used_total, messages_total, swaps;
static int64_t longest_wake, longest_call;
static volatile int64_t last_beat;
static const char *volatile doing = "starting";

static void beat(const char *what)
{
	doing = what;
	last_beat = now_ns();
}

static void die(const char *what)
{
	fprintf(stderr, "torture: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* The supervisor itself hangs: say where, and end everything. */
static void watchdog(int sig)
{
	(void)sig;
	if (me || now_ns() - last_beat < 15000000000LL)
		return;
	char text[200];
	int n = snprintf(text, sizeof text, "FAIL the supervisor hangs for 15 s: %s\ntorture: 0 passed, 1 failed, 0 skipped\n", doing);
	if (write(STDOUT_FILENO, text, (size_t)n) < 0)
		_exit(3);
	for (int w = 0; w < workers; w++)
		if (pid_of[w] > 0)
			kill(pid_of[w], SIGKILL);
	_exit(3);
}

static void start_worker(int w)
{
	for (int n = w * threads; n < (w + 1) * threads; n++) {
		struct slot *s = &sh->slot[n];
		atomic_store(&s->call, CALL_NONE);
		atomic_store(&s->nested_active, 0);
		atomic_store(&s->parked, 0);
		atomic_store(&s->tid, 0);
		for (int i = 0; i < LEVELS; i++)
			atomic_store(&s->in_receive[i], OUTSIDE);
	}
	stopped_until[w] = 0;
	uint64_t seed = ++rnd;
	/* The children of a process go where unshare says, until setns says otherwise. */
	if (own_pids >= 0 && unshare(CLONE_NEWPID) != 0)
		die("unshare");
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (own_pids >= 0 && pid > 0 && setns(own_pids, CLONE_NEWPID) != 0)
		die("setns");
	if (own_pids >= 0 && pid == 0 && getpid() != 1)
		_exit(6);
	if (pid == 0)
		worker(w, mix(seed));
	pid_of[w] = pid;
}

static void kill_worker(int w)
{
	int status;

	kill(pid_of[w], SIGKILL);
	while (waitpid(pid_of[w], &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	for (int n = w * threads; n < (w + 1) * threads; n++)
		for (int i = 0; i < LEVELS; i++)
			account_for_victim(&sh->slot[n], i);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		failure(ERRORS, "worker %d ended by itself, status %#x", w, (unsigned)status);
}

/* A thread's id in the supervisor's eyes. */
static int seen_tid(int n)
{
	return own_pids >= 0 ? (int)pid_of[n] : atomic_load(&sh->slot[n].tid);
}

static void show_slot(int n)
{
	char path[64], line[256];
	static const char *const files[] = { "wchan", "syscall", "stack" };

	printf("  worker %d thread %d, pid %d, tid %d, call %d, want %ld, flags %#x\n", n / threads, n % threads,
	       (int)pid_of[n / threads], atomic_load(&sh->slot[n].tid), atomic_load(&sh->slot[n].call),
	       atomic_load(&sh->slot[n].want), (unsigned)atomic_load(&sh->slot[n].flags));
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid_of[n / threads], seen_tid(n), files[i]);
		FILE *f = fopen(path, "r");
		if (!f)
			continue;
		while (fgets(line, sizeof line, f))
			printf("  %s: %s%s", files[i], line, strchr(line, '\n') ? "" : "\n");
		fclose(f);
	}
	if (use_gdb) {
		char command[160];
		fflush(stdout);
		snprintf(command, sizeof command,
			 "env -u LD_PRELOAD timeout 20 gdb -p %d -batch -ex 'thread apply all bt' 2>&1 | tail -n 40", (int)pid_of[n / threads]);
		if (system(command) != 0)
			printf("  (no gdb)\n");
	}
	fflush(stdout);
}

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
static bool take_one(long want, size_t *len)
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
static void freeze(void)
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
			char path[64], line[256] = "";
			sleep_ns(300000);
			if (atomic_load(&sh->slot[n].call) == CALL_NONE)
				continue;
			snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid_of[n / threads], seen_tid(n));
			FILE *f = fopen(path, "r");
			if (f) {
				if (!fgets(line, sizeof line, f))
					line[0] = 0;
				fclose(f);
			}
			char *paren = strrchr(line, ')');
			asleep[n] = paren && strncmp(paren, ") S", 3) == 0;
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

static void make_queue(void)
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

static void checkpoint(bool last)
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
