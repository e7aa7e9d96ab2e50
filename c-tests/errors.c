/*
 * Errors: which one is reported when several apply, and pointers that lead nowhere.
 *
 *  1. msgsnd: sizes beyond msgmax or negative, negative ids and types below 1 are EINVAL; a size of msgmax is not
 *  2. msgsnd: EFAULT of the type comes before all else, EINVAL of size and type before EFAULT of the text, that before a missing id,
 *     that before EACCES, that before EAGAIN
 *  3. msgrcv: a negative size or id is EINVAL, a size of LONG_MAX is not; EACCES comes before ENOMSG and E2BIG
 *  4. msgrcv: MSG_COPY's own errors come before a missing id: EINVAL of the flags, then EFAULT of the buffer
 *  5. msgrcv: the buffer is not looked at before a message is there; NULL on an empty queue is ENOMSG
 *  6. msgctl: a negative id or command is EINVAL; IPC_SET reads its buffer before it looks for the id; IPC_STAT writes last
 *  7. msgctl: unknown commands are EINVAL, IPC_RMID ignores its buffer
 *  8. for each kind of bad address (NULL, (void *)-1, a page without access, an unmapped page, a file mapping beyond the end of the file,
 *     and, to write to, a read-only page): EFAULT by every call, for the whole buffer, its text, and a part of its text
 *  9. a length of zero touches no text
 * 10. calls that fail before they found a message change nothing; EFAULT of msgsnd leaves no message
 * 11. EFAULT while msgrcv copies out consumes the message; what comes before the fault has been written
 */
#include "check.h"

