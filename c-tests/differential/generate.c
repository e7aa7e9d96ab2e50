/*
 * generate.c: lists of operations from a seed, and in words.
 *
 * The same seed gives the same list, on any machine. Values are drawn from small sets of those that matter (limits and their neighbours,
 * bits with a meaning and without), because chance alone never meets them.
 */
#include "protocol.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* splitmix64 */
uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t state;

static uint32_t below(uint32_t n)
{
	state = mix(state);
	return (uint32_t)((state >> 32) * n >> 32);
}

static int chance(uint32_t percent)
{
	return below(100) < percent;
}

#define PICK(array) ((array)[below(COUNT(array))])

static const int64_t keys[] = { 1, 2, 0x1234, 0x01020304, -1, INT_MIN, INT_MAX };
static const int64_t sizes[] = {
	0, 1, 2, 7, 8, 9, 15, 16, 63, 64, 71, 72, 73, 79, 80, 81, 100, 128, 255, 256, 300, 1000, 1999, 2000, 2001, 2999, 3000, 4000, 4047,
	4048, 4049, 4096, 8184, 8191, 8192,
};
static const int64_t bad_sizes[] = { 8193, 8200, -1, LONG_MIN, LONG_MAX, INT_MAX, 0x100000001, 16384 };
static const int64_t types[] = { 1, 2, 3, 4, 5, 7, 100, 255, 65536, INT_MAX, 0x100000005, LONG_MAX };
static const int modes[] = { 0600, 0660, 0666, 0644, 0622, 0, 0777, 0400, 0200, 0040, 0020, 0004, 0002, 0066, 0111, 0640, 0060, 0006 };
static const int64_t owners[] = { 0, UID_A, UID_B, 5, -1, INT_MAX };
static const int64_t groups[] = { 0, UID_A, UID_B, GID_C, -1 };
static const int64_t qbytes[] = {
	0, 1, 2, 3, 10, 64, 100, 1000, 2999, 3000, 3001, 8192, 16383, 16384, 16385, 65536, 0x100000010, 0xffffffff, -1, INT_MAX, 0x80000000,
	300000,
};
static const int values[] = { -1, INT_MIN, INT_MAX, 0, 1, 12345, 32768, -32768, 63, 64, 32767 };
static const int commands[] = {
	IPC_STAT, IPC_STAT, IPC_STAT, IPC_STAT, MSG_STAT, MSG_STAT, MSG_STAT_ANY, MSG_STAT_ANY, IPC_INFO, MSG_INFO, MSG_INFO,
};
static const int odd_commands[] = {
	-1, INT_MIN, INT_MAX, 4, 5, 6, 7, 8, 9, 10, 14, 100, IPC_STAT | 0x100, IPC_SET | 0x100, IPC_RMID | 0x100, MSG_STAT_ANY | 0x100,
};
static const int junk_flags[] = { 1, 0100000, 0x40000000, INT_MIN, 0777, 0100 };

static int msgmax;

static int mode(void)
{
	return chance(40) ? 0666 : chance(70) ? PICK(modes) : (int)below(512);
}

static int64_t type(void)
{
	return chance(80) ? 1 + (int64_t)below(5) : PICK(types);
}

static int64_t size(int blocking)
{
	if (blocking)
		return chance(80) ? (int64_t)below(80) : PICK(sizes);
	if (msgmax > TEXT_MAX && chance(20))
		return chance(50) ? (int64_t)below((uint32_t)msgmax + 1) : msgmax - 2 + (int64_t)below(5);
	return chance(4) ? PICK(bad_sizes) : chance(50) ? (int64_t)below(100) : chance(80) ? PICK(sizes) : (int64_t)below(TEXT_MAX + 1);
}

static void name_queue(struct op *op, int blocking)
{
	op->slot = (uint8_t)below(blocking ? 2 : SLOTS);
	if (blocking && chance(80))
		op->slot = 0;
	op->naming = BY_SLOT;
	if (chance(blocking ? 2 : 10)) {
		op->naming = (uint8_t)(1 + below(4));
		op->value = chance(50) ? PICK(values) : (int)below(80);
	}
}

static void name_buffer(struct op *op, int64_t need)
{
	op->buffer = GOOD;
	op->align = chance(80) ? 0 : (uint8_t)below(8);
	if (!chance(6))
		return;
	op->buffer = (uint8_t)(1 + below(BUFFERS - 1));
	if (need < 0 || need > msgmax)
		need = msgmax;
	need += 8;
	switch (below(4)) {
	case 0: op->good = (int)need; break;
	case 1: op->good = (int)below(17); break;
	case 2: op->good = (int)below((uint32_t)need + 1); break;
	default: op->good = need > 0 ? (int)need - 1 : 0; break;
	}
}

