/*
 * msgctl: what the commands report and change.
 *
 *  1. IPC_STAT fills all 120 bytes of the structure (where it has that many); a new queue has no pids, no send and receive time, ctime now
 *  2. a send moves stime, lspid, qnum, cbytes; a receive rtime, lrpid, qnum, cbytes; neither moves anything else
 *  3. lspid and lrpid are process ids, whichever thread called; lrpid after a hand-off is the thread's
 *  4. times are whole seconds of the wall clock
 *  5. IPC_SET sets uid, gid, mode & 0777, qbytes and ctime, nothing else
 *  6. qbytes is cut to an int
 *  7. IPC_INFO and MSG_INFO tell limits and use, and return the highest index
 *  8. MSG_STAT and MSG_STAT_ANY take an index, return the id, and tell what IPC_STAT tells; they mask their argument
 *  9. walking the indices finds every queue once
 * 10. failed calls change no field
 */
#include "check.h"

static void expect_recent(time_t t, time_t since)
{
	time_t now = time(NULL);
	/* The kernel's clock may lag by a tick. */
	if (t < since - 1 || t > now)
		fail("expected a time within %lld..%lld, came %lld", (long long)since, (long long)now, (long long)t);
}

static void new_queue_status(void)
{
	time_t since = time(NULL);
	key_t key = new_key();
	int id = new_keyed_queue(key, 0640);
	unsigned char raw[sizeof(struct msqid_ds) + 32];
	struct msqid_ds s, other;
	memset(raw, 0xcd, sizeof raw);
	expect_int(0, msgctl(id, IPC_STAT, (struct msqid_ds *)raw));
	for (size_t i = sizeof s; i < sizeof raw; i++)
		expect_true(raw[i] == 0xcd);
	memcpy(&s, raw, sizeof s);
	/* Every byte is written, padding included. */
	memset(&other, 0x32, sizeof other);
	expect_int(0, msgctl(id, IPC_STAT, &other));
	expect_int(0, memcmp(&s, &other, sizeof s));

	struct msqid_ds want;
	memset(&want, 0, sizeof want);
	want.msg_perm.__key = key;
	want.msg_perm.uid = want.msg_perm.cuid = geteuid();
	want.msg_perm.gid = want.msg_perm.cgid = getegid();
	want.msg_perm.mode = 0640;
	want.msg_perm.__seq = (unsigned short)(id >> 15);
	want.msg_ctime = s.msg_ctime;
	want.msg_qbytes = s.msg_qbytes;
	expect_recent(s.msg_ctime, since);
	expect_true(s.msg_qbytes > 0);
	const unsigned char *a = (unsigned char *)&s, *b = (unsigned char *)&want;
	for (size_t i = 0; i < sizeof s; i++)
		if (a[i] != b[i])
			fail("byte %zu of the structure: expected %u, came %u", i, b[i], a[i]);
}

static void size_of_the_structure(void)
{
	if (sizeof(long) != 8)
		skip("not a 64-bit program");
	expect_int(120, sizeof(struct msqid_ds));
	expect_int(32, sizeof(struct msginfo));
	expect_int(48, offsetof(struct msqid_ds, msg_stime));
	expect_int(88, offsetof(struct msqid_ds, msg_qbytes));
}

static void expect_same_but(struct msqid_ds a, struct msqid_ds b, void (*forget)(struct msqid_ds *s))
{
	forget(&a);
	forget(&b);
	expect_same_status(a, b);
}

static void forget_send(struct msqid_ds *s)
{
	s->msg_stime = 0;
	s->msg_lspid = 0;
	s->msg_qnum = 0;
	s->__msg_cbytes = 0;
}

static void forget_receive(struct msqid_ds *s)
{
	s->msg_rtime = 0;
	s->msg_lrpid = 0;
	s->msg_qnum = 0;
	s->__msg_cbytes = 0;
}

static void forget_set(struct msqid_ds *s)
{
	s->msg_ctime = 0;
	s->msg_qbytes = 0;
	s->msg_perm.uid = 0;
	s->msg_perm.gid = 0;
	s->msg_perm.mode = 0;
}

