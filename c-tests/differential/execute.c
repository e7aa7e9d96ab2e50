/*
 * execute.c: carries out a list of operations, on whatever queues its process has, and writes down what came of each.
 *
 *     server ---fork---> conductor (actor 0) ---fork---> actors 1..5
 *
 * The server never touches a queue. Every list is carried out in a namespace that is empty: on the kernel's queues the conductor unshares its
 * IPC namespace, on ours the server removes the files in USYSV_DIR when everybody of the last list is gone.
 *
 * Nothing here depends on chance, addresses, process ids or the clock: what is written down is the same for the same list, if the queues behave
 * the same. Identifiers are compared as they are, because both sides start from an empty namespace. Process ids become roles, times
 * become a relation to when they should have been set.
 *
 * Blocking. After each operation of a scene the conductor waits until everybody is through or asleep: /proc/PID/stat says 'S' while the actor is
 * in its call (phase IN_CALL). A wake-up makes a sleeper runnable before the waker's call returns, so a state 'S' seen after the waker is
 * done says that the sleeper was not woken, or sleeps again. Two rounds without a change, and the next operation follows.
 */
#include "protocol.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int capset(struct __user_cap_header_struct *, const struct __user_cap_data_struct *);
extern int capget(struct __user_cap_header_struct *, struct __user_cap_data_struct *);

enum { PAGE = 4096, GOOD_PAGES = 17, SECONDS = 20 };
enum phase { IDLE, IN_CALL };

static struct side *side;
static int me;       /* actor */
static int is_child; /* forked for one operation */

/* ---- memory that calls are given ---- */

static unsigned char *good, *bad_end[BUFFERS];

static unsigned char *map(void *where, size_t pages, int fd)
{
	int flags = MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0) | (where ? MAP_FIXED_NOREPLACE : 0);
	unsigned char *p = mmap(where, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (p == MAP_FAILED) {
		perror("differential: mmap");
		_exit(3);
	}
	return p;
}

static void make_memory(void)
{
	size_t n = GOOD_PAGES;
	unsigned char *p;
	int fd = memfd_create("short", MFD_CLOEXEC);

	good = map(NULL, n + 2, -1);
	p = map(NULL, n + 1, -1);
	mprotect(p + n * PAGE, PAGE, PROT_NONE);
	bad_end[NO_ACCESS] = p + n * PAGE;
	/* Where no other mapping ever comes to lie: a hole that stays one. */
	p = map((void *)0x200000000000, n + 1, -1);
	munmap(p + n * PAGE, PAGE);
	bad_end[UNMAPPED] = p + n * PAGE;
	p = map(NULL, n + 1, -1);
	mprotect(p + n * PAGE, PAGE, PROT_READ);
	bad_end[READ_ONLY] = p + n * PAGE;
	if (fd < 0 || ftruncate(fd, (off_t)(n * PAGE)) != 0)
		_exit(3);
	bad_end[BEYOND_FILE] = map(NULL, n + 1, fd) + n * PAGE;
	close(fd);
}

/* A buffer, and the memory around it that is watched. */
struct place {
	unsigned char *buffer, *from, *to;
};

enum { CANARY = 64 };

static int64_t msgmax(void)
{
	int limit = limits_of[side->limits].msgmax;
	return limit > TEXT_MAX ? limit : TEXT_MAX;
}

static struct place place_of(const struct op *op, int64_t want)
{
	struct place p = { 0 };
	size_t need = (size_t)(want < 0 || want > msgmax() ? msgmax() : want) + 8;
	if (op->buffer == AT_NULL || op->buffer == AT_MINUS_ONE) {
		p.buffer = op->buffer == AT_NULL ? NULL : (unsigned char *)-1;
		return p;
	}
	if (op->buffer == GOOD) {
		p.buffer = good + PAGE + op->align % 8;
		p.to = p.buffer + need + CANARY;
	} else {
		p.buffer = bad_end[op->buffer] - op->good;
		p.to = bad_end[op->buffer];
		if (p.to > p.buffer + need + CANARY)
			p.to = p.buffer + need + CANARY;
	}
	p.from = p.buffer - CANARY;
	return p;
}

static uint64_t next(uint64_t x)
{
	return x * 6364136223846793005u + 1442695040888963407u;
}

static void fill(unsigned char *from, unsigned char *to, uint64_t seed)
{
	uint64_t x = mix(seed);
	for (; to - from >= 8; from += 8, x = next(x))
		memcpy(from, &x, 8);
	memcpy(from, &x, (size_t)(to - from));
}