static size_t page(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Values the compiler must not see through. */
static volatile size_t huge = LONG_MAX;
static void *volatile null_pointer = NULL;

static void send_sizes(void)
{
	struct msg *m = calloc(1, sizeof *m + 1);
	int id = new_queue(0600);
	m->type = 1;
	expect_errno(EINVAL, msgsnd(id, m, TEXT_MAX + 1, IPC_NOWAIT));
	expect_errno(EINVAL, msgsnd(id, m, huge, IPC_NOWAIT));
	expect_errno(EINVAL, msgsnd(id, m, huge + 1, IPC_NOWAIT));
	expect_errno(EINVAL, msgsnd(id, m, huge * 2 + 1, IPC_NOWAIT));
	expect_int(0, msgsnd(id, m, TEXT_MAX, IPC_NOWAIT));
	expect_int(0, msgsnd(id, m, TEXT_MAX, IPC_NOWAIT));
	expect_errno(EAGAIN, msgsnd(id, m, TEXT_MAX, IPC_NOWAIT));
	expect_errno(EAGAIN, msgsnd(id, m, 1, IPC_NOWAIT));
}

static void send_types(void)
{
	int id = new_queue(0600);
	expect_errno(EINVAL, put_byte(id, 0, 'a', 0));
	expect_errno(EINVAL, put_byte(id, -1, 'a', 0));
	expect_errno(EINVAL, put_byte(id, LONG_MIN, 'a', 0));
	expect_int(0, put_byte(id, LONG_MAX, 'a', 0));
	expect_int(0, put_byte(id, 1, 'b', 0));
	expect_int('a', get_byte(id, LONG_MAX, IPC_NOWAIT));
	expect_int('b', get_byte(id, 1, IPC_NOWAIT));
}

static int missing_id(void)
{
	int id = new_queue(0600);
	must(msgctl(id, IPC_RMID, NULL));
	return id;
}

/* A message whose type can be read and whose text cannot. */
static long *type_before_bad_text(int protection)
{
	char *p = mmap(NULL, 2 * page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long *type = (long *)(p + page()) - 1;
	*type = 1;
	mprotect(p + page(), page(), protection);
	return type;
}

static void send_order(void)
{
	int gone = missing_id(), full = new_queue(0600), closed = new_queue(0);
	long *m = type_before_bad_text(PROT_NONE);
	set_qbytes(full, 0);
	expect_errno(EFAULT, msgsnd(-1, null_pointer, huge + 1, 0));
	expect_errno(EFAULT, msgsnd(gone, null_pointer, 0, 0));
	expect_errno(EINVAL, msgsnd(full, m, TEXT_MAX + 1, IPC_NOWAIT));
	expect_errno(EINVAL, msgsnd(-1, m, 1, IPC_NOWAIT));
	*m = 0;
	expect_errno(EINVAL, msgsnd(full, m, 1, IPC_NOWAIT));
	expect_errno(EINVAL, msgsnd(full, m, 0, IPC_NOWAIT));
	*m = 1;
	expect_errno(EFAULT, msgsnd(gone, m, 1, IPC_NOWAIT));
	expect_errno(EINVAL, msgsnd(gone, m, 0, IPC_NOWAIT));
	expect_errno(EFAULT, msgsnd(full, m, 1, IPC_NOWAIT));
	expect_errno(EAGAIN, msgsnd(full, m, 0, IPC_NOWAIT));
	expect_true(status_of(full).msg_lspid == 0);
	if (geteuid() != 0)
		return;
	set_qbytes(closed, 0);
	become(NOBODY, NOBODY);
	expect_errno(EFAULT, msgsnd(closed, m, 1, IPC_NOWAIT));
	expect_errno(EACCES, msgsnd(closed, m, 0, IPC_NOWAIT));
	expect_errno(EACCES, msgsnd(closed, m, 0, 0));
}

static void receive_sizes(void)
{
	struct msg m;
	int id = new_queue(0600);
	expect_errno(EINVAL, msgrcv(id, &m, huge + 1, 0, IPC_NOWAIT));
	expect_errno(EINVAL, msgrcv(id, &m, huge * 2 + 1, 0, IPC_NOWAIT));
	expect_errno(ENOMSG, msgrcv(id, &m, huge, 0, IPC_NOWAIT));
	must(put_byte(id, 1, 'a', 0));
	expect_int(1, msgrcv(id, &m, huge, 0, IPC_NOWAIT));
	expect_int('a', m.text[0]);
}

static void receive_order(void)
{
	struct msg m;
	int gone = missing_id(), empty = new_queue(0), filled = new_queue(0);
	expect_errno(EINVAL, msgrcv(-1, &m, 1, 0, IPC_NOWAIT));
	expect_errno(EINVAL, msgrcv(gone, &m, 1, 0, IPC_NOWAIT));
	expect_errno(EINVAL, msgrcv(gone, null_pointer, 1, 0, IPC_NOWAIT));
	expect_errno(EINVAL, msgrcv(gone, &m, huge + 1, 0, IPC_NOWAIT));
	if (geteuid() != 0)
		skip("the rest needs root");
	must(put(filled, 1, 100, 0, 0));
	expect_errno(E2BIG, msgrcv(filled, null_pointer, 99, 0, IPC_NOWAIT));
	become(NOBODY, NOBODY);
	expect_errno(EACCES, msgrcv(empty, &m, 1, 0, IPC_NOWAIT));
	expect_errno(EACCES, msgrcv(filled, &m, 1, 0, IPC_NOWAIT));
	expect_errno(EACCES, msgrcv(filled, null_pointer, 1, 0, 0));
	expect_errno(EINVAL, msgrcv(filled, &m, huge + 1, 0, 0));
}

static void copy_order(void)
{
	struct msg m;
	int gone = missing_id(), empty = new_queue(0600);
	if (msgrcv(empty, &m, 1, 0, MSG_COPY | IPC_NOWAIT) == -1 && errno == ENOSYS)
		skip("this kernel has no MSG_COPY");
	expect_errno(EINVAL, msgrcv(empty, &m, 1, 0, MSG_COPY));
	expect_errno(EINVAL, msgrcv(empty, null_pointer, 1, 0, MSG_COPY));
	expect_errno(EINVAL, msgrcv(empty, &m, 1, 0, MSG_COPY | IPC_NOWAIT | MSG_EXCEPT));
	expect_errno(EINVAL, msgrcv(-1, null_pointer, 1, 0, MSG_COPY | IPC_NOWAIT));
	expect_errno(EINVAL, msgrcv(empty, null_pointer, huge + 1, 0, MSG_COPY | IPC_NOWAIT));
	expect_errno(EFAULT, msgrcv(gone, null_pointer, 1, 0, MSG_COPY | IPC_NOWAIT));
	expect_errno(EFAULT, msgrcv(empty, null_pointer, 1, 0, MSG_COPY | IPC_NOWAIT));
	expect_errno(EINVAL, msgrcv(gone, &m, 1, 0, MSG_COPY | IPC_NOWAIT));
	expect_errno(ENOMSG, msgrcv(empty, &m, 1, 0, MSG_COPY | IPC_NOWAIT));
}

static void empty_queue_ignores_the_buffer(void)
{
	int id = new_queue(0600);
	expect_errno(ENOMSG, msgrcv(id, null_pointer, 10, 0, IPC_NOWAIT));
	expect_errno(ENOMSG, msgrcv(id, (void *)-1, 10, 0, IPC_NOWAIT));
	must(put_byte(id, 1, 'a', 0));
	expect_errno(ENOMSG, msgrcv(id, null_pointer, 10, 2, IPC_NOWAIT));
	expect_errno(E2BIG, msgrcv(id, null_pointer, 0, 0, IPC_NOWAIT));
	expect_int('a', get_byte(id, 0, IPC_NOWAIT));
}

static void control_order(void)
{
	struct msqid_ds s;
	int gone = missing_id(), id = new_queue(0600);
	memset(&s, 0, sizeof s);
	expect_errno(EINVAL, msgctl(-1, IPC_STAT, null_pointer));
	expect_errno(EINVAL, msgctl(-1, IPC_SET, null_pointer));
	expect_errno(EINVAL, msgctl(-1, IPC_RMID, NULL));
	expect_errno(EINVAL, msgctl(-1, IPC_INFO, &s));
	expect_errno(EINVAL, msgctl(-1, MSG_INFO, &s));
	expect_errno(EINVAL, msgctl(-1, MSG_STAT, &s));
	expect_errno(EINVAL, msgctl(id, -1, &s));
	expect_errno(EFAULT, msgctl(gone, IPC_SET, null_pointer));
	expect_errno(EFAULT, msgctl(id, IPC_SET, null_pointer));
	expect_errno(EINVAL, msgctl(gone, IPC_SET, &s));
	expect_errno(EINVAL, msgctl(gone, IPC_STAT, null_pointer));
	expect_errno(EFAULT, msgctl(id, IPC_STAT, null_pointer));
	if (geteuid() != 0)
		return;
	become(NOBODY, NOBODY);
	expect_errno(EFAULT, msgctl(id, IPC_SET, null_pointer));
	expect_errno(EPERM, msgctl(id, IPC_SET, &s));
	expect_errno(EACCES, msgctl(id, IPC_STAT, null_pointer));
	expect_errno(EPERM, msgctl(id, IPC_RMID, NULL));
}

static void unknown_commands(void)
{
	struct msqid_ds s;
	int id = new_queue(0600);
	static const int known[] = { IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO, MSG_STAT, MSG_INFO, MSG_STAT_ANY };
	memset(&s, 0, sizeof s);
	for (int command = -3; command < 300; command++) {
		int is_known = 0;
		for (int i = 0; i < 7; i++)
			is_known |= command == known[i];
		if (!is_known)
			expect_errno(EINVAL, msgctl(id, command, &s));
		if (!is_known)
			expect_errno(EINVAL, msgctl(id, command, null_pointer));
	}
	for (int i = 0; i < 7; i++)
		expect_errno(EINVAL, msgctl(id, known[i] | 0x100, &s));
	expect_errno(EINVAL, msgctl(id, INT_MAX, &s));
	expect_errno(EINVAL, msgctl(id, INT_MIN, &s));
	expect_int(0600, status_of(id).msg_perm.mode);
}

static void removal_ignores_the_buffer(void)
{
	int a = new_queue(0600), b = new_queue(0600), c = new_queue(0600);
	expect_int(0, msgctl(a, IPC_RMID, NULL));
	expect_int(0, msgctl(b, IPC_RMID, (struct msqid_ds *)-1));
	expect_int(0, msgctl(c, IPC_RMID, (struct msqid_ds *)type_before_bad_text(PROT_NONE)));
}

/* ---- bad addresses: `good` bytes that can be used, then the kind of badness ---- */

enum badness { IS_NULL, IS_MINUS_ONE, NO_ACCESS, UNMAPPED, BEYOND_FILE, READ_ONLY };

static char *bad_address(enum badness kind, size_t good)
{
	char *p;
	if (kind == IS_NULL)
		return null_pointer;
	if (kind == IS_MINUS_ONE)
		return (char *)-1;
	if (kind == BEYOND_FILE) {
		int fd = (int)must(memfd_create("short", MFD_CLOEXEC));
		must(ftruncate(fd, (off_t)page()));
		p = mmap(NULL, 2 * page(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
	} else {
		p = mmap(NULL, 3 * page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	memset(p, 0x5a, page());
	if (kind == NO_ACCESS)
		mprotect(p + page(), page(), PROT_NONE);
	if (kind == READ_ONLY)
		mprotect(p + page(), page(), PROT_READ);
	if (kind == UNMAPPED)
		munmap(p + page(), page());
	return p + page() - good;
}

static int has_parts(enum badness kind)
{
	return kind != IS_NULL && kind != IS_MINUS_ONE;
}

static void send_from_bad_address(void)
{
	enum badness kind = *(const enum badness *)row_arg();
	int id = new_queue(0600);
	struct msqid_ds before = status_of(id), after;
	expect_errno(EFAULT, msgsnd(id, bad_address(kind, 0), 1, IPC_NOWAIT));
	expect_errno(EFAULT, msgsnd(id, bad_address(kind, 0), 0, IPC_NOWAIT));
	expect_errno(EFAULT, msgsnd(id, bad_address(kind, 0), 1, 0));
	if (has_parts(kind)) {
		static const size_t parts[] = { 8, 9, 40, 1000, 4000 };
		for (int i = 0; i < 5; i++) {
			char *m = bad_address(kind, parts[i]);
			long type = 3;
			memcpy(m, &type, sizeof type);
			expect_errno(EFAULT, msgsnd(id, m, parts[i] - 8 + 1, IPC_NOWAIT));
			expect_errno(EFAULT, msgsnd(id, m, TEXT_MAX, IPC_NOWAIT));
		}
		/* A type that is cut in two. */
		expect_errno(EFAULT, msgsnd(id, bad_address(kind, 4), 1, IPC_NOWAIT));
	}
	after = status_of(id);
	expect_same_status(before, after);
	if (has_parts(kind)) {
		/* All of it lies before the bad page. */
		char *m = bad_address(kind, 8 + 100);
		struct msg in;
		long type = 3;
		memcpy(m, &type, sizeof type);
		expect_int(0, msgsnd(id, m, 100, IPC_NOWAIT));
		expect_int(100, msgrcv(id, &in, 100, 3, IPC_NOWAIT));
		expect_int(0, memcmp(in.text, m + 8, 100));
		m = bad_address(kind, 8);
		memcpy(m, &type, sizeof type);
		expect_int(0, msgsnd(id, m, 0, IPC_NOWAIT));
		expect_int(0, msgrcv(id, &in, 100, 3, IPC_NOWAIT));
	}
}

static void expect_consumed(int id, int left)
{
	struct msqid_ds s = status_of(id);
	expect_int(left, s.msg_qnum);
	expect_int(getpid(), s.msg_lrpid);
	expect_true(s.msg_rtime != 0);
}

static void receive_into_bad_address(void)
{
	enum badness kind = *(const enum badness *)row_arg();
	int id = new_queue(0600);
	expect_errno(ENOMSG, msgrcv(id, bad_address(kind, 0), 10, 0, IPC_NOWAIT));
	must(put(id, 1, 10, 1, 0));
	must(put(id, 2, 0, 2, 0));
	must(put(id, 3, 10, 3, 0));
	expect_errno(EFAULT, msgrcv(id, bad_address(kind, 0), 10, 1, IPC_NOWAIT));
	expect_consumed(id, 2);
	expect_errno(EFAULT, msgrcv(id, bad_address(kind, 0), 10, 2, IPC_NOWAIT));
	expect_consumed(id, 1);
	expect_errno(EFAULT, msgrcv(id, bad_address(kind, 0), 5, 3, IPC_NOWAIT | MSG_NOERROR));
	expect_consumed(id, 0);
	expect_int(0, status_of(id).msg_cbytes);
	if (!has_parts(kind))
		return;
	static const size_t lengths[] = { 1, 50, 200, 2000, 4000 };
	for (int i = 0; i < 5; i++) {
		/* The text begins in the bad page: the type has arrived. */
		char *m = bad_address(kind, 8);
		long type;
		must(put(id, 77, lengths[i], 4, 0));
		expect_errno(EFAULT, msgrcv(id, m, TEXT_MAX, 0, IPC_NOWAIT));
		expect_consumed(id, 0);
		memcpy(&type, m, sizeof type);
		expect_int(77, type);
		/* All but its last byte fits: those have arrived. */
		m = bad_address(kind, 8 + lengths[i] - 1);
		must(put(id, 78, lengths[i], 5, 0));
		expect_errno(EFAULT, msgrcv(id, m, TEXT_MAX, 0, IPC_NOWAIT));
		expect_consumed(id, 0);
		memcpy(&type, m, sizeof type);
		expect_int(78, type);
		expect_true(text_is((unsigned char *)m + 8, (lengths[i] - 1) / 8 * 8, 5));
		/* The message fits, the buffer is said to be larger than it is. */
		m = bad_address(kind, 8 + lengths[i]);
		must(put(id, 79, lengths[i], 6, 0));
		expect_int(lengths[i], msgrcv(id, m, TEXT_MAX, 0, IPC_NOWAIT));
		expect_true(text_is((unsigned char *)m + 8, lengths[i], 6));
	}
	/* No text, none touched. */
	must(put(id, 80, 0, 0, 0));
	expect_int(0, msgrcv(id, bad_address(kind, 8), 10, 0, IPC_NOWAIT));
	must(put(id, 80, 10, 0, 0));
	expect_int(0, msgrcv(id, bad_address(kind, 8), 0, 0, IPC_NOWAIT | MSG_NOERROR));
	/* The queue is none the worse. */
	expect_int(0, status_of(id).msg_qnum);
	expect_int(0, status_of(id).msg_cbytes);
	must(put_byte(id, 1, 'z', 0));
	expect_int('z', get_byte(id, 0, IPC_NOWAIT));
}

static void copy_into_bad_address(void)
{
	enum badness kind = *(const enum badness *)row_arg();
	int id = new_queue(0600);
	struct msqid_ds before, after;
	struct msg m;
	must(put(id, 1, 100, 1, 0));
	before = status_of(id);
	if (msgrcv(id, &m, 100, 0, MSG_COPY | IPC_NOWAIT) == -1 && errno == ENOSYS)
		skip("this kernel has no MSG_COPY");
	expect_errno(EFAULT, msgrcv(id, bad_address(kind, 0), 100, 0, MSG_COPY | IPC_NOWAIT));
	if (has_parts(kind))
		expect_errno(EFAULT, msgrcv(id, bad_address(kind, 8), 100, 0, MSG_COPY | IPC_NOWAIT));
	if (has_parts(kind) && kind != READ_ONLY) /* read first: the whole size must be there */
		expect_errno(EFAULT, msgrcv(id, bad_address(kind, 8 + 200), 1000, 0, MSG_COPY | IPC_NOWAIT));
	after = status_of(id);
	expect_same_status(before, after);
}

static void control_with_bad_address(void)
{
	enum badness kind = *(const enum badness *)row_arg();
	int id = new_queue(0600), gone = missing_id();
	struct msqid_ds before = status_of(id), after;
	static const int writing[] = { IPC_STAT, IPC_INFO, MSG_INFO, MSG_STAT, MSG_STAT_ANY };
	for (int i = 0; i < 5; i++) {
		int target = writing[i] == MSG_STAT || writing[i] == MSG_STAT_ANY ? id & 0x7fff : id;
		expect_errno(EFAULT, msgctl(target, writing[i], (struct msqid_ds *)bad_address(kind, 0)));
		if (has_parts(kind)) {
			/* struct msginfo is 32 bytes, struct msqid_ds 120 */
			expect_errno(EFAULT, msgctl(target, writing[i], (struct msqid_ds *)bad_address(kind, 24)));
			expect_true(msgctl(target, writing[i], (struct msqid_ds *)bad_address(kind, sizeof(struct msqid_ds))) >= 0);
		}
	}
	expect_errno(EINVAL, msgctl(gone, IPC_STAT, (struct msqid_ds *)bad_address(kind, 0)));
	if (kind != READ_ONLY) {
		expect_errno(EFAULT, msgctl(id, IPC_SET, (struct msqid_ds *)bad_address(kind, 0)));
		expect_errno(EFAULT, msgctl(gone, IPC_SET, (struct msqid_ds *)bad_address(kind, 0)));
	}
	if (has_parts(kind) && kind != READ_ONLY)
		expect_errno(EFAULT, msgctl(id, IPC_SET, (struct msqid_ds *)bad_address(kind, 24)));
	after = status_of(id);
	expect_same_status(before, after);
}

static void read_only_pages_can_be_sent_from(void)
{
	char *p = bad_address(READ_ONLY, 0);
	int id = new_queue(0600);
	struct msg m;
	mprotect(p, page(), PROT_READ | PROT_WRITE);
	((long *)p)[0] = 9;
	fill_text((unsigned char *)p + 8, 500, 9);
	mprotect(p, page(), PROT_READ);
	expect_int(0, msgsnd(id, p, 500, IPC_NOWAIT));
	expect_int(500, msgrcv(id, &m, 500, 9, IPC_NOWAIT));
	expect_true(text_is(m.text, 500, 9));
}

static void unaligned_buffers_work(void)
{
	char raw[200];
	int id = new_queue(0600);
	for (int shift = 0; shift < 8; shift++) {
		long type = 5 + shift;
		memcpy(raw + shift, &type, sizeof type);
		fill_text((unsigned char *)raw + shift + 8, 100, 3);
		expect_int(0, msgsnd(id, raw + shift, 100, 0));
		memset(raw, 0, sizeof raw);
		expect_int(100, msgrcv(id, raw + 7 - shift, 100, 0, 0));
		memcpy(&type, raw + 7 - shift, sizeof type);
		expect_int(5 + shift, type);
		expect_true(text_is((unsigned char *)raw + 7 - shift + 8, 100, 3));
	}
}

static const enum badness kinds[] = { IS_NULL, IS_MINUS_ONE, NO_ACCESS, UNMAPPED, BEYOND_FILE, READ_ONLY };
#define FIVE(title, function) \
	ROW_CASE(title "_null", function, &kinds[IS_NULL]), \
	ROW_CASE(title "_minus_one", function, &kinds[IS_MINUS_ONE]), \
	ROW_CASE(title "_no_access", function, &kinds[NO_ACCESS]), \
	ROW_CASE(title "_unmapped", function, &kinds[UNMAPPED]), \
	ROW_CASE(title "_beyond_file", function, &kinds[BEYOND_FILE])
#define SIX(title, function) FIVE(title, function), ROW_CASE(title "_read_only", function, &kinds[READ_ONLY])

static const struct row rows[] = {
	ROW(send_sizes),
	ROW(send_types),
	ROW(send_order),
	ROW(receive_sizes),
	ROW(receive_order),
	ROW(copy_order),
	ROW(empty_queue_ignores_the_buffer),
	ROW(control_order),
	ROW(unknown_commands),
	ROW(removal_ignores_the_buffer),
	FIVE("send_from", send_from_bad_address),
	SIX("receive_into", receive_into_bad_address),
	SIX("copy_into", copy_into_bad_address),
	SIX("control_with", control_with_bad_address),
	ROW(read_only_pages_can_be_sent_from),
	ROW(unaligned_buffers_work),
};

CHECK_MAIN("errors", rows)
