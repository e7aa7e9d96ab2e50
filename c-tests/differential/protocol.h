/*
 * protocol.h: what the differential fuzzer's parts tell each other.
 *
 * The driver (differential.c) makes a list of operations from a seed (generate.c) and gives the same list to two servers (execute.c), one on
 * the kernel's queues and one on ours. A server forks a *conductor* per list, in a namespace that is empty; the conductor forks *actors*, which
 * carry out what is not the conductor's own. Each operation leaves one record; the driver compares the records, field by field.
 *
 * A list and its records lie in memory that driver and server share (struct side). An operation names a queue by slot, never by
 * identifier, and a buffer by kind, never by address: so any part of a list is a list, and shrinking is leaving out.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

enum {
	OPS_MAX = 20000,
	SLOTS = 14,
	ACTORS = 6, /* 0 is the conductor itself */
	TEXT_MAX = 8192, /* msgmax, but for large limits */
	DETAIL = 200,
};

/* Users and groups of the actors. */
enum { UID_A = 65001, UID_B = 65002, GID_C = 65003 };

enum kind {
	GET,    /* msgget(a, flags) into the slot */
	SEND,   /* msgsnd(id, buffer with type a, size b, flags) */
	RECEIVE, /* msgrcv(id, buffer, size b, type a, flags) */
	CONTROL, /* msgctl(id, command flags, buffer); for IPC_SET a uid, b gid, c mode, d qbytes */
	FILL,   /* up to c messages of type a and size b, until one is refused */
	DRAIN,  /* up to c messages of type a */
	CREDENTIALS, /* what: flags (enum credential), value a */
	LIMIT,  /* writes a to /proc/sys/kernel/msgmax, msgmnb or msgmni (flags 0, 1, 2) */
	SHOW,   /* reads those (flags 0, 1, 2), or /proc/sysvipc/msg (3) */
	PAUSE,  /* more than a second, so that times differ */
	SIGNAL, /* signal number flags (enum notice) to the actor `slot`, if that is blocked */
	STOP,   /* the same, SIGSTOP */
	CONTINUE,
	KILL,
	KINDS,
};

/* How an operation names its queue. */
enum naming { BY_SLOT, BY_FORMER, BY_OTHER_SEQ, BY_INDEX, BY_VALUE };

enum buffer {
	GOOD, AT_NULL, AT_MINUS_ONE, /* the others: `good` bytes, then */ NO_ACCESS, UNMAPPED, READ_ONLY, BEYOND_FILE, BUFFERS,
};

enum credential {
	SET_EUID, SET_EGID, SET_GROUPS, SET_FSGID, SET_FSUID, SET_RESUID, DROP_CAPABILITY, RESTORE,
};

/* Signals an actor may get while blocked; the handler of the last three calls msgsnd, msgrcv or IPC_RMID itself. */
enum notice { PLAIN, RESTARTING, IGNORED, SENDING, RECEIVING, REMOVING, NOTICES };

struct op {
	uint8_t kind, actor, slot, naming, buffer, align, forked, may_block;
	int32_t flags, value; /* value: of BY_VALUE */
	int32_t good, hasty; /* hasty: in a scene, the next follows at once, whether others are through or not */
	int64_t a, b, c, d;
};

/* What became of an operation. All of it is compared. */
struct record {
	int64_t result;
	int32_t error;
	int32_t done_at; /* after which operation it was over */
	uint64_t memory; /* a hash of the caller's memory afterwards: what was written, and around it */
	uint32_t calls;
	uint32_t outcome;
};

enum outcome { NOT_RUN, DONE, AVOIDED, BUSY, DIED, STILL_BLOCKED };

/* Differences that are known are not walked into (known/). */
enum avoidance { AVOID_FOREIGN_CONTROL = 1, AVOID_STOPPED_ORDER = 2, AVOID_FSUID = 4, AVOID_BAD_LIMIT = 8, AVOID_ALL = 15 };

struct actor {
	_Atomic uint32_t go, phase, over; /* futexes */
	uint32_t from, to; /* what it is to do */
	_Atomic int32_t pid;
	int busy, stopped, dead, receiving, queue;
	uint32_t arrived;
	int stat_fd;
};

struct side {
	/* from the driver */
	uint32_t count, blocking, limits, verbose, avoid, perturb;
	struct op ops[OPS_MAX];
	/* from the server */
	struct record records[OPS_MAX];
	char detail[OPS_MAX][DETAIL];
	_Atomic uint64_t calls;
	_Atomic uint32_t avoided, hung;
	int32_t end; /* wait status of the conductor */
	/* among conductor and actors */
	struct actor actors[ACTORS];
	int ids[SLOTS], former[SLOTS];
	int64_t window[SLOTS][3][2]; /* stime, rtime, ctime: between which seconds they were set last */
	int64_t begun;
	_Atomic int64_t handler_result;
	_Atomic int32_t handler_error;
};

/* generate.c */
extern const char *const file_names[4];
uint64_t mix(uint64_t seed);
uint32_t generate(struct op *ops, uint64_t seed, int *blocking, int *limits);
void describe(const struct op *op, char *text, size_t size);
void save(FILE *to, const struct op *ops, uint32_t count, int blocking, int limits);
uint32_t load(FILE *from, struct op *ops, int *blocking, int *limits);

/* execute.c */
int serve(struct side *side, int from, int to, int own_namespace);

/* The limits of a list. */
enum limits { DEFAULT, SMALL, LARGE, LIMITS };
static const struct { const char *name; int msgmax, msgmnb, msgmni; } limits_of[LIMITS] = {
	{ "default", TEXT_MAX, 16384, 32000 }, { "small", 2000, 3000, 24 }, { "large", 60000, 150000, 500 },
};

#endif