static uint64_t hash(const unsigned char *from, const unsigned char *to, uint64_t h)
{
	uint64_t x;
	for (; to - from >= 8; from += 8) {
		memcpy(&x, from, 8);
		h = (h ^ x) * 0x9fb21c651e98df25;
		h ^= h >> 29;
	}
	x = 0;
	memcpy(&x, from, (size_t)(to - from));
	h = (h ^ x) * 0x9fb21c651e98df25;
	return h ^ h >> 32;
}

/* ---- what must differ between the two sides, made comparable ---- */

static int64_t role_of(pid_t pid)
{
	if (pid == 0)
		return 0;
	for (int a = 0; a < ACTORS; a++)
		if (side->actors[a].pid == pid)
			return 1 + a;
	return 100;
}

static int slot_of(int id)
{
	for (int s = 0; s < SLOTS; s++)
		if (side->ids[s] == id)
			return s;
	return -1;
}

enum { S_TIME, R_TIME, C_TIME };

/* 0 never, 1 when it should have been, 2 at another time */
static int64_t when(int slot, int which, int64_t t)
{
	int64_t low = side->begun - 1, high = time(NULL) + 1;
	if (t == 0)
		return 0;
	if (slot >= 0 && side->window[slot][which][1]) {
		low = side->window[slot][which][0] - 1; /* the kernel's clock may lag by a tick */
		high = side->window[slot][which][1];
	}
	return t >= low && t <= high ? 1 : 2;
}

static void note_time(int id, int which, int64_t before)
{
	int64_t after = time(NULL);
	for (int s = 0; s < SLOTS; s++)
		if (side->ids[s] == id) {
			side->window[s][which][0] = before;
			side->window[s][which][1] = after;
		}
}

static void make_comparable(struct msqid_ds *ds, int id)
{
	int slot = slot_of(id);
	ds->msg_stime = when(slot, S_TIME, ds->msg_stime);
	ds->msg_rtime = when(slot, R_TIME, ds->msg_rtime);
	ds->msg_ctime = when(slot, C_TIME, ds->msg_ctime);
	ds->msg_lspid = (pid_t)role_of(ds->msg_lspid);
	ds->msg_lrpid = (pid_t)role_of(ds->msg_lrpid);
}

/* ---- operations ---- */

#define CALLS(n) atomic_fetch_add_explicit(&side->calls, (uint64_t)(n), memory_order_relaxed)

static int id_of(const struct op *op)
{
	int slot = op->slot % SLOTS, id = side->ids[slot];
	switch (op->naming) {
	case BY_SLOT: return id;
	case BY_FORMER: return side->former[slot];
	case BY_OTHER_SEQ: return id ^ 0x8000;
	case BY_INDEX: return id & 0x7fff;
	default: return op->value;
	}
}

/* Looks at a queue without asking for permission. */
static int look(int id, struct msqid_ds *ds)
{
	return id >= 0 && msgctl(id & 0x7fff, MSG_STAT_ANY, ds) == id;
}

/* Whether somebody else may be in a call while this operation is carried out. */
static int in_haste(uint32_t number)
{
	return side->blocking && (side->ops[number].hasty || (number > 0 && side->ops[number - 1].hasty));
}

/* The conductor must not block, nor anybody in a list of calls: IPC_NOWAIT is left away only where it makes no difference. */
static int flags_of(const struct op *op, int id)
{
	struct msqid_ds ds;
	if (op->flags & (IPC_NOWAIT | MSG_COPY) || (op->may_block && me != 0))
		return op->flags;
	/* In haste, what is seen now need not be true in a moment. */
	if (!look(id, &ds) || in_haste((uint32_t)(op - side->ops)))
		return op->flags | IPC_NOWAIT;
	if (op->kind == RECEIVE)
		return ds.msg_qnum > 0 && op->a == 0 ? op->flags : op->flags | IPC_NOWAIT;
	return op->b >= 0 && ds.__msg_cbytes + (uint64_t)op->b <= ds.msg_qbytes && ds.msg_qnum + 1 <= ds.msg_qbytes ? op->flags
														   : op->flags | IPC_NOWAIT;
}

static void do_get(const struct op *op, struct record *r)
{
	int64_t before = time(NULL);
	int slot = op->slot % SLOTS, id;
	errno = 0;
	id = msgget((key_t)op->a, op->flags);
	r->result = id;
	r->error = errno;
	CALLS(1);
	if (id >= 0 && id != side->ids[slot]) {
		int known = slot_of(id);
		side->former[slot] = side->ids[slot];
		side->ids[slot] = id;
		if (known >= 0) {
			memcpy(side->window[slot], side->window[known], sizeof side->window[slot]);
		} else {
			memset(side->window[slot], 0, sizeof side->window[slot]);
			/* An old queue of a key has whatever times it has; a new one is recognised by having been used never. */
			struct msqid_ds ds;
			if (look(id, &ds) && ds.msg_ctime >= before)
				note_time(id, C_TIME, before);
		}
	}
}

