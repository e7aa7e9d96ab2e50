/*
 * Receiving: which message comes, and what arrives in the buffer.
 *
 *  1. type 0: the first of all; type > 0: the first of that type, the others keep their order
 *  2. type < 0: the lowest type up to |type|, and of that type the oldest; LONG_MIN acts as -LONG_MAX
 *  3. MSG_EXCEPT: the first of another type; ignored for types 0 and below
 *  4. a random sequence of sends and receives agrees with a plain list, call by call
 *  5. too small a buffer is E2BIG and the message stays, also with size 0
 *  6. MSG_NOERROR cuts the message; not one byte past the size is written, and the rest is gone
 *  7. texts of all sizes arrive as they were sent, and nothing beyond them is written
 *  8. MSG_COPY copies the message at a place, changes nothing; negative and past the end ENOMSG; too small E2BIG,
 *     with MSG_NOERROR EINVAL
 *  9. order is kept among messages of all sizes mixed
 * 10. a received message counts no more: qnum and cbytes
 * 11. odd flag bits are ignored
 */
#include "check.h"

static void fill_types(int id, const long *types, int count)
{
	for (int i = 0; i < count; i++)
		must(put_byte(id, types[i], i, 0));
}

static void first_of_all(void)
{
	static const long types[] = { 3, 1, 2, 1, LONG_MAX };
	int id = new_queue(0600);
	fill_types(id, types, 5);
	for (int i = 0; i < 5; i++) {
		struct msg m;
		expect_int(1, msgrcv(id, &m, 1, 0, 0));
		expect_int(types[i], m.type);
		expect_int(i, m.text[0]);
	}
	expect_errno(ENOMSG, get_byte(id, 0, IPC_NOWAIT));
}

static void first_of_a_type(void)
{
	static const long types[] = { 3, 1, 2, 1, 3, 1 };
	int id = new_queue(0600);
	fill_types(id, types, 6);
	expect_int(1, get_byte(id, 1, 0));
	expect_int(3, get_byte(id, 1, 0));
	expect_int(2, get_byte(id, 2, 0));
	expect_errno(ENOMSG, get_byte(id, 2, IPC_NOWAIT));
	expect_errno(ENOMSG, get_byte(id, LONG_MAX, IPC_NOWAIT));
	expect_int(0, get_byte(id, 0, 0));
	expect_int(4, get_byte(id, 0, 0));
	expect_int(5, get_byte(id, 0, 0));
}

static void lowest_type(void)
{
	static const long types[] = { 5, 3, 9, 3, 4, LONG_MAX };
	int id = new_queue(0600);
	fill_types(id, types, 6);
	expect_errno(ENOMSG, get_byte(id, -2, IPC_NOWAIT));
	expect_int(1, get_byte(id, -5, 0));
	expect_int(3, get_byte(id, -3, 0));
	expect_errno(ENOMSG, get_byte(id, -3, IPC_NOWAIT));
	expect_int(4, get_byte(id, -LONG_MAX, 0));
	expect_int(0, get_byte(id, -8, 0));
	expect_errno(ENOMSG, get_byte(id, -8, IPC_NOWAIT));
	expect_int(2, get_byte(id, -9, 0));
	expect_errno(ENOMSG, get_byte(id, -LONG_MAX + 1, IPC_NOWAIT));
	expect_int(5, get_byte(id, LONG_MIN, 0));
	expect_errno(ENOMSG, get_byte(id, LONG_MIN, IPC_NOWAIT));
}

static void all_but_a_type(void)
{
	static const long types[] = { 2, 2, 1, 2, 3 };
	int id = new_queue(0600);
	fill_types(id, types, 5);
	expect_int(2, get_byte(id, 2, MSG_EXCEPT));
	expect_int(4, get_byte(id, 2, MSG_EXCEPT));
	expect_errno(ENOMSG, get_byte(id, 2, MSG_EXCEPT | IPC_NOWAIT));
	expect_int(0, get_byte(id, 7, MSG_EXCEPT));
	expect_int(1, get_byte(id, 0, MSG_EXCEPT));
	expect_int(3, get_byte(id, -2, MSG_EXCEPT));
	must(put_byte(id, 5, 0, 0));
	expect_errno(ENOMSG, get_byte(id, -4, MSG_EXCEPT | IPC_NOWAIT));
}