static void send_and_receive_move_their_fields(void)
{
	int id = new_queue(0600);
	struct msqid_ds s0 = status_of(id), s1, s2;
	time_t since = time(NULL);
	pid_t pid = fork_child();
	if (pid == 0) {
		must(put(id, 3, 100, 0, 0));
		_exit(0);
	}
	join(pid);
	s1 = status_of(id);
	expect_int(pid, s1.msg_lspid);
	expect_int(1, s1.msg_qnum);
	expect_int(100, s1.__msg_cbytes);
	expect_recent(s1.msg_stime, since);
	expect_same_but(s0, s1, forget_send);
	pid = fork_child();
	if (pid == 0) {
		struct msg m;
		must(msgrcv(id, &m, 100, 0, 0));
		_exit(0);
	}
	join(pid);
	s2 = status_of(id);
	expect_int(pid, s2.msg_lrpid);
	expect_int(0, s2.msg_qnum);
	expect_int(0, s2.__msg_cbytes);
	expect_recent(s2.msg_rtime, since);
	expect_same_but(s1, s2, forget_receive);
}

struct thread_call { int id; int block; _Atomic pid_t thread; };

static void *call_from_thread(void *arg)
{
	struct thread_call *c = arg;
	c->thread = thread_id();
	if (!c->block)
		must(put_byte(c->id, 1, 'a', 0));
	expect_int('a', get_byte(c->id, 0, 0));
	return NULL;
}

static void immediate_calls_tell_process_ids(void)
{
	struct thread_call c = { .id = new_queue(0600) };
	pthread_t thread;
	pthread_create(&thread, NULL, call_from_thread, &c);
	pthread_join(thread, NULL);
	expect_int(getpid(), status_of(c.id).msg_lspid);
	expect_int(getpid(), status_of(c.id).msg_lrpid);
}

static void handed_over_tells_the_thread(void)
{
	struct thread_call c = { .id = new_queue(0600), .block = 1 };
	pthread_t thread;
	time_t since = time(NULL);
	struct msqid_ds before = status_of(c.id), after;
	pthread_create(&thread, NULL, call_from_thread, &c);
	while (!c.thread)
		nap(100);
	wait_blocked(c.thread);
	must(put_byte(c.id, 1, 'a', 0));
	after = status_of(c.id);
	pthread_join(thread, NULL);
	expect_int(0, after.msg_qnum);
	expect_int(0, after.__msg_cbytes);
	expect_int(getpid(), after.msg_lspid);
	expect_true(c.thread != getpid());
	expect_int(c.thread, after.msg_lrpid);
	expect_recent(after.msg_stime, since);
	expect_recent(after.msg_rtime, since);
	forget_send(&after);
	forget_receive(&after);
	expect_same_status(before, after);
}

static void senders_thread_tells_the_process(void)
{
	/* A sender that had to block is told by its process id too. */
	int id = new_queue(0600);
	struct result *r = shared_memory(sizeof *r);
	set_qbytes(id, 10);
	must(put(id, 1, 10, 0, 0));
	pid_t pid = blocked_sender(r, id, 5, 2);
	struct msg m;
	must(msgrcv(id, &m, 10, 1, 0));
	join(pid);
	expect_int(pid, status_of(id).msg_lspid);
}

static void set_sets_its_fields_only(void)
{
	int id = new_queue(0600);
	must(put_byte(id, 1, 'a', 0));
	must(put_byte(id, 1, 'b', 0));
	expect_int('a', get_byte(id, 0, 0));
	struct msqid_ds before = status_of(id), s, after;
	time_t since = time(NULL);
	memset(&s, 0x11, sizeof s);
	s.msg_perm.uid = before.msg_perm.uid;
	s.msg_perm.gid = 4711;
	s.msg_perm.mode = (unsigned short)(0640 | 07000 | 0x8000);
	s.msg_qbytes = 1234;
	expect_int(0, msgctl(id, IPC_SET, &s));
	after = status_of(id);
	expect_int(4711, after.msg_perm.gid);
	expect_int(before.msg_perm.uid, after.msg_perm.uid);
	expect_int(0640, after.msg_perm.mode);
	expect_int(1234, after.msg_qbytes);
	expect_recent(after.msg_ctime, since);
	expect_same_but(before, after, forget_set);
	s.msg_perm.mode = 0777;
	expect_int(0, msgctl(id, IPC_SET, &s));
	expect_int(0777, status_of(id).msg_perm.mode);
	expect_int('b', get_byte(id, 0, 0));
}