static void do_send(const struct op *op, struct record *r, uint32_t number)
{
	int id = id_of(op), flags = flags_of(op, id);
	struct place p = place_of(op, op->b);
	int64_t before = time(NULL);
	if (p.from) {
		long type = op->a;
		size_t whole = (size_t)(p.to - p.buffer);
		fill(p.from, p.to, number);
		memcpy(p.buffer, &type, whole < 8 ? whole : 8);
	}
	errno = 0;
	r->result = msgsnd(id, p.buffer, (size_t)op->b, flags);
	r->error = errno;
	CALLS(1);
	if (r->result == 0)
		note_time(id, S_TIME, before);
	/* Its memory is not looked at afterwards: it would have to be damaged by a call that only reads, which "receive" would show. */
}

static void do_receive(const struct op *op, struct record *r, uint32_t number)
{
	int id = id_of(op), flags = flags_of(op, id);
	struct place p = place_of(op, op->b);
	int64_t before = time(NULL);
	if (p.from)
		fill(p.from, p.to, number);
	errno = 0;
	r->result = msgrcv(id, p.buffer, (size_t)op->b, op->a, flags);
	r->error = errno;
	CALLS(1);
	if (p.from)
		r->memory = hash(p.from, p.to, 1);
	if (!(flags & MSG_COPY) && (r->result >= 0 || r->error == EFAULT))
		note_time(id, R_TIME, before);
	if (side->verbose && p.from && r->result >= 0) {
		long type = 0;
		memcpy(&type, p.buffer, (size_t)(p.to - p.buffer) < 8 ? (size_t)(p.to - p.buffer) : 8);
		snprintf(side->detail[number], DETAIL, "type %ld, text %02x%02x.., memory %016llx", type, p.buffer[8], p.buffer[9],
			(unsigned long long)r->memory);
	} else if (side->verbose && p.from) {
		snprintf(side->detail[number], DETAIL, "memory %016llx", (unsigned long long)r->memory);
	}
}

static void do_control(const struct op *op, struct record *r, uint32_t number)
{
	int id = id_of(op), command = op->flags;
	struct place p = place_of(op, 112);
	int64_t before = time(NULL);
	struct msqid_ds ds;

	if ((command == IPC_RMID || command == IPC_SET) && (side->avoid & AVOID_FOREIGN_CONTROL) && syscall(SYS_geteuid) != 0 && look(id, &ds) &&
	    (ds.msg_perm.cuid != (uid_t)syscall(SYS_geteuid) || ds.msg_perm.uid != ds.msg_perm.cuid)) {
		r->outcome = AVOIDED;
		atomic_fetch_add(&side->avoided, 1);
		return;
	}
	if (p.from)
		fill(p.from, p.to, number);
	if (command == IPC_SET && p.from) {
		size_t whole = (size_t)(p.to - p.buffer);
		memcpy(&ds, good + PAGE + 2048, sizeof ds);
		fill((unsigned char *)&ds, (unsigned char *)(&ds + 1), number);
		ds.msg_perm.uid = (uid_t)op->a;
		ds.msg_perm.gid = (gid_t)op->b;
		ds.msg_perm.mode = (unsigned short)op->c;
		ds.msg_qbytes = (unsigned long)op->d;
		memcpy(p.buffer, &ds, whole < sizeof ds ? whole : sizeof ds);
	}
	errno = 0;
	r->result = msgctl(id, command, (struct msqid_ds *)p.buffer);
	r->error = errno;
	CALLS(1);
	if (r->result == 0 && command == IPC_SET)
		note_time(id, C_TIME, before);
	if (!p.from || command == IPC_SET || command == IPC_RMID)
		return;
	if (r->result >= 0 && (command == IPC_STAT || command == MSG_STAT || command == MSG_STAT_ANY)) {
		memcpy(&ds, p.buffer, sizeof ds);
		make_comparable(&ds, command == IPC_STAT ? id : (int)r->result);
		memcpy(p.buffer, &ds, sizeof ds);
		if (side->verbose)
			snprintf(side->detail[number], DETAIL,
				"key %d uid %u gid %u cuid %u cgid %u mode 0%o seq %u times %ld %ld %ld cbytes %lu qnum %lu qbytes %lu pids %d %d memory %016llx",
				ds.msg_perm.__key, ds.msg_perm.uid, ds.msg_perm.gid, ds.msg_perm.cuid, ds.msg_perm.cgid, ds.msg_perm.mode,
				ds.msg_perm.__seq, ds.msg_stime, ds.msg_rtime, ds.msg_ctime, ds.__msg_cbytes, ds.msg_qnum, ds.msg_qbytes,
				ds.msg_lspid, ds.msg_lrpid, (unsigned long long)hash(p.from, p.to, 1));
	} else if (r->result >= 0 && side->verbose && (size_t)(p.to - p.buffer) >= sizeof(struct msginfo)) {
		struct msginfo m;
		memcpy(&m, p.buffer, sizeof m);
		snprintf(side->detail[number], DETAIL, "pool %d map %d max %d mnb %d mni %d ssz %d tql %d seg %u", m.msgpool, m.msgmap, m.msgmax,
			m.msgmnb, m.msgmni, m.msgssz, m.msgtql, m.msgseg);
	}
	/* What was written before a fault holds times that cannot be told apart from the rest: only what lies before is compared. */
	r->memory = hash(p.from, r->result < 0 && r->error == EFAULT ? p.buffer : p.to, 1);
}

