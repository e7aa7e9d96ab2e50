/*
 * Permissions: who may do what, by the caller's credentials of the moment.
 *
 *  1. a table of mode, owner, creator and caller: msgsnd needs write; msgrcv, MSG_COPY, IPC_STAT and MSG_STAT need read; MSG_STAT_ANY
 *     needs nothing. The owner's class counts alone (mode 0066 denies the owner), then the group's, then the others'
 *  2. CAP_IPC_OWNER opens what the mode denies, and root without it is held to the mode
 *  3. IPC_SET and IPC_RMID are for owner and creator, whatever the mode: EPERM for all others
 *  4. owner and creator may, even with mode 0
 *  5. ownership given away by IPC_SET: the new owner may, and the creator still may
 *  6. seteuid, setegid and setgroups after the queue was used count from the next call on
 *  7. a system call that changes one thread's user changes that thread only; the C library's function changes all
 *  8. setfsgid decides the group
 *  9. qbytes beyond msgmnb needs CAP_SYS_RESOURCE: EPERM; up to msgmnb and down needs nothing
 * 10. keeping a value that lies beyond msgmnb is EPERM too
 * 11. that EPERM comes before EINVAL for a bad uid; uid or gid -1 is EINVAL and changes nothing
 * 12. a failed call changes no field
 */
#include "check.h"
#include <linux/capability.h>
#include <sys/fsuid.h>

/* Users and groups of the table. 0 in `group` (a supplementary one) means none. */
enum { A = 65001, B = 65002, C = 65003 };

struct access {
	int mode;
	uid_t uid;
	gid_t gid;
	uid_t caller;
	gid_t caller_gid, group;
	int read, write;
	int by; /* creator (user and group), root when 0 */
};

static void check_access(int id, int may_read, int may_write)
{
	struct msg m;
	struct msqid_ds s;
	if (may_write)
		expect_int(0, put_byte(id, 2, 'w', IPC_NOWAIT));
	else
		expect_errno(EACCES, put_byte(id, 2, 'w', IPC_NOWAIT));
	if (may_read) {
		/* What the reader finds was put there by somebody who could. */
		expect_int(1, msgrcv(id, &m, sizeof m.text, 1, IPC_NOWAIT));
		expect_errno(ENOMSG, msgrcv(id, &m, sizeof m.text, 1, IPC_NOWAIT));
		expect_int(0, msgctl(id, IPC_STAT, &s));
		expect_int(id, msgctl(id & 0x7fff, MSG_STAT, &s));
	} else {
		expect_errno(EACCES, msgrcv(id, &m, sizeof m.text, 1, IPC_NOWAIT));
		if (msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT | MSG_COPY) != -1 || errno != ENOSYS) /* not every kernel has it */
			expect_errno(EACCES, msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT | MSG_COPY));
		expect_errno(EACCES, msgctl(id, IPC_STAT, &s));
		expect_errno(EACCES, msgctl(id & 0x7fff, MSG_STAT, &s));
	}
	expect_int(id, msgctl(id & 0x7fff, MSG_STAT_ANY, &s));
}

/* A queue with these owners that holds one message of type 1. */
static int owned_queue(const struct access *a)
{
	struct msqid_ds s;
	int *id = shared_memory(sizeof *id);
	pid_t pid = fork_child();
	if (pid == 0) {
		if (a->by)
			become((uid_t)a->by, (gid_t)a->by);
		*id = new_queue(0600);
		must(put_byte(*id, 1, 'r', 0));
		s = status_of(*id);
		s.msg_perm.uid = a->uid;
		s.msg_perm.gid = a->gid;
		s.msg_perm.mode = (unsigned short)a->mode;
		must(msgctl(*id, IPC_SET, &s));
		_exit(0);
	}
	join(pid);
	return *id;
}

