/*
 * operations.c: carries out one operation and writes down what came of it, the same for the same list on both sides.
 */
#include "execute.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int capset(struct __user_cap_header_struct *, const struct __user_cap_data_struct *);
extern int capget(struct __user_cap_header_struct *, struct __user_cap_data_struct *);

static int is_child; /* forked for one operation */

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

int id_of(const struct op *op)
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

void do_op(uint32_t number)
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

/* Once per list, by the conductor. */
void prepare_operations(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	make_memory();
	if (capget(&header, capabilities) != 0)
		_exit(3);
}