static void do_fill(const struct op *op, struct record *r, uint32_t number)
{
	int id = id_of(op), n = 0;
	int64_t before = time(NULL);
	unsigned char *buffer = good + PAGE;
	long type = op->a;
	size_t size = (size_t)(op->b < 0 || op->b > msgmax() ? msgmax() : op->b);
	fill(buffer, buffer + 8 + size, number);
	memcpy(buffer, &type, sizeof type);
	errno = 0;
	for (; n < op->c; n++) {
		if (size)
			buffer[8 + size - 1] = (unsigned char)n;
		if (msgsnd(id, buffer, (size_t)op->b, IPC_NOWAIT) != 0)
			break;
	}
	r->result = n;
	r->error = errno;
	CALLS(n + 1);
	if (n)
		note_time(id, S_TIME, before);
}

static void do_drain(const struct op *op, struct record *r, uint32_t number)
{
	int id = id_of(op), n = 0;
	int64_t before = time(NULL);
	unsigned char *buffer = good + PAGE;
	fill(buffer, buffer + 8 + msgmax() + 8, number);
	r->memory = 1;
	errno = 0;
	for (; n < op->c; n++) {
		ssize_t got = msgrcv(id, buffer, (size_t)msgmax(), op->a, IPC_NOWAIT);
		if (got < 0)
			break;
		r->memory = hash(buffer, buffer + 8 + got + 8, r->memory);
	}
	r->result = n;
	r->error = errno;
	CALLS(n + 1);
	if (n)
		note_time(id, R_TIME, before);
}

static struct __user_cap_data_struct capabilities[2];

static int drop_capability(int number)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	if (capget(&header, data) != 0)
		return -1;
	data[number / 32].effective &= ~(1u << number % 32);
	return capset(&header, data);
}

static int restore(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	if (setresuid(-1, 0, -1) != 0 || setresgid(0, 0, 0) != 0 || setgroups(0, NULL) != 0)
		return -1;
	setfsuid(0);
	setfsgid(0);
	return capset(&header, capabilities);
}

static void do_credentials(const struct op *op, struct record *r)
{
	gid_t group = (gid_t)op->a;
	if (op->flags == SET_FSUID && (side->avoid & AVOID_FSUID)) {
		r->outcome = AVOIDED;
		atomic_fetch_add(&side->avoided, 1);
		return;
	}
	errno = 0;
	switch (op->flags) {
	case SET_EUID: r->result = seteuid((uid_t)op->a); break;
	case SET_EGID: r->result = setegid(group); break;
	case SET_GROUPS: r->result = setgroups(group ? 1 : 0, &group); break;
	case SET_FSGID: r->result = setfsgid(group); break;
	case SET_FSUID: r->result = setfsuid((uid_t)op->a); break;
	case SET_RESUID: r->result = setresuid((uid_t)-1, (uid_t)op->a, (uid_t)-1); break;
	case DROP_CAPABILITY: r->result = drop_capability((int)op->a); break;
	default: r->result = restore(); break;
	}
	r->error = errno;
}

static void do_limit(const struct op *op, struct record *r)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%lld\n", (long long)op->a), fd;
	errno = 0;
	fd = open(file_names[op->flags & 3], O_WRONLY | O_CLOEXEC);
	r->result = fd < 0 ? -2 : write(fd, text, (size_t)n);
	r->error = errno;
	if (fd >= 0)
		close(fd);
}