static void access_case(void)
{
	const struct access *a = row_arg();
	int id = owned_queue(a);
	if (setgroups(a->group ? 1 : 0, &a->group) != 0 || setresgid(a->caller_gid, a->caller_gid, a->caller_gid) != 0 ||
	    setresuid(a->caller, a->caller, a->caller) != 0)
		fail("becoming the caller: %s", strerror(errno));
	check_access(id, a->read, a->write);
}

static const struct access owner_all = { 0600, A, A, A, A, 0, 1, 1, 0 };
static const struct access owner_read = { 0400, A, A, A, A, 0, 1, 0, 0 };
static const struct access owner_write = { 0200, A, A, A, A, 0, 0, 1, 0 };
static const struct access owner_denied = { 0066, A, A, A, A, 0, 0, 0, 0 };
static const struct access creator_all = { 0600, A, A, B, B, 0, 1, 1, B };
static const struct access creator_denied = { 0066, A, A, B, A, 0, 0, 0, B };
static const struct access group_all = { 0060, A, C, B, C, 0, 1, 1, 0 };
static const struct access group_read = { 0040, A, C, B, C, 0, 1, 0, 0 };
static const struct access group_write = { 0020, A, C, B, C, 0, 0, 1, 0 };
static const struct access group_denied = { 0606, A, C, B, C, 0, 0, 0, 0 };
static const struct access supplementary_all = { 0060, A, C, B, B, C, 1, 1, 0 };
static const struct access supplementary_denied = { 0606, A, C, B, B, C, 0, 0, 0 };
static const struct access creators_group_all = { 0060, A, A, B, C, 0, 1, 1, C };
static const struct access creators_group_denied = { 0606, A, A, B, C, 0, 0, 0, C };
static const struct access owner_not_by_group = { 0060, A, C, A, C, 0, 0, 0, 0 };
static const struct access others_all = { 0006, A, A, B, B, 0, 1, 1, 0 };
static const struct access others_read = { 0004, A, A, B, B, 0, 1, 0, 0 };
static const struct access others_write = { 0002, A, A, B, B, 0, 0, 1, 0 };
static const struct access others_denied = { 0660, A, A, B, B, C, 0, 0, 0 };
static const struct access others_no_execute = { 0111, A, A, B, B, 0, 0, 0, 0 };

/* The C library's own, which no header of its declares. */
extern int capset(struct __user_cap_header_struct *, const struct __user_cap_data_struct *);
extern int capget(struct __user_cap_header_struct *, struct __user_cap_data_struct *);

static void drop_capability_by(int number, int by_syscall)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	if (capget(&header, data) != 0)
		fail("capget: %s", strerror(errno));
	data[number / 32].effective &= ~(1u << number % 32);
	if ((by_syscall ? (int)syscall(SYS_capset, &header, data) : capset(&header, data)) != 0)
		fail("capset: %s", strerror(errno));
}

static void drop_capability(int number)
{
	drop_capability_by(number, 0);
}

static void ipc_owner(int by_syscall)
{
	static const struct access closed = { 0, A, A, 0, 0, 0, 1, 1, B };
	if (!has_capability(CAP_IPC_OWNER))
		skip("no CAP_IPC_OWNER");
	int id = owned_queue(&closed);
	check_access(id, 1, 1);
	drop_capability_by(CAP_IPC_OWNER, by_syscall);
	check_access(id, 0, 0);
}

static void ipc_owner_opens_everything(void)
{
	ipc_owner(0);
}

static void ipc_owner_dropped_by_syscall(void)
{
	ipc_owner(1);
}

static void expect_eperm(int id)
{
	struct msqid_ds s;
	memset(&s, 0, sizeof s);
	expect_int(id, msgctl(id & 0x7fff, MSG_STAT_ANY, &s));
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	expect_errno(EPERM, msgctl(id, IPC_RMID, NULL));
}