static void get(struct op *op, int blocking)
{
	op->kind = GET;
	op->slot = (uint8_t)below(blocking ? 2 : SLOTS);
	op->a = chance(45) ? IPC_PRIVATE : PICK(keys);
	op->flags = mode();
	if (chance(blocking ? 95 : 65))
		op->flags |= IPC_CREAT;
	if (chance(20))
		op->flags |= IPC_EXCL;
	if (chance(5))
		op->flags = (op->flags & ~0777) | (chance(50) ? 0 : PICK(junk_flags));
}

static void send(struct op *op, int blocking)
{
	op->kind = SEND;
	name_queue(op, blocking);
	op->a = type();
	if (chance(3))
		op->a = chance(50) ? 0 : -(int64_t)below(3);
	op->b = size(blocking);
	op->flags = chance(blocking ? 30 : 85) ? IPC_NOWAIT : 0;
	if (chance(3))
		op->flags |= PICK(junk_flags);
	name_buffer(op, op->b);
	op->may_block = (uint8_t)blocking;
}

static void receive(struct op *op, int blocking)
{
	op->kind = RECEIVE;
	name_queue(op, blocking);
	op->a = chance(40) ? 0 : chance(60) ? type() : -type();
	if (chance(2))
		op->a = chance(50) ? LONG_MIN : LONG_MIN + 1;
	op->b = chance(50) ? (msgmax > TEXT_MAX ? msgmax : TEXT_MAX) : size(blocking);
	op->flags = chance(blocking ? 15 : 85) ? IPC_NOWAIT : 0;
	if (chance(25))
		op->flags |= MSG_NOERROR;
	if (chance(15))
		op->flags |= MSG_EXCEPT;
	if (chance(blocking ? 3 : 12)) {
		op->flags |= MSG_COPY;
		if (chance(70)) {
			op->flags &= ~MSG_EXCEPT;
			op->flags |= IPC_NOWAIT;
		}
		op->a = chance(85) ? (int64_t)below(8) : PICK(values);
	}
	if (chance(3))
		op->flags |= PICK(junk_flags);
	name_buffer(op, op->b);
	op->may_block = (uint8_t)blocking;
}

static void set(struct op *op, int blocking)
{
	op->kind = CONTROL;
	op->flags = IPC_SET;
	name_queue(op, blocking);
	op->a = chance(60) ? 0 : PICK(owners);
	op->b = chance(60) ? 0 : PICK(groups);
	op->c = mode();
	if (chance(5))
		op->c |= PICK(junk_flags);
	op->d = chance(blocking ? 0 : 40) ? 16384 : chance(20) ? (int64_t)below(20000) : PICK(qbytes);
	name_buffer(op, 112);
}

static void control(struct op *op, int blocking)
{
	op->kind = CONTROL;
	op->flags = chance(96) ? PICK(commands) : PICK(odd_commands);
	name_queue(op, blocking);
	if ((op->flags == MSG_STAT || op->flags == MSG_STAT_ANY) && chance(70)) {
		op->naming = chance(50) ? BY_INDEX : BY_VALUE;
		op->value = (int)below(70);
	}
	name_buffer(op, op->flags == IPC_INFO || op->flags == MSG_INFO ? 24 : 112);
}

static void remove_queue(struct op *op, int blocking)
{
	op->kind = CONTROL;
	op->flags = IPC_RMID;
	name_queue(op, blocking);
	name_buffer(op, 112);
}

static void change_credentials(struct op *op)
{
	static const int capabilities[] = { 15 /* IPC_OWNER */, 21 /* SYS_ADMIN */, 24 /* SYS_RESOURCE */ };
	op->kind = CREDENTIALS;
	op->flags = (int)below(RESTORE);
	switch (op->flags) {
	case SET_EUID:
	case SET_FSUID:
	case SET_RESUID: op->a = owners[below(3)]; break;
	case SET_EGID:
	case SET_FSGID: op->a = groups[below(4)]; break;
	case SET_GROUPS: op->a = chance(50) ? 0 : GID_C; break;
	default: op->a = PICK(capabilities); break;
	}
}