/* /proc/sysvipc/msg with process ids and times made comparable, anything else as it is. */
static void do_show(const struct op *op, struct record *r, uint32_t number)
{
	char line[400], same[400], *show = line;
	FILE *f = fopen(file_names[op->flags & 3], "re");
	r->result = -1;
	r->error = f ? 0 : errno;
	if (!f)
		return;
	r->memory = 1;
	r->result = 0;
	while (fgets(line, sizeof line, f)) {
		int key, id, n;
		unsigned mode, owners[4];
		unsigned long bytes, count;
		int pids[2];
		long long times[3];
		if (sscanf(line, "%d %d %o %lu %lu %d %d %u %u %u %u %lld %lld %lld%n", &key, &id, &mode, &bytes, &count, &pids[0], &pids[1], &owners[0],
			    &owners[1], &owners[2], &owners[3], &times[0], &times[1], &times[2], &n) == 14) {
			int slot = slot_of(id);
			snprintf(same, sizeof same, "%10d %10d  %4o  %10lu %10lu %5lld %5lld %5u %5u %5u %5u %lld %lld %lld", key, id, mode, bytes, count,
				(long long)role_of(pids[0]), (long long)role_of(pids[1]), owners[0], owners[1], owners[2], owners[3],
				(long long)when(slot, S_TIME, times[0]), (long long)when(slot, R_TIME, times[1]), (long long)when(slot, C_TIME, times[2]));
			show = same;
		}
		r->memory = hash((unsigned char *)show, (unsigned char *)show + strlen(show), r->memory);
		r->result++;
		if (side->verbose)
			snprintf(side->detail[number], DETAIL, "%.*s", (int)strcspn(show, "\n"), show);
		show = line;
	}
	fclose(f);
}

static void do_op(uint32_t number)
{
	const struct op *op = &side->ops[number];
	struct record *r = &side->records[number];
	struct timespec pause = { 1, 100000000 };

	if (op->forked && me == 0 && !is_child) {
		int status = 0;
		pid_t pid = fork();
		if (pid == 0) {
			is_child = 1;
			do_op(number);
			_exit(0);
		}
		waitpid(pid, &status, 0);
		if (WIFSIGNALED(status)) {
			r->outcome = DIED;
			r->error = WTERMSIG(status);
		}
		return;
	}
	switch (op->kind) {
	case GET: do_get(op, r); break;
	case SEND: do_send(op, r, number); break;
	case RECEIVE: do_receive(op, r, number); break;
	case CONTROL: do_control(op, r, number); break;
	case FILL: do_fill(op, r, number); break;
	case DRAIN: do_drain(op, r, number); break;
	case CREDENTIALS: do_credentials(op, r); break;
	case LIMIT:
	case SHOW:
		if ((side->avoid & AVOID_BAD_LIMIT) && op->kind == LIMIT && (op->a < 0 || op->a > INT_MAX)) {
			r->outcome = AVOIDED;
			atomic_fetch_add(&side->avoided, 1);
		} else if (op->kind == LIMIT) {
			do_limit(op, r);
		} else {
			do_show(op, r, number);
		}
		break;
	case PAUSE: nanosleep(&pause, NULL); break;
	}
	if (r->outcome == NOT_RUN)
		r->outcome = DONE;
}

/* ---- actors ---- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value, long milliseconds)
{
	struct timespec t = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void pause_cpu(void)
{
#if defined __x86_64__
	__builtin_ia32_pause();
#endif
}

static void on_signal(int number)
{
	struct {
		long type;
		char text[8];
	} m = { 1, "handler" };
	int saved = errno, id = side->actors[me].queue;
	int64_t result = 1000;

	errno = 0;
	if (number == SIGRTMIN + SENDING)
		result = msgsnd(id, &m, 3, IPC_NOWAIT);
	else if (number == SIGRTMIN + RECEIVING)
		result = msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT | MSG_NOERROR);
	else if (number == SIGRTMIN + REMOVING)
		result = msgctl(id, IPC_RMID, NULL);
	if (result != 1000)
		CALLS(1);
	side->handler_error = result < 0 ? errno : 0;
	side->handler_result = result;
	errno = saved;
}

static void take_signals(void)
{
	for (int n = 0; n < NOTICES; n++) {
		struct sigaction act = { .sa_handler = n == IGNORED ? SIG_IGN : on_signal, .sa_flags = n == RESTARTING ? SA_RESTART : 0 };
		sigaction(SIGRTMIN + n, &act, NULL);
	}
}

static void become(int actor)
{
	static const struct { uid_t uid; gid_t gid, group; } who[ACTORS] = {
		{ 0, 0, 0 }, { 0, 0, 0 }, { UID_A, UID_A, 0 }, { UID_B, UID_B, GID_C }, { UID_A, GID_C, 0 }, { UID_B, UID_B, 0 },
	};
	gid_t group = who[actor].group;
	if (who[actor].uid == 0)
		return;
	if (setgroups(group ? 1 : 0, &group) != 0 || setresgid(who[actor].gid, who[actor].gid, who[actor].gid) != 0 ||
	    setresuid(who[actor].uid, who[actor].uid, who[actor].uid) != 0)
		_exit(4);
}

/*
 * Who comes first of several that act at once, or were woken at once, is the kernel's choice; but on a quiet machine it nearly always
 * chooses alike. The conductor's own call beats an actor's, who must first wake up, in hundreds of runs of a hundred. So waiting for the
 * other order is no way to see it, and a run whose number is not 0 is perturbed:
 *
 *   - In two of three, order is ours. All are on one processor, with real-time priorities, and before each operation the priorities of some
 *     are drawn anew, above or below the conductor's. Who is above it acts as soon as it is told; who is below waits for the conductor's
 *     next sleep, and then the highest goes first. Drawn anew, because one order for a whole run never shows a before b and later b before a.
 *   - In the third, everybody acts on a processor drawn by lot, after a moment drawn by lot, from nothing to half a millisecond: that makes
 *     calls overlap, and is what is left where real-time priorities are not to be had.
 *
 * Everything is drawn from the number of the run. None of it adds an outcome to those that are possible: processes may be that slow.
 */