static void control_is_for_owner_and_creator(void)
{
	static const struct access open = { 0777, A, C, 0, 0, 0, 1, 1, B };
	int id = owned_queue(&open);
	pid_t pid;
	/* An other, a member of the owner's group, a member of the creator's group. */
	const gid_t gids[] = { NOBODY, C, B };
	for (int i = 0; i < 3; i++) {
		pid = fork_child();
		if (pid == 0) {
			become(NOBODY, gids[i]);
			check_access(id, 1, 1);
			expect_eperm(id);
			_exit(0);
		}
		join(pid);
		must(put_byte(id, 1, 'r', 0));
	}
	expect_int(4, status_of(id).msg_qnum);
}

static void owner_and_creator_control_with_mode_0(void)
{
	const uid_t users[] = { A, B };
	for (int i = 0; i < 2; i++) {
		static const struct access closed = { 0, A, A, 0, 0, 0, 1, 1, B };
		int id = owned_queue(&closed);
		pid_t pid = fork_child();
		if (pid == 0) {
			struct msqid_ds s;
			become(users[i], NOBODY);
			expect_errno(EACCES, msgctl(id, IPC_STAT, &s));
			must(msgctl(id & 0x7fff, MSG_STAT_ANY, &s));
			s.msg_perm.mode = 0444;
			expect_int(0, msgctl(id, IPC_SET, &s));
			expect_int(0444, status_of(id).msg_perm.mode);
			expect_int(0, msgctl(id, IPC_RMID, NULL));
			_exit(0);
		}
		join(pid);
	}
}