/* Calls that never block, in long lists; now and then another process goes on. */
static uint32_t generate_calls(struct op *ops, uint32_t count, int limits)
{
	uint8_t actor = 0;
	int changed[ACTORS] = { 0 };
	int pauses = chance(1) ? 2 : 0;

	for (uint32_t i = 0; i < count; i++) {
		struct op *op = &ops[i];
		uint32_t what = below(1000);
		if (chance(3))
			actor = chance(50) ? 0 : (uint8_t)below(ACTORS);
		if (i < 6 || what < 60)
			get(op, 0);
		else if (what < 350)
			send(op, 0);
		else if (what < 690)
			receive(op, 0);
		else if (what < 870)
			control(op, 0);
		else if (what < 920)
			set(op, 0);
		else if (what < 955)
			remove_queue(op, 0);
		else if (what < 963) {
			op->kind = FILL;
			name_queue(op, 0);
			op->a = type();
			op->b = size(0);
			op->c = below(chance(3) ? 20000 : 60);
		} else if (what < 973) {
			op->kind = DRAIN;
			name_queue(op, 0);
			op->a = chance(60) ? 0 : chance(50) ? type() : -type();
			op->c = below(chance(3) ? 20000 : 60);
		} else if (actor <= 1 && (what < 990 || changed[actor])) {
			change_credentials(op);
			if (changed[actor] && chance(50))
				op->flags = RESTORE;
		} else if (limits == DEFAULT && actor <= 1 && !changed[actor] && chance(15)) {
			static const int values[3][5] = { { 100, 2000, 8191, 8192, 8192 }, { 0, 100, 3000, 16384, 65536 }, { 0, 1, 5, 24, 32000 } };
			op->kind = LIMIT;
			op->flags = (int)below(3);
			op->a = PICK(values[op->flags]);
			if (chance(3))
				op->a = chance(50) ? -1 : 0x80000000L;
		} else if (chance(20)) {
			op->kind = SHOW;
			op->flags = (int)below(4);
		} else if (pauses && chance(20)) {
			op->kind = PAUSE;
			pauses--;
		} else {
			if (chance(60))
				control(op, 0);
			else if (chance(50))
				send(op, 0);
			else
				receive(op, 0);
			op->forked = (uint8_t)chance(20);
		}
		/* What was changed does not stay for long. */
		if (changed[actor] && changed[actor]++ > 12) {
			memset(op, 0, sizeof *op);
			op->kind = CREDENTIALS;
			op->flags = RESTORE;
		}
		if (op->kind == CREDENTIALS)
			changed[actor] = op->flags == RESTORE ? 0 : changed[actor] + 1;
		op->actor = actor;
	}
	return count;
}

/* Scenes of few operations in which actors block. */
static uint32_t generate_scene(struct op *ops, uint32_t count)
{
	uint32_t i = 0;
	int hasty = chance(20);

	/* The queue it is about, small enough to be full soon. */
	ops[i].kind = GET;
	ops[i++].flags = IPC_CREAT | 0666;
	if (chance(60)) {
		ops[i].kind = CONTROL;
		ops[i].flags = IPC_SET;
		ops[i].c = 0666;
		ops[i++].d = 1 + (int64_t)below(120);
	}
	for (; i < count; i++) {
		struct op *op = &ops[i];
		uint32_t what = below(100);
		if (what < 34)
			receive(op, 1);
		else if (what < 62)
			send(op, 1);
		else if (what < 72)
			control(op, 1);
		else if (what < 80)
			set(op, 1);
		else if (what < 83)
			remove_queue(op, 1);
		else if (what < 86)
			get(op, 1);
		else {
			op->kind = what < 94 ? SIGNAL : what < 96 ? STOP : what < 98 ? CONTINUE : KILL;
			op->flags = (int)below(NOTICES);
			if (op->flags == REMOVING && chance(70))
				op->flags = PLAIN;
			op->slot = (uint8_t)(1 + below(ACTORS - 1));
			continue;
		}
		if (op->buffer != GOOD && chance(60))
			op->buffer = GOOD;
		op->hasty = hasty && chance(30);
		/* A message that somebody else takes at once is what the others are for. */
		op->actor = op->kind == CONTROL || op->kind == GET ? (chance(80) ? 0 : (uint8_t)below(ACTORS)) : (uint8_t)below(ACTORS);
	}
	return count;
}

uint32_t generate(struct op *ops, uint64_t seed, int *blocking, int *limits)
{
	uint32_t count;
	state = mix(seed ^ 0x5bd1e995);
	*blocking = chance(40);
	*limits = *blocking || chance(50) ? DEFAULT : chance(60) ? SMALL : LARGE;
	msgmax = limits_of[*limits].msgmax;
	count = *blocking ? 6 + below(24) : chance(10) ? 4000 + below(OPS_MAX - 4000) : 300 + below(3000);
	memset(ops, 0, count * sizeof *ops);
	return *blocking ? generate_scene(ops, count) : generate_calls(ops, count, *limits);
}

