/*
 * Capacity: when a message fits.
 *
 *  1. a message fits while cbytes + size <= qbytes, to the byte
 *  2. and while qnum + 1 <= qbytes: a 16384-byte queue takes 16384 empty messages, and 16384 of one byte
 *  3. qbytes 3 takes three empty messages, qbytes 0 takes none
 *  4. qbytes may sink below cbytes: nothing is lost, nothing gets in until enough has left
 *  5. qbytes raised to megabytes is filled to the byte and to the message
 *  6. a message larger than qbytes is EAGAIN, not EINVAL
 *  7. capacity is the same after many rounds of filling and emptying, with any mixture of sizes and receives
 *  8. a failed send takes no capacity
 *  9. several queues filled at once do not share their capacity
 * 10. msgmax acts at once, msgmnb on new queues only; msgmni is ENOSPC only where a queue would be created
 */
#include "check.h"
#include <linux/capability.h>

static int fill(int id, size_t length, int limit)
{
	int n = 0, before = errno;
	while (n < limit && put(id, 1 + n % 3, length, (unsigned)n, IPC_NOWAIT) == 0)
		n++;
	if (n < limit && errno != EAGAIN)
		fail("msgsnd of message %d: expected success or EAGAIN, came %s", n, errno_name(errno));
	errno = before;
	return n;
}

static void drain(int id, size_t length, int count)
{
	struct msg m;
	for (int i = 0; i < count; i++) {
		expect_int(length, msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT));
		expect_int(1 + i % 3, m.type);
		expect_true(text_is(m.text, length, (unsigned)i));
	}
	expect_errno(ENOMSG, msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT));
}

static void fits_to_the_byte(void)
{
	int id = new_queue(0600);
	set_qbytes(id, 1000);
	expect_int(0, put(id, 1, 600, 0, IPC_NOWAIT));
	expect_errno(EAGAIN, put(id, 1, 401, 0, IPC_NOWAIT));
	expect_int(0, put(id, 1, 400, 0, IPC_NOWAIT));
	expect_errno(EAGAIN, put(id, 1, 1, 0, IPC_NOWAIT));
	/* An empty one still fits: it is the number that counts for it. */
	expect_int(0, put(id, 1, 0, 0, IPC_NOWAIT));
	expect_int(1000, status_of(id).msg_cbytes);
	expect_int(3, status_of(id).msg_qnum);
}

static void default_queue_takes_16384_messages(void)
{
	static const size_t lengths[] = { 0, 1, 0, 1 };
	int id = new_queue(0600);
	set_qbytes(id, 16384);
	for (int i = 0; i < 4; i++) {
		expect_int(16384, fill(id, lengths[i], 20000));
		expect_int(16384, status_of(id).msg_qnum);
		expect_int(16384 * lengths[i], status_of(id).msg_cbytes);
		expect_errno(EAGAIN, put(id, 1, 0, 0, IPC_NOWAIT));
		drain(id, lengths[i], 16384);
	}
}

static void tiny_qbytes(void)
{
	int id = new_queue(0600);
	for (int qbytes = 0; qbytes < 5; qbytes++) {
		set_qbytes(id, (unsigned long)qbytes);
		expect_int(qbytes, fill(id, 0, 10));
		drain(id, 0, qbytes);
		expect_int(qbytes, fill(id, 1, 10));
		drain(id, 1, qbytes);
		expect_errno(EAGAIN, put(id, 1, (size_t)qbytes + 1, 0, IPC_NOWAIT));
	}
}

static void shrunk_below_its_content(void)
{
	struct msg m;
	int id = new_queue(0600);
	for (unsigned i = 0; i < 10; i++)
		expect_int(0, put(id, 1, 100, i, IPC_NOWAIT));
	set_qbytes(id, 250);
	expect_int(1000, status_of(id).msg_cbytes);
	expect_int(10, status_of(id).msg_qnum);
	for (unsigned i = 0; i < 8; i++) {
		expect_errno(EAGAIN, put(id, 1, 100, 99, IPC_NOWAIT));
		expect_int(100, msgrcv(id, &m, 100, 0, 0));
		expect_true(text_is(m.text, 100, i));
	}
	expect_errno(EAGAIN, put(id, 1, 51, 0, IPC_NOWAIT));
	expect_int(0, put(id, 1, 50, 0, IPC_NOWAIT));
	set_qbytes(id, 0);
	expect_errno(EAGAIN, put(id, 1, 0, 0, IPC_NOWAIT));
	expect_int(3, status_of(id).msg_qnum);
}

