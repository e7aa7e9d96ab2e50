/*
 * everystep.h: what the parts of everystep share. The head of everystep.c tells what it is all about.
 *
 *   victim.c   the processes that are hurt, or wait: they make the calls
 *   step.c     ptrace: instruction by instruction
 *   check.c    what must hold afterwards, through the API
 *   everystep.c  the calls, the trials, and which of them are made
 */
#ifndef EVERYSTEP_H
#define EVERYSTEP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/types.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

enum fault { KILL, STOP, NEST, JUMP, NESTKILL, NESTJUMP, FORK, REMOVAL, FAULTS };

enum kind {
	SEND,      /* a send that finds room */
	FULL,      /* one that does not, IPC_NOWAIT */
	BLOCKSEND, /* one that waits for room */
	RECEIVE,   /* a receive that finds a message */
	NOTHING,   /* one that does not, IPC_NOWAIT */
	BLOCK,     /* one that waits for a message */
	COPY,      /* MSG_COPY */
	CONTROL,   /* msgctl commands that change nothing */
	SET,       /* IPC_SET */
	WAKE,      /* a send for which a receiver sleeps */
	RELEASE,   /* a receive for which a sender sleeps */
	CREATE,    /* msgget of a new key, or IPC_PRIVATE */
	OPEN,      /* msgget of a key that exists */
	REMOVE     /* IPC_RMID */
};

enum { NESTED_TYPE = 77, AFTER_TYPE = 78, WAKE_TYPE = 99, LONG_TEXT = 8000, MOST = 64 };
/* Tokens of messages: in the queue before (BEFORE + place), the victim's, its child's handler's, the supervisor's. */
enum { BEFORE = 1000, MINE = 5000, SECOND = 5001, SLEEPERS = 5002, RELEASING = 5100, NESTED = 7700, AFTER = 7800 };

/* A call and what is in the queue before it: messages of `length` bytes, types first, first + step, ... */
struct call {
	const char *name;
	enum kind kind;
	long want;  /* type sent, msgtyp, or command */
	int flags;
	int length; /* of the text sent; of those in the queue when receiving */
	int before; /* messages in the queue */
	int target; /* which of them a receive gets */
	long first_type, step;
	int filling; /* length of the texts in the queue, if it is not `length` */
};

struct message {
	long mtype;
	struct {
		uint32_t token, length;
		unsigned char body[8184];
	} t;
};

/* What became of a call: in the victim, or in the child that its handler forked. */
struct outcome {
	atomic_int done, result, error;
	atomic_uint got;
};

/* Between victim, sleeper and supervisor. */
struct shared {
	atomic_int begun, over, broken, forked, removed, descriptors;
	atomic_int nested; /* the handler is through */
	atomic_int nested_wrong, after_right, jumped;
	struct outcome own, child;
	atomic_int sleeper_got, sleeper_error;
	char pair_wrong[120];
};

extern struct shared *sh;
extern int id;           /* the queue */
extern key_t key;        /* of CREATE, OPEN, REMOVE */
extern pid_t victim_pid, sleeper_pid;
extern volatile int64_t last_beat;
extern int64_t longest_answer, longest_wake;
extern const char *directory; /* of usysv's namespace, or NULL */

int64_t now_ns(void);
uint32_t random_below(uint32_t n);
__attribute__((format(printf, 1, 2))) void wrong(const char *format, ...);

/* victim.c */
void compose(struct message *m, uint32_t token, long type, int length);
bool intact(const struct message *m, ssize_t length);
bool pair_of(long type, uint32_t token, int length);
_Noreturn void victim(const struct call *c, enum fault fault, bool warm);
_Noreturn void sleeper(const struct call *c);

/* A call's path: where it is after each instruction. `surveyed`: the way to each is known; `fixed`: it has the same
 * distance on the stack from its beginning each time. */
struct place {
	uintptr_t instruction, stack, count; /* count: RCX, by which a repeated instruction counts down */
	long from;                           /* the place before it on the cheapest way, */
	long cost;                           /* the number of stops on that way, */
	enum { STEP, BREAKPOINT, SHARE } by; /* and how to get from there to here */
};

struct path {
	struct place *at;
	long n, room;
	int lost; /* how often it was missed lately */
	bool surveyed, fixed;
};

/* step.c */
bool asleep(pid_t pid);
bool step(int sig);
bool step_or_sleep(bool *slept);
bool run_until(const atomic_int *word);
void note_place(struct path *p);
void survey(struct path *p);
long reach(const struct path *p, long k, const atomic_int *end, bool waits, bool *slept);
void interrupt(int sig);
void kill_victim(void);
void bury_victim(void);
void end_sleeper(void);
void finish_victim(int sig, void (*release)(void));

/* check.c */
long files_below(const char *path);
void fill(const struct call *c);
int take_all(uint32_t tokens[MOST]);
void work(bool capacity, bool much);
bool await_sleeper(const struct call *c);
void remove_others(void);
void check_key(const struct call *c, bool stopped, long files_before);

#endif