/* ---- in words ---- */

static const char *const kind_names[KINDS] = {
	"get", "send", "receive", "control", "fill", "drain", "credentials", "limit", "show", "pause", "signal", "stop", "continue", "kill",
};
static const char *const buffer_names[BUFFERS] = {
	"buffer", "NULL", "(void *)-1", "before a page without access", "before an unmapped page", "before a read-only page",
	"before the end of a file",
};
const char *const file_names[4] = {
	"/proc/sys/kernel/msgmax", "/proc/sys/kernel/msgmnb", "/proc/sys/kernel/msgmni", "/proc/sysvipc/msg",
};
static const char *const credential_names[] = {
	"seteuid", "setegid", "setgroups", "setfsgid", "setfsuid", "setresuid(-1, x, -1)", "drop capability", "restore all",
};
static const char *const notice_names[NOTICES] = {
	"handler runs", "SA_RESTART handler runs", "ignored", "handler sends", "handler receives", "handler removes",
};

static const char *queue_in_words(const struct op *op, char *text, size_t size)
{
	switch (op->naming) {
	case BY_SLOT: snprintf(text, size, "q%u", op->slot); break;
	case BY_FORMER: snprintf(text, size, "former q%u", op->slot); break;
	case BY_OTHER_SEQ: snprintf(text, size, "q%u ^ other seq", op->slot); break;
	case BY_INDEX: snprintf(text, size, "index of q%u", op->slot); break;
	default: snprintf(text, size, "%d", op->value); break;
	}
	return text;
}

static const char *buffer_in_words(const struct op *op, char *text, size_t size)
{
	const char *name = buffer_names[op->buffer % BUFFERS];
	if (op->buffer >= NO_ACCESS)
		snprintf(text, size, "%d bytes %s", op->good, name);
	else if (op->align)
		snprintf(text, size, "%s + %u", name, op->align);
	else
		snprintf(text, size, "%s", name);
	return text;
}

static const char *command_name(int command)
{
	switch (command) {
	case IPC_RMID: return "IPC_RMID";
	case IPC_SET: return "IPC_SET";
	case IPC_STAT: return "IPC_STAT";
	case IPC_INFO: return "IPC_INFO";
	case MSG_STAT: return "MSG_STAT";
	case MSG_INFO: return "MSG_INFO";
	case MSG_STAT_ANY: return "MSG_STAT_ANY";
	default: return NULL;
	}
}

static const char *flags_in_words(int flags, char *text, size_t size)
{
	static const struct { int bit; const char *name; } known[] = {
		{ IPC_NOWAIT, "IPC_NOWAIT" }, { MSG_NOERROR, "MSG_NOERROR" }, { MSG_EXCEPT, "MSG_EXCEPT" }, { MSG_COPY, "MSG_COPY" },
	};
	size_t used = 0;
	for (size_t i = 0; i < COUNT(known); i++)
		if (flags & known[i].bit) {
			used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "|" : "", known[i].name);
			flags &= ~known[i].bit;
		}
	if (flags || !used)
		snprintf(text + used, size - used, "%s%s%o", used ? "|" : "", flags ? "0" : "", (unsigned)flags);
	return text;
}