/* ---- against a list ---- */

struct entry { long type; unsigned seed; size_t length; };

static int choose(const struct entry *list, int count, long type, int except)
{
	int best = -1;
	for (int i = 0; i < count; i++) {
		long t = list[i].type;
		if (type == 0 || (type > 0 && (t == type) == !except))
			return i;
		if (type < 0 && (type == LONG_MIN || t <= -type) && (best < 0 || t < list[best].type))
			best = i;
	}
	return best;
}

static unsigned long long random_state = 88172645463325252ull;
static unsigned random_below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state >> 33) % n;
}

static const long some_types[] = { 1, 2, 3, 5, 100, 65536, 0x100000005, LONG_MAX - 1, LONG_MAX };

static void agrees_with_a_list(void)
{
	static struct entry list[400];
	int id = new_queue(0600), count = 0;
	size_t bytes = 0;
	for (unsigned step = 0; step < 40000; step++) {
		/* Alternate between filling and emptying, so that all depths are seen. */
		if (random_below(100) < (step / 500 % 2 ? 60u : 40u) && count < 400) {
			struct entry e = { some_types[random_below(9)], step, random_below(50) ? random_below(90) : random_below(3000) };
			if (bytes + e.length > 16384) {
				expect_errno(EAGAIN, put(id, e.type, e.length, e.seed, IPC_NOWAIT));
				continue;
			}
			expect_int(0, put(id, e.type, e.length, e.seed, IPC_NOWAIT));
			list[count++] = e;
			bytes += e.length;
		} else {
			struct msg m;
			long type = random_below(3) ? some_types[random_below(9)] : 0;
			int except = random_below(4) == 0, at;
			if (random_below(3) == 0)
				type = random_below(20) ? -type : LONG_MIN;
			at = choose(list, count, type, except);
			int flags = IPC_NOWAIT | (except ? MSG_EXCEPT : 0);
			if (at < 0) {
				expect_errno(ENOMSG, msgrcv(id, &m, TEXT_MAX, type, flags));
				continue;
			}
			if (list[at].length > 0 && random_below(5) == 0) {
				expect_errno(E2BIG, msgrcv(id, &m, list[at].length - 1, type, flags));
				continue;
			}
			expect_int(list[at].length, msgrcv(id, &m, list[at].length, type, flags));
			expect_int(list[at].type, m.type);
			expect_true(text_is(m.text, list[at].length, list[at].seed));
			bytes -= list[at].length;
			memmove(&list[at], &list[at + 1], (size_t)(--count - at) * sizeof list[0]);
		}
		if (step % 16 == 0) {
			struct msqid_ds s = status_of(id);
			expect_int(count, s.msg_qnum);
			expect_int(bytes, s.msg_cbytes);
		}
	}
}

/* ---- buffers ---- */

static void too_small_keeps_the_message(void)
{
	struct msg m;
	int id = new_queue(0600);
	struct msqid_ds before, after;
	must(put(id, 4, 10, 1, 0));
	must(put(id, 5, 0, 2, 0));
	before = status_of(id);
	memset(&m, 0x77, sizeof m);
	expect_errno(E2BIG, msgrcv(id, &m, 9, 0, IPC_NOWAIT));
	expect_errno(E2BIG, msgrcv(id, &m, 0, 0, IPC_NOWAIT));
	expect_errno(E2BIG, msgrcv(id, &m, 9, 4, 0));
	expect_errno(E2BIG, msgrcv(id, &m, 9, -4, 0));
	expect_errno(E2BIG, msgrcv(id, &m, 9, 5, MSG_EXCEPT));
	expect_int(0x7777777777777777, m.type);
	expect_int(0x77, m.text[0]);
	after = status_of(id);
	expect_same_status(before, after);
	expect_int(0, msgrcv(id, &m, 0, 5, 0));
	expect_int(10, msgrcv(id, &m, 10, 0, 0));
}

