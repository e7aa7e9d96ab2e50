/*
 * torture.h: what the parts of the torture share. The head of torture.c tells what it is all about.
 *
 *   account.c     messages, their tokens, and the account that is kept of them
 *   calls.c       msgsnd and msgrcv, with what is noted before and after
 *   worker.c      the processes that are hurt, and their handlers
 *   supervisor.c  starting, killing and showing them
 *   checkpoint.c  what must hold with everybody stopped or parked
 *   torture.c     what happens to the workers, and the account at the end
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/types.h>

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
enum receiving { OUTSIDE, IN_MSGRCV, NOTING };
enum level { ORDINARY, NESTED, LEVELS };
enum check { DELIVERED, DOUBLED, GHOSTS, TORN, ORDER, COUNTERS, CAPACITY, AWAKE, FROZEN, REMOVED, ERRORS, CHECKS };

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

struct lane {
	unsigned id;
	uint32_t next, end;
	uint64_t random;
};

extern struct shared *sh;
extern _Thread_local struct slot *me; /* NULL in the supervisor */
extern _Thread_local struct lane lane[LEVELS];
extern _Thread_local uint32_t my_epoch;
extern _Thread_local bool exhausted;
extern _Thread_local volatile sig_atomic_t jump_ok;
extern int workers, threads;
extern bool alternate_stacks;
extern size_t msgmax;

/* account.c */
int64_t now_ns(void);
void sleep_ns(long ns);
uint64_t mix(uint64_t x);
uint32_t random_below(uint64_t *state, uint32_t n);
__attribute__((format(printf, 2, 3))) void failure(enum check c, const char *format, ...);
void checked(enum check c);
void compose(struct message *m, uint32_t token, long type, size_t len);
void record(enum level level, const struct message *m, size_t len, size_t room, long want, int flags);
void account_for_victim(struct slot *s, enum level level);
void enter_epoch(void);
bool take_token(enum level level, uint32_t *token);

/* calls.c */
size_t random_length(uint64_t *r);
int do_send(enum level level, long type, size_t len, int flags, bool jumpable);
int do_receive(enum level level, long want, size_t room, int flags, bool jumpable, size_t *got);
int random_receive(enum level level, int wait_flag, bool jumpable);
void random_send(enum level level, int wait_flag, bool jumpable);

/* worker.c */
bool strict_epoch(void);
bool sends_only(int process);
void nested_handler(int sig);
void jump_handler(int sig);
_Noreturn void worker(int process, uint64_t seed);

/* supervisor.c */
extern pid_t pid_of[MAX_SLOTS];
extern int64_t stopped_until[MAX_SLOTS]; /* 0: not stopped by us */
extern uint64_t rnd;
extern bool use_gdb;
extern int own_pids; /* with --containers: the supervisor's pid namespace */
extern volatile int64_t last_beat;
void beat(const char *what);
_Noreturn void die(const char *what);
void watchdog(int sig);
void start_worker(int w);
void kill_worker(int w);
int seen_tid(int n);
void show_slot(int n);

/* checkpoint.c */
extern unsigned long freezes, checkpoints, allowed_total, used_total, messages_total, swaps;
extern int64_t longest_wake, longest_call;
bool take_one(long want, size_t *len);
void freeze(void);
void make_queue(void);
void checkpoint(bool last);

/* torture.c */
extern bool do_kill;
extern unsigned long kills;

#endif