enum { OUR_PRIORITY = 50 };

static int processors[CPU_SETSIZE], processor_count;

static int lagging(void)
{
	return side->perturb % 4 == 3;
}

static uint32_t draw(uint32_t number, uint32_t what, uint32_t below)
{
	return (uint32_t)(mix(mix(side->perturb) + number * 64 + what) >> 32) % below;
}

static void go_to_processor(uint32_t which)
{
	cpu_set_t one;
	if (processor_count == 0)
		return;
	CPU_ZERO(&one);
	CPU_SET(processors[which % (uint32_t)processor_count], &one);
	sched_setaffinity(0, sizeof one, &one);
}

static void set_priority(pid_t pid, int priority)
{
	struct sched_param param = { .sched_priority = priority };
	if (sched_setscheduler(pid, SCHED_FIFO, &param) != 0)
		setpriority(PRIO_PROCESS, (id_t)pid, 20 - priority * 2 / 5);
}

/* The conductor's; actors inherit it. */
static void perturb(void)
{
	cpu_set_t all;
	if (sched_getaffinity(0, sizeof all, &all) == 0)
		for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
			if (CPU_ISSET(cpu, &all))
				processors[processor_count++] = cpu;
	if (lagging())
		return;
	go_to_processor(draw(0, 0, 1u << 16));
	set_priority(0, OUR_PRIORITY);
}