static const size_t sizes[] = { 0, 1, 7, 8, 9, 47, 48, 49, 71, 72, 73, 79, 80, 81, 127, 128, 129, 240, 241, 255, 256, 257, 1000, 1023,
	1024, 1025, 2047, 2048, 2049, 4047, 4048, 4049, 4095, 4096, 4097, 8100, 8191, 8192 };
#define SIZES ((int)(sizeof sizes / sizeof sizes[0]))

/* The buffer is long enough, and everything around what should have been written is as it was. */
static void receive_guarded(int id, size_t size, int flags, size_t want, unsigned seed)
{
	struct { unsigned char before[64]; struct msg m; unsigned char after[64]; } b;
	memset(&b, 0xa5, sizeof b);
	expect_int(want, msgrcv(id, &b.m, size, 0, flags));
	expect_int(42, b.m.type);
	expect_true(text_is(b.m.text, want, seed));
	for (size_t i = want; i < TEXT_MAX; i++)
		if (b.m.text[i] != 0xa5)
			fail("size %zu: expected nothing past byte %zu, came a write to byte %zu", size, want, i);
	for (size_t i = 0; i < 64; i++)
		expect_true(b.before[i] == 0xa5 && b.after[i] == 0xa5);
}

static void all_sizes_arrive(void)
{
	int id = new_queue(0600);
	for (int i = 0; i < SIZES; i++) {
		must(put(id, 42, sizes[i], (unsigned)i, 0));
		receive_guarded(id, sizes[i], 0, sizes[i], (unsigned)i);
		must(put(id, 42, sizes[i], (unsigned)i, 0));
		receive_guarded(id, TEXT_MAX, 0, sizes[i], (unsigned)i);
		must(put(id, 42, sizes[i], (unsigned)i, 0));
		receive_guarded(id, TEXT_MAX, MSG_NOERROR, sizes[i], (unsigned)i);
	}
}

static void noerror_cuts(void)
{
	int id = new_queue(0600);
	for (int i = 0; i < SIZES; i++) {
		for (int j = 0; j <= i; j++) {
			must(put(id, 42, sizes[i], (unsigned)i, 0));
			receive_guarded(id, sizes[j], MSG_NOERROR, sizes[j], (unsigned)i);
			expect_int(0, status_of(id).msg_cbytes);
			expect_errno(ENOMSG, get_byte(id, 0, IPC_NOWAIT));
		}
	}
}

static void sizes_mixed_keep_their_order(void)
{
	struct msg m;
	int id = new_queue(0600);
	for (unsigned round = 0; round < 30; round++) {
		int sent = 0, got = 0;
		while (put(id, 42, sizes[(sent * 7 + (int)round) % SIZES], (unsigned)sent, IPC_NOWAIT) == 0)
			sent++;
		expect_true(errno == EAGAIN);
		expect_true(sent >= 2);
		for (; got < sent; got++) {
			size_t length = sizes[(got * 7 + (int)round) % SIZES];
			expect_int(length, msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT));
			expect_true(text_is(m.text, length, (unsigned)got));
		}
		expect_errno(ENOMSG, msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT));
	}
}

/* ---- MSG_COPY ---- */

static void need_copy(int id)
{
	if (get_byte(id, 0, MSG_COPY | IPC_NOWAIT) == -1 && errno == ENOSYS)
		skip("this kernel has no MSG_COPY");
}