void describe(const struct op *op, char *text, size_t size)
{
	char queue[60], buffer[80], flags[80], who[20];
	snprintf(who, sizeof who, "%s%u", op->forked ? "child of " : "", op->actor);
	switch (op->kind) {
	case GET:
		snprintf(text, size, "%s: q%u = msgget(%" PRId64 ", %s%s0%o)", who, op->slot, op->a, op->flags & IPC_CREAT ? "IPC_CREAT|" : "",
			op->flags & IPC_EXCL ? "IPC_EXCL|" : "", (unsigned)(op->flags & ~(IPC_CREAT | IPC_EXCL)));
		break;
	case SEND:
		snprintf(text, size, "%s: msgsnd(%s, %s with type %" PRId64 ", %" PRId64 ", %s)", who, queue_in_words(op, queue, sizeof queue),
			buffer_in_words(op, buffer, sizeof buffer), op->a, op->b, flags_in_words(op->flags, flags, sizeof flags));
		break;
	case RECEIVE:
		snprintf(text, size, "%s: msgrcv(%s, %s, %" PRId64 ", %" PRId64 ", %s)", who, queue_in_words(op, queue, sizeof queue),
			buffer_in_words(op, buffer, sizeof buffer), op->b, op->a, flags_in_words(op->flags, flags, sizeof flags));
		break;
	case CONTROL:
		if (command_name(op->flags))
			snprintf(flags, sizeof flags, "%s", command_name(op->flags));
		else
			snprintf(flags, sizeof flags, "0x%x", (unsigned)op->flags);
		queue_in_words(op, queue, sizeof queue);
		buffer_in_words(op, buffer, sizeof buffer);
		if (op->flags == IPC_SET)
			snprintf(text, size, "%s: msgctl(%s, IPC_SET, %s with uid %" PRId64 ", gid %" PRId64 ", mode 0%o, qbytes %" PRId64 ")", who,
				queue, buffer, op->a, op->b, (unsigned)op->c, op->d);
		else
			snprintf(text, size, "%s: msgctl(%s, %s, %s)", who, queue, flags, buffer);
		break;
	case FILL:
		snprintf(text, size, "%s: up to %" PRId64 " times msgsnd(%s, type %" PRId64 ", %" PRId64 ", IPC_NOWAIT)", who, op->c,
			queue_in_words(op, queue, sizeof queue), op->a, op->b);
		break;
	case DRAIN:
		snprintf(text, size, "%s: up to %" PRId64 " times msgrcv(%s, type %" PRId64 ", IPC_NOWAIT)", who, op->c,
			queue_in_words(op, queue, sizeof queue), op->a);
		break;
	case CREDENTIALS:
		snprintf(text, size, "%s: %s %" PRId64, who, credential_names[op->flags & 7], op->a);
		break;
	case LIMIT: snprintf(text, size, "%s: writes %" PRId64 " to %s", who, op->a, file_names[op->flags & 3]); break;
	case SHOW: snprintf(text, size, "%s: reads %s", who, file_names[op->flags & 3]); break;
	case PAUSE: snprintf(text, size, "%s: sleeps for more than a second", who); break;
	case SIGNAL: snprintf(text, size, "signal to %u: %s", op->slot, notice_names[op->flags % NOTICES]); break;
	default: snprintf(text, size, "%s %u", op->kind < KINDS ? kind_names[op->kind] : "?", op->slot); break;
	}
	if (op->hasty && strlen(text) + 20 < size)
		strcat(text, " (in haste)");
}

/* ---- files: a line per operation, numbers behind a word ---- */

void save(FILE *to, const struct op *ops, uint32_t count, int blocking, int limits)
{
	char text[400];
	fprintf(to, "list %s %s\n", blocking ? "blocking" : "calls", limits_of[limits].name);
	for (uint32_t i = 0; i < count; i++) {
		const struct op *op = &ops[i];
		describe(op, text, sizeof text);
		fprintf(to, "%s %u %u %u %u %u %u %u %d %d %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "   # %s\n",
			op->kind < KINDS ? kind_names[op->kind] : "?", op->actor, op->slot, op->naming, op->buffer, op->align, op->forked,
			op->may_block | op->hasty << 1, op->flags, op->value, op->good, op->a, op->b, op->c, op->d, text);
	}
}

uint32_t load(FILE *from, struct op *ops, int *blocking, int *limits)
{
	char line[600], word[20], name[20];
	uint32_t count = 0;
	*blocking = *limits = 0;
	while (fgets(line, sizeof line, from) && count < OPS_MAX) {
		struct op *op = &ops[count];
		unsigned u[7];
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line, "list %19s %19s", word, name) == 2) {
			*blocking = !strcmp(word, "blocking");
			for (int l = 0; l < LIMITS; l++)
				if (!strcmp(name, limits_of[l].name))
					*limits = l;
			continue;
		}
		memset(op, 0, sizeof *op);
		if (sscanf(line, "%19s %u %u %u %u %u %u %u %d %d %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, word, &u[0], &u[1], &u[2], &u[3],
			    &u[4], &u[5], &u[6], &op->flags, &op->value, &op->good, &op->a, &op->b, &op->c, &op->d) != 15)
			return 0;
		op->actor = (uint8_t)(u[0] % ACTORS);
		op->slot = (uint8_t)(u[1] % SLOTS);
		op->naming = (uint8_t)u[2];
		op->buffer = (uint8_t)(u[3] % BUFFERS);
		op->align = (uint8_t)u[4];
		op->forked = (uint8_t)u[5];
		op->may_block = u[6] & 1;
		op->hasty = u[6] >> 1 & 1;
		op->kind = KINDS;
		for (unsigned k = 0; k < KINDS; k++)
			if (!strcmp(word, kind_names[k]))
				op->kind = (uint8_t)k;
		if (op->kind == KINDS)
			return 0;
		count++;
	}
	return count;
}