/* Raise the limit for this row: by capability, else in an IPC namespace of our own. */
static int queue_of(unsigned long qbytes, int *own_namespace)
{
	int fd, id;
	*own_namespace = 0;
	if (!has_capability(CAP_SYS_RESOURCE)) {
		char text[32];
		int length = snprintf(text, sizeof text, "%lu\n", qbytes);
		if (unshare(CLONE_NEWIPC) != 0)
			skip("neither CAP_SYS_RESOURCE nor an IPC namespace of our own: %s", strerror(errno));
		fd = open("/proc/sys/kernel/msgmnb", O_WRONLY);
		if (fd < 0 || write(fd, text, (size_t)length) != length)
			skip("msgmnb cannot be set: %s", strerror(errno));
		close(fd);
		*own_namespace = 1;
	}
	id = (int)must(msgget(IPC_PRIVATE, 0600));
	if (!*own_namespace)
		remember_queue(id); /* in a namespace of our own the id may be somebody else's over there */
	set_qbytes(id, qbytes);
	expect_int(qbytes, status_of(id).msg_qbytes);
	return id;
}

static void megabytes_of_long_messages(void)
{
	int own, id = queue_of(4 << 20, &own);
	expect_int((4 << 20) / 8192, fill(id, 8192, 1 << 20));
	expect_int(4 << 20, status_of(id).msg_cbytes);
	drain(id, 8192, (4 << 20) / 8192);
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

static void megabytes_of_short_messages(void)
{
	int own, id = queue_of(4 << 20, &own);
	expect_int((4 << 20) / 64, fill(id, 64, 1 << 20));
	drain(id, 64, (4 << 20) / 64);
	expect_int(100000, fill(id, 0, 100000));
	drain(id, 0, 100000);
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

static void raised_while_in_use(void)
{
	/* A process that attached when the queue was small must see it grow. */
	struct { _Atomic int step; } *s = shared_memory(sizeof *s);
	int own, id = queue_of(1 << 20, &own);
	set_qbytes(id, 1000);
	pid_t pid = fork_child();
	if (pid == 0) {
		struct msg m;
		expect_int(10, fill(id, 100, 100));
		s->step = 1;
		while (s->step != 2)
			nap(100);
		for (int i = 0; i < 10 + 127; i++)
			expect_true(msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT) == (i < 10 ? 100 : 8192) && text_is(m.text, i < 10 ? 100 : 8192, i < 10 ? (unsigned)i : (unsigned)i - 10));
		expect_int(128, fill(id, 8192, 1000));
		_exit(0);
	}
	while (s->step != 1)
		nap(100);
	set_qbytes(id, 1 << 20);
	expect_int(127, fill(id, 8192, 1000));
	s->step = 2;
	join(pid);
	expect_int(1 << 20, status_of(id).msg_cbytes);
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

static void larger_than_the_queue(void)
{
	int id = new_queue(0600);
	set_qbytes(id, 100);
	expect_errno(EAGAIN, put(id, 1, 101, 0, IPC_NOWAIT));
	expect_errno(EAGAIN, put(id, 1, 8192, 0, IPC_NOWAIT));
	expect_int(0, put(id, 1, 100, 0, IPC_NOWAIT));
}

static void same_after_many_rounds(void)
{
	static const size_t lengths[] = { 0, 1, 64, 73, 129, 300, 1024, 2000, 4096, 8192 };
	int id = new_queue(0600);
	struct msg m;
	set_qbytes(id, 16384);
	for (unsigned round = 0; round < 60; round++) {
		size_t bytes = 0;
		int count = 0;
		for (unsigned i = 0; ; i++, count++) {
			size_t length = lengths[(i * (round + 1) + round) % 10];
			int fits = bytes + length <= 16384 && count < 16384;
			if (put(id, 1 + i % 4, length, i, IPC_NOWAIT) != 0) {
				if (fits)
					fail("round %u, message %u of %zu: expected to fit into %zu, came %s", round, i, length, bytes, errno_name(errno));
				break;
			}
			if (!fits)
				fail("round %u, message %u of %zu: expected EAGAIN at %zu, came success", round, i, length, bytes);
			bytes += length;
		}
		/* Leave by type, from the ends, by lowest type. */
		for (int i = 0; i < count; i++)
			if (msgrcv(id, &m, TEXT_MAX, round % 3 == 0 ? 0 : round % 3 == 1 ? -4 : 1 + i % 4, IPC_NOWAIT) < 0 &&
			    msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT) < 0)
				fail("round %u: expected %d messages, came %d", round, count, i);
		expect_int(0, status_of(id).msg_qnum);
		expect_int(0, status_of(id).msg_cbytes);
	}
	expect_int(16384, fill(id, 1, 20000));
}

static void failed_sends_take_nothing(void)
{
	int id = new_queue(0600);
	set_qbytes(id, 5000);
	expect_int(0, put(id, 1, 4000, 0, IPC_NOWAIT));
	for (int i = 0; i < 50000; i++)
		expect_errno(EAGAIN, put(id, 1, 1001, 0, IPC_NOWAIT));
	for (int i = 0; i < 5000; i++)
		expect_errno(EFAULT, msgsnd(id, (void *)-1, 1000, IPC_NOWAIT));
	expect_int(0, put(id, 1, 1000, 0, IPC_NOWAIT));
	expect_int(5000, status_of(id).msg_cbytes);
}

static void queues_do_not_share_capacity(void)
{
	int ids[20];
	for (int q = 0; q < 20; q++) {
		ids[q] = new_queue(0600);
		set_qbytes(ids[q], 16384);
	}
	for (int q = 0; q < 20; q++)
		expect_int(q % 2 ? 2 : 1638, fill(ids[q], q % 2 ? 8192 : 10, 20000));
	for (int q = 0; q < 20; q++)
		drain(ids[q], q % 2 ? 8192 : 10, q % 2 ? 2 : 1638);
}

static void write_limit(const char *name, const char *value)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, value, strlen(value)) != (ssize_t)strlen(value))
		skip("%s cannot be set: %s", name, strerror(errno));
	close(fd);
}