static void set_moves_ctime(void)
{
	int id = new_queue(0600);
	struct msqid_ds s = status_of(id);
	time_t first = s.msg_ctime;
	/* Wait for the next second: times are whole seconds. */
	while (time(NULL) <= first + 1)
		nap(10000);
	must(put_byte(id, 1, 'a', 0));
	expect_int('a', get_byte(id, 0, 0));
	expect_int(first, status_of(id).msg_ctime);
	expect_true(status_of(id).msg_stime > first);
	expect_true(status_of(id).msg_rtime > first);
	expect_int(0, msgctl(id, IPC_SET, &s));
	expect_true(status_of(id).msg_ctime > first);
}

static void qbytes_is_cut_to_an_int(void)
{
	int id = new_queue(0600);
	struct msqid_ds s = status_of(id);
	s.msg_qbytes = 0x100000010;
	expect_int(0, msgctl(id, IPC_SET, &s));
	expect_int(16, status_of(id).msg_qbytes);
	s.msg_qbytes = 0x700000000;
	expect_int(0, msgctl(id, IPC_SET, &s));
	expect_int(0, status_of(id).msg_qbytes);
}

static long limit(const char *name)
{
	char path[64];
	long value = -1;
	snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
	FILE *f = fopen(path, "re");
	if (f && fscanf(f, "%ld", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

static void expect_limits(const struct msginfo *info)
{
	if (limit("msgmax") >= 0) {
		expect_int(limit("msgmax"), info->msgmax);
		expect_int(limit("msgmnb"), info->msgmnb);
		expect_int(limit("msgmni"), info->msgmni);
	}
	expect_int(16, info->msgssz);
	expect_int(65535, info->msgseg);
}

static void ipc_info(void)
{
	struct { struct msginfo info; unsigned char after[16]; } b;
	int id = new_queue(0600), highest;
	memset(&b, 0xcd, sizeof b);
	highest = (int)must(msgctl(0, IPC_INFO, (struct msqid_ds *)&b.info));
	expect_true(highest >= (id & 0x7fff));
	expect_int(512000, b.info.msgpool);
	expect_int(16384, b.info.msgmap);
	expect_int(16384, b.info.msgtql);
	expect_limits(&b.info);
	for (int i = 0; i < 16; i++)
		expect_true(b.after[i] == 0xcd);
	/* Any id that is not negative does. */
	expect_true(msgctl(INT_MAX, IPC_INFO, (struct msqid_ds *)&b.info) >= 0);
	if (geteuid() == 0)
		become(NOBODY, NOBODY);
	expect_true(msgctl(12345, IPC_INFO, (struct msqid_ds *)&b.info) >= 0);
}

static void msg_info(void)
{
	struct { struct msginfo info; unsigned char after[16]; } b;
	struct msginfo first;
	int a = new_queue(0600), c = new_queue(0600);
	must(msgctl(0, MSG_INFO, (struct msqid_ds *)&first));
	memset(&b, 0xcd, sizeof b);
	must(put(a, 1, 10, 0, 0));
	must(put(a, 1, 20, 0, 0));
	must(put(c, 1, 30, 0, 0));
	int highest = (int)must(msgctl(0, MSG_INFO, (struct msqid_ds *)&b.info));
	expect_true(highest >= (a & 0x7fff) && highest >= (c & 0x7fff));
	expect_limits(&b.info);
	for (int i = 0; i < 16; i++)
		expect_true(b.after[i] == 0xcd);
	/* Others may use queues at the same time, where the namespace is not our own. */
	if (!getenv("CHECK_OWN_NAMESPACE"))
		return;
	expect_int(2, b.info.msgpool);
	expect_int(3, b.info.msgmap);
	expect_int(60, b.info.msgtql);
	expect_int((a & 0x7fff) > (c & 0x7fff) ? a & 0x7fff : c & 0x7fff, highest);
	must(msgctl(a, IPC_RMID, NULL));
	must(msgctl(0, MSG_INFO, (struct msqid_ds *)&b.info));
	expect_int(1, b.info.msgpool);
	expect_int(1, b.info.msgmap);
	expect_int(30, b.info.msgtql);
	must(msgctl(c, IPC_RMID, NULL));
	expect_int(0, msgctl(0, MSG_INFO, (struct msqid_ds *)&b.info));
	expect_int(0, msgctl(0, IPC_INFO, (struct msqid_ds *)&b.info));
	if (geteuid() == 0)
		become(NOBODY, NOBODY);
	expect_int(0, msgctl(0, MSG_INFO, (struct msqid_ds *)&b.info));
}

static void stat_by_index(void)
{
	int id = new_keyed_queue(new_key(), 0600);
	struct msqid_ds s, t;
	must(put(id, 1, 10, 0, 0));
	s = status_of(id);
	memset(&t, 0xcd, sizeof t);
	expect_int(id, msgctl(id & 0x7fff, MSG_STAT, &t));
	expect_same_status(s, t);
	memset(&t, 0xcd, sizeof t);
	expect_int(id, msgctl(id & 0x7fff, MSG_STAT_ANY, &t));
	expect_same_status(s, t);
	/* Only the index of the argument counts. */
	expect_int(id, msgctl(id, MSG_STAT, &t));
	expect_int(id, msgctl((id & 0x7fff) | 0x12340000, MSG_STAT, &t));
	expect_int(id, msgctl((id & 0x7fff) | 0x12340000, MSG_STAT_ANY, &t));
	expect_int(0, msgctl(id, IPC_RMID, NULL));
	memset(&t, 0xcd, sizeof t);
	expect_errno(EINVAL, msgctl(id & 0x7fff, MSG_STAT, &t));
	expect_errno(EINVAL, msgctl(id & 0x7fff, MSG_STAT_ANY, &t));
	expect_int((short)0xcdcd, (short)t.msg_perm.mode);
}

static void stat_any_needs_no_permission(void)
{
	int id = new_queue(0);
	struct msqid_ds s;
	become(NOBODY, NOBODY);
	expect_errno(EACCES, msgctl(id & 0x7fff, MSG_STAT, &s));
	expect_int(id, msgctl(id & 0x7fff, MSG_STAT_ANY, &s));
	expect_int(0, s.msg_perm.mode);
	expect_int(0, s.msg_perm.uid);
}

static void walking_the_indices(void)
{
	int ids[30], found = 0;
	struct msginfo info;
	struct msqid_ds s;
	for (int i = 0; i < 30; i++)
		ids[i] = new_queue(0600);
	for (int i = 0; i < 30; i += 3)
		must(msgctl(ids[i], IPC_RMID, NULL));
	int highest = (int)must(msgctl(0, MSG_INFO, (struct msqid_ds *)&info));
	for (int index = 0; index <= highest; index++) {
		int id = msgctl(index, MSG_STAT, &s);
		if (id < 0) {
			expect_true(errno == EINVAL || errno == EACCES);
			continue;
		}
		expect_int(index, id & 0x7fff);
		for (int i = 0; i < 30; i++)
			found += id == ids[i];
	}
	expect_int(20, found);
}

static void failed_calls_change_nothing(void)
{
	int id = new_queue(0600);
	struct msg m;
	set_qbytes(id, 100);
	must(put(id, 2, 100, 0, 0));
	struct msqid_ds before = status_of(id), after;
	while (time(NULL) <= before.msg_ctime)
		nap(10000);
	expect_errno(EAGAIN, put(id, 1, 1, 0, IPC_NOWAIT));
	expect_errno(EINVAL, put(id, 0, 1, 0, IPC_NOWAIT));
	expect_errno(EFAULT, msgsnd(id, (void *)-1, 1, IPC_NOWAIT));
	expect_errno(ENOMSG, msgrcv(id, &m, 100, 1, IPC_NOWAIT));
	expect_errno(E2BIG, msgrcv(id, &m, 99, 0, IPC_NOWAIT));
	expect_errno(EFAULT, msgctl(id, IPC_SET, (void *)-1));
	expect_errno(EFAULT, msgctl(id, IPC_STAT, (void *)-1));
	expect_errno(EINVAL, msgctl(id, 99, &after));
	after = status_of(id);
	expect_same_status(before, after);
}

static const struct row rows[] = {
	ROW(new_queue_status),
	ROW(size_of_the_structure),
	ROW(send_and_receive_move_their_fields),
	ROW(immediate_calls_tell_process_ids),
	ROW(handed_over_tells_the_thread),
	ROW(senders_thread_tells_the_process),
	ROW(set_sets_its_fields_only),
	ROW(set_moves_ctime),
	ROW(qbytes_is_cut_to_an_int),
	ROW(ipc_info),
	ROW(msg_info),
	ROW(stat_by_index),
	ROW_ROOT(stat_any_needs_no_permission),
	ROW(walking_the_indices),
	ROW(failed_calls_change_nothing),
};

CHECK_MAIN("msgctl", rows)