static void ownership_given_away(void)
{
	struct msqid_ds s;
	int id;
	become(A, A);
	id = new_queue(0600);
	s = status_of(id);
	s.msg_perm.uid = B;
	s.msg_perm.gid = C;
	expect_int(0, msgctl(id, IPC_SET, &s));
	s = status_of(id);
	expect_int(B, s.msg_perm.uid);
	expect_int(C, s.msg_perm.gid);
	expect_int(A, s.msg_perm.cuid);
	expect_int(A, s.msg_perm.cgid);
	expect_int(0, msgctl(id, IPC_SET, &s));
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

static void new_owner_may_remove(void)
{
	static const struct access given = { 0600, A, A, 0, 0, 0, 1, 1, B };
	int id = owned_queue(&given);
	become(A, A);
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

static void seteuid_counts_from_the_next_call(void)
{
	int id = new_queue(0600);
	for (int i = 0; i < 3; i++) {
		must(put_byte(id, 1, 'r', 0));
		check_access(id, 1, 1);
		must(seteuid(NOBODY));
		check_access(id, 0, 0);
		expect_eperm(id);
		must(seteuid(0));
	}
}

static void setegid_and_setgroups_count(void)
{
	static const struct access grouped = { 0060, A, C, 0, 0, 0, 1, 1, A };
	int id = owned_queue(&grouped);
	gid_t c = C;
	must(setgroups(0, NULL));
	must(seteuid(B));
	expect_errno(EACCES, put_byte(id, 1, 'a', 0));
	must(seteuid(0));
	must(setegid(C));
	must(seteuid(B));
	expect_int(0, put_byte(id, 1, 'a', 0));
	must(seteuid(0));
	must(setegid(0));
	must(seteuid(B));
	expect_errno(EACCES, put_byte(id, 1, 'a', 0));
	must(seteuid(0));
	must(setgroups(1, &c));
	must(seteuid(B));
	expect_int(0, put_byte(id, 1, 'a', 0));
	must(seteuid(0));
	must(setgroups(0, NULL));
	must(seteuid(B));
	expect_errno(EACCES, put_byte(id, 1, 'a', 0));
}

struct other_thread { int id; _Atomic int turn; int value, error; };

static void *send_at_every_turn(void *arg)
{
	struct other_thread *t = arg;
	for (int turn = 1; turn <= 5; turn += 2) {
		while (t->turn != turn)
			nap(100);
		t->value = put_byte(t->id, 1, 't', IPC_NOWAIT);
		t->error = errno;
		t->turn = turn + 1;
	}
	return NULL;
}

static void let_thread_send(struct other_thread *t, int turn)
{
	t->turn = turn;
	while (t->turn != turn + 1)
		nap(100);
}

static void user_of_one_thread(void)
{
	struct other_thread t = { .id = new_queue(0600) };
	pthread_t thread;
	pthread_create(&thread, NULL, send_at_every_turn, &t);
	let_thread_send(&t, 1);
	expect_int(0, t.value);
	must(syscall(SYS_setresuid, -1, NOBODY, -1));
	expect_errno(EACCES, put_byte(t.id, 1, 'm', IPC_NOWAIT));
	let_thread_send(&t, 3);
	expect_int(0, t.value);
	must(syscall(SYS_setresuid, -1, 0, -1));
	expect_int(0, put_byte(t.id, 1, 'm', IPC_NOWAIT));
	let_thread_send(&t, 5);
	pthread_join(thread, NULL);
}

static void user_of_all_threads(void)
{
	struct other_thread t = { .id = new_queue(0600) };
	pthread_t thread;
	pthread_create(&thread, NULL, send_at_every_turn, &t);
	let_thread_send(&t, 1);
	expect_int(0, t.value);
	must(seteuid(NOBODY));
	expect_errno(EACCES, put_byte(t.id, 1, 'm', IPC_NOWAIT));
	let_thread_send(&t, 3);
	expect_int(-1, t.value);
	expect_int(EACCES, t.error);
	must(seteuid(0));
	let_thread_send(&t, 5);
	expect_int(0, t.value);
	pthread_join(thread, NULL);
}

static void fsgid_decides_the_group(void)
{
	static const struct access grouped = { 0060, A, C, 0, 0, 0, 1, 1, A };
	int id = owned_queue(&grouped);
	drop_capability(CAP_IPC_OWNER);
	must(setgroups(0, NULL));
	expect_errno(EACCES, put_byte(id, 1, 'a', 0));
	setfsgid(C);
	expect_int(0, put_byte(id, 1, 'a', 0));
	setfsgid(0);
	expect_errno(EACCES, put_byte(id, 1, 'a', 0));
}

static unsigned long msgmnb(void)
{
	struct msginfo info;
	must(msgctl(0, IPC_INFO, (struct msqid_ds *)&info));
	return (unsigned long)info.msgmnb;
}

static void qbytes_beyond_msgmnb(void)
{
	unsigned long limit = msgmnb();
	int id = new_queue(0600);
	struct msqid_ds s = status_of(id);
	expect_int(limit, s.msg_qbytes);
	set_qbytes(id, 100);
	set_qbytes(id, limit);
	s.msg_qbytes = limit + 1;
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	s.msg_perm.uid = (uid_t)-1;
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	s.msg_qbytes = limit;
	expect_errno(EINVAL, msgctl(id, IPC_SET, &s));
	expect_int(limit, status_of(id).msg_qbytes);
}

static void qbytes_beyond_msgmnb_with_capability(void)
{
	if (!has_capability(CAP_SYS_RESOURCE))
		skip("no CAP_SYS_RESOURCE");
	unsigned long limit = msgmnb();
	int id = new_queue(0600);
	set_qbytes(id, limit + 1);
	expect_int(limit + 1, status_of(id).msg_qbytes);
	/* Without it, even keeping the value is refused. */
	drop_capability(CAP_SYS_RESOURCE);
	struct msqid_ds s = status_of(id);
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	s.msg_qbytes = limit;
	expect_int(0, msgctl(id, IPC_SET, &s));
}

static void keeping_qbytes_beyond_a_lowered_msgmnb(void)
{
	/* In an IPC namespace of our own: the limit is everybody's. */
	if (unshare(CLONE_NEWIPC) != 0)
		skip("no IPC namespace of our own: %s", strerror(errno));
	/* Not remembered for the harness: over there the id may be somebody else's. */
	int id = (int)must(msgget(IPC_PRIVATE, 0600)), later;
	struct msqid_ds s = status_of(id);
	int fd = open("/proc/sys/kernel/msgmnb", O_WRONLY);
	if (fd < 0 || write(fd, "5000\n", 5) != 5)
		skip("msgmnb cannot be set: %s", strerror(errno));
	close(fd);
	expect_int(5000, msgmnb());
	expect_int(16384, s.msg_qbytes);
	if (has_capability(CAP_SYS_RESOURCE))
		drop_capability(CAP_SYS_RESOURCE);
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	s.msg_perm.gid = (gid_t)-1;
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	s.msg_qbytes = 5000;
	expect_errno(EINVAL, msgctl(id, IPC_SET, &s));
	expect_int(16384, status_of(id).msg_qbytes);
	later = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_int(5000, status_of(later).msg_qbytes);
	expect_int(0, msgctl(later, IPC_RMID, NULL));
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

static void bad_owners_are_einval(void)
{
	int id = new_queue(0600);
	struct msqid_ds before = status_of(id), s = before, after;
	s.msg_perm.mode = 0777;
	s.msg_qbytes = 7;
	s.msg_perm.uid = (uid_t)-1;
	expect_errno(EINVAL, msgctl(id, IPC_SET, &s));
	s.msg_perm.uid = before.msg_perm.uid;
	s.msg_perm.gid = (gid_t)-1;
	expect_errno(EINVAL, msgctl(id, IPC_SET, &s));
	after = status_of(id);
	expect_same_status(before, after);
}

static void denied_calls_change_nothing(void)
{
	int id = new_queue(0600);
	struct msqid_ds before, after;
	must(put_byte(id, 1, 'r', 0));
	before = status_of(id);
	must(seteuid(NOBODY));
	check_access(id, 0, 0);
	expect_eperm(id);
	must(seteuid(0));
	after = status_of(id);
	expect_same_status(before, after);
}

#define ACCESS(data) { .name = "access_" #data, .run = access_case, .user = AS_ROOT, .arg = &data }
static const struct row rows[] = {
	ACCESS(owner_all),
	ACCESS(owner_read),
	ACCESS(owner_write),
	ACCESS(owner_denied),
	ACCESS(creator_all),
	ACCESS(creator_denied),
	ACCESS(group_all),
	ACCESS(group_read),
	ACCESS(group_write),
	ACCESS(group_denied),
	ACCESS(supplementary_all),
	ACCESS(supplementary_denied),
	ACCESS(creators_group_all),
	ACCESS(creators_group_denied),
	ACCESS(owner_not_by_group),
	ACCESS(others_all),
	ACCESS(others_read),
	ACCESS(others_write),
	ACCESS(others_denied),
	ACCESS(others_no_execute),
	ROW_ROOT(ipc_owner_opens_everything),
	ROW_ROOT(ipc_owner_dropped_by_syscall),
	ROW_ROOT(control_is_for_owner_and_creator),
	ROW_ROOT(owner_and_creator_control_with_mode_0),
	ROW_ROOT(ownership_given_away),
	ROW_ROOT(new_owner_may_remove),
	ROW_ROOT(seteuid_counts_from_the_next_call),
	ROW_ROOT(setegid_and_setgroups_count),
	ROW_ROOT(user_of_one_thread),
	ROW_ROOT(user_of_all_threads),
	ROW_ROOT(fsgid_decides_the_group),
	ROW_NOBODY(qbytes_beyond_msgmnb),
	ROW_ROOT(qbytes_beyond_msgmnb_with_capability),
	ROW_ROOT(keeping_qbytes_beyond_a_lowered_msgmnb),
	ROW(bad_owners_are_einval),
	ROW_ROOT(denied_calls_change_nothing),
};

CHECK_MAIN("permissions", rows)