static void copy_by_place(void)
{
	static const long types[] = { 9, 2, 7, 2 };
	int id = new_queue(0600);
	struct msqid_ds before, after;
	need_copy(id);
	fill_types(id, types, 4);
	before = status_of(id);
	for (int i = 3; i >= 0; i--) {
		struct msg m;
		expect_int(1, msgrcv(id, &m, 1, i, MSG_COPY | IPC_NOWAIT));
		expect_int(types[i], m.type);
		expect_int(i, m.text[0]);
	}
	expect_errno(ENOMSG, get_byte(id, 4, MSG_COPY | IPC_NOWAIT));
	expect_errno(ENOMSG, get_byte(id, LONG_MAX, MSG_COPY | IPC_NOWAIT));
	expect_errno(ENOMSG, get_byte(id, -1, MSG_COPY | IPC_NOWAIT));
	expect_errno(ENOMSG, get_byte(id, LONG_MIN, MSG_COPY | IPC_NOWAIT));
	after = status_of(id);
	expect_same_status(before, after);
	/* Places move up when a message leaves. */
	expect_int(1, get_byte(id, 2, 0));
	expect_int(2, get_byte(id, 1, MSG_COPY | IPC_NOWAIT));
	for (int i = 0; i < 4; i++)
		if (i != 1)
			expect_int(i, get_byte(id, 0, 0));
}

static void copy_sizes(void)
{
	struct msg m;
	int id = new_queue(0600);
	need_copy(id);
	for (int i = 0; i < SIZES; i++) {
		must(put(id, 42, sizes[i], (unsigned)i, 0));
		memset(&m, 0x33, sizeof m);
		expect_int(sizes[i], msgrcv(id, &m, TEXT_MAX, 0, MSG_COPY | IPC_NOWAIT));
		expect_int(42, m.type);
		expect_true(text_is(m.text, sizes[i], (unsigned)i));
		memset(&m, 0x33, sizeof m);
		expect_int(sizes[i], msgrcv(id, &m, sizes[i], 0, MSG_COPY | IPC_NOWAIT));
		expect_true(text_is(m.text, sizes[i], (unsigned)i));
		if (sizes[i] > 0) {
			expect_errno(E2BIG, msgrcv(id, &m, sizes[i] - 1, 0, MSG_COPY | IPC_NOWAIT));
			expect_errno(E2BIG, msgrcv(id, &m, 0, 0, MSG_COPY | IPC_NOWAIT));
			expect_errno(EINVAL, msgrcv(id, &m, sizes[i] - 1, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR));
		}
		expect_int(sizes[i], msgrcv(id, &m, TEXT_MAX, 0, IPC_NOWAIT));
		expect_true(text_is(m.text, sizes[i], (unsigned)i));
	}
}

/* ---- counts and flags ---- */

static void counts_follow(void)
{
	struct msg m;
	int id = new_queue(0600);
	size_t bytes = 0;
	for (unsigned i = 1; i <= 20; i++) {
		must(put(id, i, i * 10, i, 0));
		bytes += i * 10;
		expect_int(bytes, status_of(id).msg_cbytes);
		expect_int(i, status_of(id).msg_qnum);
	}
	for (unsigned i = 20; i >= 1; i--) {
		expect_int(3, msgrcv(id, &m, 3, i, MSG_NOERROR));
		bytes -= i * 10;
		expect_int(bytes, status_of(id).msg_cbytes);
		expect_int(i - 1, status_of(id).msg_qnum);
	}
}

static void odd_flag_bits_are_ignored(void)
{
	int id = new_queue(0600);
	int odd = ~(IPC_NOWAIT | MSG_NOERROR | MSG_EXCEPT | MSG_COPY);
	expect_int(0, put_byte(id, 1, 'a', odd));
	expect_int('a', get_byte(id, 1, odd));
	expect_int(0, put_byte(id, 1, 'b', ~0));
	expect_int('b', get_byte(id, 1, odd | IPC_NOWAIT));
	expect_errno(ENOMSG, get_byte(id, 1, odd | IPC_NOWAIT));
}

static const struct row rows[] = {
	ROW(first_of_all),
	ROW(first_of_a_type),
	ROW(lowest_type),
	ROW(all_but_a_type),
	ROW_LONG(agrees_with_a_list, 30),
	ROW(too_small_keeps_the_message),
	ROW(all_sizes_arrive),
	ROW(noerror_cuts),
	ROW(sizes_mixed_keep_their_order),
	ROW(copy_by_place),
	ROW(copy_sizes),
	ROW(counts_follow),
	ROW(odd_flag_bits_are_ignored),
};

CHECK_MAIN("receive", rows)