static void limits_act_live(void)
{
	if (unshare(CLONE_NEWIPC) != 0)
		skip("no IPC namespace of our own: %s", strerror(errno));
	/* Our queues do not know that IPC namespace: there a row before this one may have set a limit. */
	write_limit("msgmax", "8192\n");
	write_limit("msgmnb", "16384\n");
	int old = (int)must(msgget(IPC_PRIVATE, 0600)), later;
	write_limit("msgmax", "100\n");
	write_limit("msgmnb", "300\n");
	expect_int(0, put(old, 1, 100, 0, IPC_NOWAIT));
	expect_errno(EINVAL, put(old, 1, 101, 0, IPC_NOWAIT));
	later = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_int(16384, status_of(old).msg_qbytes);
	expect_int(300, status_of(later).msg_qbytes);
	expect_int(3, fill(later, 100, 10));
	/* MSG_COPY makes room for msgmax bytes: a message sent when that was more is EINVAL, one that does not fit the buffer E2BIG. */
	write_limit("msgmax", "50\n");
	char copied[108];
	if (msgrcv(old, copied, 100, 0, MSG_COPY | IPC_NOWAIT) == -1 && errno != ENOSYS) {
		expect_errno(EINVAL, msgrcv(old, copied, 100, 0, MSG_COPY | IPC_NOWAIT));
		expect_errno(EINVAL, msgrcv(old, copied, 99, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR));
		expect_errno(E2BIG, msgrcv(old, copied, 99, 0, MSG_COPY | IPC_NOWAIT));
		expect_errno(E2BIG, msgrcv(old, copied, 20, 0, MSG_COPY | IPC_NOWAIT));
	}
	write_limit("msgmax", "20000\n");
	char *big = calloc(1, 8 + 20000);
	*(long *)big = 7;
	fill_text((unsigned char *)big + 8, 12345, 1);
	expect_int(0, msgsnd(old, big, 12345, IPC_NOWAIT));
	memset(big, 0, 20008);
	expect_int(12345, msgrcv(old, big, 20000, 7, IPC_NOWAIT));
	expect_true(text_is((unsigned char *)big + 8, 12345, 1));
	expect_errno(EINVAL, msgsnd(old, big, 20001, IPC_NOWAIT));
	expect_int(0, msgctl(old, IPC_RMID, NULL));
	expect_int(0, msgctl(later, IPC_RMID, NULL));
}

static void msgmni_stops_creation(void)
{
	if (unshare(CLONE_NEWIPC) != 0)
		skip("no IPC namespace of our own: %s", strerror(errno));
	key_t key = new_key(), other = new_key();
	struct msginfo info;
	int ids[3], in_use;
	ids[0] = (int)must(msgget(key, IPC_CREAT | 0600));
	must(msgctl(0, MSG_INFO, (struct msqid_ds *)&info));
	in_use = info.msgpool; /* another namespace directory may hold more than ours */
	char text[32];
	snprintf(text, sizeof text, "%d\n", in_use + 1);
	write_limit("msgmni", text);
	ids[1] = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_errno(ENOSPC, msgget(IPC_PRIVATE, 0600));
	expect_errno(ENOSPC, msgget(other, IPC_CREAT | 0600));
	/* Only where a queue really would be created. */
	expect_int(ids[0], msgget(key, IPC_CREAT | 0600));
	expect_errno(EEXIST, msgget(key, IPC_CREAT | IPC_EXCL | 0600));
	expect_errno(ENOENT, msgget(other, 0600));
	expect_int(0, msgctl(ids[1], IPC_RMID, NULL));
	ids[2] = (int)must(msgget(other, IPC_CREAT | 0600));
	expect_int(0, msgctl(ids[2], IPC_RMID, NULL));
	expect_int(0, msgctl(ids[0], IPC_RMID, NULL));
}

static const struct row rows[] = {
	ROW(fits_to_the_byte),
	ROW_LONG(default_queue_takes_16384_messages, 30),
	ROW(tiny_qbytes),
	ROW(shrunk_below_its_content),
	ROW_LONG(megabytes_of_long_messages, 30),
	ROW_LONG(megabytes_of_short_messages, 30),
	ROW_LONG(raised_while_in_use, 30),
	ROW(larger_than_the_queue),
	ROW_LONG(same_after_many_rounds, 30),
	ROW(failed_sends_take_nothing),
	ROW(queues_do_not_share_capacity),
	ROW_ROOT(limits_act_live),
	ROW_ROOT(msgmni_stops_creation),
};

CHECK_MAIN("capacity", rows)