/* Before an operation, by who carries it out; not by an actor that is in its call, whose sleep would pass for one in the queue. */
static void lag(uint32_t number)
{
	struct timespec begun, t;
	uint32_t what = me ? 2 : 1, length = draw(number, what, 12);
	if (!side->perturb || !lagging() || !in_haste(number))
		return;
	go_to_processor(draw(number, what + 2, 1u << 16));
	if (length < 2)
		return;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do {
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((t.tv_sec - begun.tv_sec) * 1000000000 + t.tv_nsec - begun.tv_nsec < 500L << length >> 1);
}

/* Before each operation, by the conductor. */
static void draw_priorities(uint32_t number)
{
	if (!side->perturb || lagging())
		return;
	for (uint32_t a = 1; a < ACTORS; a++) {
		struct actor *actor = &side->actors[a];
		/* Only half of them, so that somebody can also be slow over many operations. */
		if (!actor->pid || actor->dead || draw(number, 8 + a, 2))
			continue;
		int priority = 1 + (int)draw(number, 16 + a, 98);
		set_priority(actor->pid, priority + (priority >= OUR_PRIORITY));
	}
}

static void yield(void)
{
	struct timespec moment = { 0, 20000 };
	if (side->perturb)
		nanosleep(&moment, NULL);
	else
		sched_yield();
}

static void act(void)
{
	struct actor *self = &side->actors[me];
	uint32_t turn = 0;
	take_signals();
	become(me);
	for (;;) {
		for (int spin = 0; atomic_load(&self->go) == turn; spin++) {
			if (spin < 300)
				pause_cpu();
			else
				futex_wait(&self->go, turn, 1000);
		}
		turn = atomic_load(&self->go);
		lag(self->from);
		atomic_store(&self->phase, IN_CALL);
		for (uint32_t i = self->from; i < self->to; i++)
			do_op(i);
		atomic_store(&self->phase, IDLE);
		atomic_store(&self->over, turn);
		futex_wake(&self->over);
	}
}

/* ---- the conductor ---- */

static void start_actor(int a)
{
	struct actor *actor = &side->actors[a];
	char path[64];
	pid_t pid;

	memset(actor, 0, offsetof(struct actor, pid));
	actor->busy = actor->stopped = actor->dead = 0;
	pid = fork();
	if (pid < 0)
		_exit(3);
	if (pid == 0) {
		me = a;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		act();
		_exit(0);
	}
	actor->pid = pid;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	actor->stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (actor->stat_fd < 0)
		_exit(3);
}

static char state_of(struct actor *actor)
{
	char text[256];
	ssize_t n = pread(actor->stat_fd, text, sizeof text - 1, 0);
	char *end;
	if (n <= 0)
		return 0;
	text[n] = 0;
	end = strrchr(text, ')');
	return end && end[1] == ' ' ? end[2] : 0;
}

/* It died in the operation it was at: that is what came of it. */
static int has_died(struct actor *actor, uint32_t now)
{
	int status;
	if (waitpid(actor->pid, &status, WNOHANG) != actor->pid)
		return 0;
	uint32_t i = actor->from;
	while (i + 1 < actor->to && side->records[i].outcome != NOT_RUN)
		i++;
	side->records[i] = (struct record){ .outcome = DIED, .error = WIFSIGNALED(status) ? WTERMSIG(status) : -1, .done_at = (int32_t)now };
	actor->busy = actor->stopped = 0;
	actor->dead = 1;
	close(actor->stat_fd);
	return 1;
}

static int is_over(struct actor *actor)
{
	return atomic_load(&actor->over) == atomic_load(&actor->go);
}

static void give(struct actor *actor, uint32_t from, uint32_t to)
{
	actor->from = from;
	actor->to = to;
	actor->busy = 1;
	actor->arrived = from;
	actor->receiving = side->ops[from].kind == RECEIVE;
	actor->queue = id_of(&side->ops[from]);
	atomic_fetch_add(&actor->go, 1);
	futex_wake(&actor->go);
}

/* Waits until an actor is through with calls that do not block. */
static void await(struct actor *actor, uint32_t now)
{
	for (int spin = 0; !is_over(actor); spin++) {
		if (spin < 500) {
			pause_cpu();
			continue;
		}
		uint32_t over = atomic_load(&actor->over);
		if (over == atomic_load(&actor->go))
			break;
		futex_wait(&actor->over, over, 20);
		if (has_died(actor, now))
			return;
	}
	actor->busy = 0;
}

/* Waits until everybody is through, or blocked. */
static void settle(uint32_t now)
{
	for (int quiet = 0; quiet < 2;) {
		int changed = 0;
		for (int a = 1; a < ACTORS; a++) {
			struct actor *actor = &side->actors[a];
			if (!actor->pid || !actor->busy)
				continue;
			if (is_over(actor)) {
				side->records[actor->from].done_at = (int32_t)now;
				actor->busy = 0;
				changed = 1;
				continue;
			}
			int in_call = atomic_load(&actor->phase) == IN_CALL;
			char state = state_of(actor);
			if ((state == 0 || state == 'Z') && has_died(actor, now))
				changed = 1;
			else if (actor->stopped ? state != 'T' : state != 'S' || !in_call || is_over(actor))
				changed = 1;
		}
		quiet = changed ? 0 : quiet + 1;
		if (changed)
			yield();
	}
}

/* Whether a receiver that came later than this one waits at the same queue. */
static int is_overtaken(const struct actor *one)
{
	for (int a = 1; a < ACTORS; a++) {
		const struct actor *other = &side->actors[a];
		if (other != one && other->busy && other->receiving && other->queue == one->queue && other->arrived > one->arrived)
			return 1;
	}
	return 0;
}

/* Signals and the like, for an actor that is blocked. */
static void disturb(const struct op *op, struct record *r)
{
	struct actor *actor = &side->actors[op->slot % ACTORS];
	r->outcome = DONE;
	if (!actor->pid || actor->dead || !actor->busy || (op->kind == CONTINUE) != (actor->stopped == 1)) {
		r->outcome = BUSY;
		return;
	}
	switch (op->kind) {
	case SIGNAL:
		side->handler_result = 2000;
		kill(actor->pid, SIGRTMIN + op->flags % NOTICES);
		if (op->flags % NOTICES == IGNORED)
			break;
		/* A handler ran when it has left its mark. */
		for (int i = 0; side->handler_result == 2000 && i < 200000; i++)
			yield();
		r->result = side->handler_result;
		r->error = side->handler_error;
		break;
	case STOP:
		kill(actor->pid, SIGSTOP);
		actor->stopped = 1;
		for (int i = 0; state_of(actor) != 'T' && i < 200000; i++)
			yield();
		break;
	case CONTINUE:
		if (actor->receiving && (side->avoid & AVOID_STOPPED_ORDER) && is_overtaken(actor)) {
			r->outcome = AVOIDED;
			atomic_fetch_add(&side->avoided, 1);
			return;
		}
		actor->stopped = 0;
		kill(actor->pid, SIGCONT);
		actor->arrived = (uint32_t)(op - side->ops);
		break;
	default:
		kill(actor->pid, SIGKILL);
		while (!has_died(actor, (uint32_t)(op - side->ops)))
			yield();
		break;
	}
}

static void conduct(void)
{
	uint32_t count = side->count;

	side->begun = time(NULL);
	for (int s = 0; s < SLOTS; s++)
		side->ids[s] = side->former[s] = -1 - s % 2 * INT_MAX;
	make_memory();
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	if (capget(&header, capabilities) != 0)
		_exit(3);
	side->actors[0].pid = getpid();
	if (side->perturb)
		perturb();

	for (uint32_t i = 0; i < count;) {
		const struct op *op = &side->ops[i];
		struct actor *actor = &side->actors[op->actor % ACTORS];
		uint32_t to = i + 1;
		if (op->kind < SIGNAL && op->actor != 0 && !actor->busy && (!actor->pid || actor->dead))
			start_actor(op->actor);
		draw_priorities(i);
		if (op->kind < SIGNAL)
			lag(i);
		if (op->kind >= SIGNAL) {
			disturb(op, &side->records[i]);
		} else if (op->actor == 0) {
			do_op(i);
		} else if (actor->busy) {
			side->records[i].outcome = BUSY;
		} else {
			if (!side->blocking)
				while (to < count && side->ops[to].actor == op->actor && side->ops[to].kind < SIGNAL)
					to++;
			give(actor, i, to);
			if (!side->blocking)
				await(actor, i);
		}
		/* The next does not wait, unless it is about somebody who must be known to be blocked. */
		if (side->blocking && !(op->hasty && to < count && side->ops[to].kind < SIGNAL))
			settle(i);
		i = to;
	}
	for (int a = 1; a < ACTORS; a++)
		if (side->actors[a].busy)
			side->records[side->actors[a].from].outcome = STILL_BLOCKED;
}

/* ---- the server ---- */

static int write_limit(const char *name, int value)
{
	char path[64], text[16];
	snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
	int n = snprintf(text, sizeof text, "%d\n", value), fd = open(path, O_WRONLY | O_CLOEXEC), ok;
	if (fd < 0)
		return -1;
	ok = write(fd, text, (size_t)n) == n;
	close(fd);
	return ok ? 0 : -1;
}

static void empty_directory(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	if (!d)
		return;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
}

static void run_list(int own_namespace)
{
	const char *directory = getenv("USYSV_DIR");
	sigset_t child, before;
	struct timespec patience = { SECONDS, 0 };
	int status = 0;
	pid_t pid;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, &before);
	memset(side->records, 0, side->count * sizeof side->records[0]);
	if (side->verbose)
		memset(side->detail, 0, side->count * sizeof side->detail[0]);
	memset(side->actors, 0, sizeof side->actors);
	memset(side->window, 0, sizeof side->window);
	side->hung = 0;
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		sigprocmask(SIG_SETMASK, &before, NULL);
		/* On our queues as well: should a call of theirs reach the kernel, it must do no harm there. */
		if (unshare(CLONE_NEWIPC) != 0)
			_exit(5);
		if (own_namespace && side->limits != DEFAULT &&
		    (write_limit("msgmax", limits_of[side->limits].msgmax) || write_limit("msgmnb", limits_of[side->limits].msgmnb) ||
			    write_limit("msgmni", limits_of[side->limits].msgmni)))
			_exit(6);
		conduct();
		_exit(0);
	}
	setpgid(pid, pid);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		uint64_t before = side->calls;
		/* No call in all that time: a machine that is merely loaded gets on. */
		if (sigtimedwait(&child, NULL, &patience) < 0 && errno == EAGAIN && side->calls == before) {
			side->hung = 1;
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
	}
	side->end = status;
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (!own_namespace && directory)
		empty_directory(directory);
}

/* A byte comes for each list, and goes back when it is done. */
int serve(struct side *shared, int from, int to, int own_namespace)
{
	char byte;
	side = shared;
	/* Actors whose conductor died are to be ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	while (read(from, &byte, 1) == 1) {
		run_list(own_namespace);
		if (write(to, &byte, 1) != 1)
			break;
	}
	return 0;
}
