/*
 * Identifiers and keys: msgget, and what becomes of an id.
 *
 *  1. IPC_PRIVATE always creates, whatever the flags; its queues have key 0
 *  2. IPC_EXCL without IPC_CREAT is ignored
 *  3. negative keys (ftok's -1), INT_MIN and INT_MAX are ordinary keys
 *  4. EEXIST comes before EACCES; without IPC_EXCL it is EACCES
 *  5. a removed id is EINVAL for every call, also when its place is used again
 *  6. msgget(key, 0) succeeds for anybody
 *  7. msgget with mode bits asks for those permissions
 *  8. a missing key without IPC_CREAT is ENOENT, IPC_EXCL or not
 *  9. ids are not negative, and those in use differ
 * 10. 2000 queues at once, each with its own message
 * 11. of those most are removed: the rest, and new ones, work
 * 12. a key is free again after IPC_RMID, and gives another id
 * 13. the same key is the same queue in another process
 * 14. IPC_CREAT on an existing queue returns it and changes nothing
 * 15. mode is msgflg & 0777, execute bits kept; key and creator are recorded
 * 16. of several creators with IPC_EXCL one wins
 * 17. several creators without IPC_EXCL all get the same queue
 * 18. so do a creator that was stopped in the middle, and who came meanwhile
 * 19. creators and removers of one key see only the documented errors
 * 20. an id never handed out is EINVAL
 * 21. flag bits that mean nothing are ignored
 */
#include "check.h"

static void private_always_creates(void)
{
	static const int flags[] = { 0600, IPC_CREAT | 0600, IPC_EXCL | 0600, IPC_CREAT | IPC_EXCL | 0600, 0 };
	int ids[5];
	for (int i = 0; i < 5; i++) {
		ids[i] = remember_queue((int)must(msgget(IPC_PRIVATE, flags[i])));
		for (int j = 0; j < i; j++)
			expect_true(ids[i] != ids[j]);
	}
	expect_int(0, status_of(ids[0]).msg_perm.__key);
}

static void excl_without_creat_is_ignored(void)
{
	key_t key = new_key();
	int id = new_keyed_queue(key, 0600);
	expect_int(id, msgget(key, IPC_EXCL));
	expect_int(id, msgget(key, IPC_EXCL | 0600));
}

static void odd_keys_are_ordinary(void)
{
	static const key_t keys[] = { -1, INT_MIN, INT_MAX };
	for (int i = 0; i < 3; i++) {
		int id = msgget(keys[i], IPC_CREAT | IPC_EXCL | 0600);
		if (id == -1 && errno == EEXIST)
			skip("somebody uses key %d", keys[i]);
		remember_queue((int)must(id));
		expect_int(id, msgget(keys[i], 0));
		expect_int(id, msgget(keys[i], IPC_CREAT | 0600));
		expect_errno(EEXIST, msgget(keys[i], IPC_CREAT | IPC_EXCL | 0600));
		expect_true(status_of(id).msg_perm.__key == keys[i]);
		must(put_byte(id, 1, 'k', 0));
		expect_int('k', get_byte(id, 0, IPC_NOWAIT));
		expect_int(0, msgctl(id, IPC_RMID, NULL));
		expect_errno(ENOENT, msgget(keys[i], 0));
	}
}

static void eexist_comes_before_eacces(void)
{
	key_t key = new_key();
	new_keyed_queue(key, 0);
	become(NOBODY, NOBODY);
	expect_errno(EEXIST, msgget(key, IPC_CREAT | IPC_EXCL | 0666));
	expect_errno(EACCES, msgget(key, IPC_CREAT | 0666));
	expect_errno(EACCES, msgget(key, 0666));
}

static void expect_gone(int id)
{
	struct msqid_ds s;
	memset(&s, 0, sizeof s);
	expect_errno(EINVAL, put_byte(id, 1, 'x', IPC_NOWAIT));
	expect_errno(EINVAL, get_byte(id, 0, IPC_NOWAIT));
	expect_errno(EINVAL, msgctl(id, IPC_STAT, &s));
	expect_errno(EINVAL, msgctl(id, IPC_SET, &s));
	expect_errno(EINVAL, msgctl(id, IPC_RMID, NULL));
}

static void removed_ids_stay_invalid(void)
{
	int first = new_queue(0600);
	must(put_byte(first, 1, 'a', 0));
	expect_int(0, msgctl(first, IPC_RMID, NULL));
	expect_gone(first);
	/* More rounds than the shortest cycle of places (64): the place comes round again. */
	for (int i = 0; i < 200; i++) {
		int id = new_queue(0600);
		expect_true(id != first);
		expect_int(0, status_of(id).msg_qnum);
		expect_int(0, msgctl(id, IPC_RMID, NULL));
		expect_gone(id);
	}
	expect_gone(first);
}

static void no_flags_succeeds_for_anybody(void)
{
	key_t key = new_key();
	int id = new_keyed_queue(key, 0);
	become(NOBODY, NOBODY);
	expect_int(id, msgget(key, 0));
	expect_int(id, msgget(key, IPC_CREAT));
	expect_errno(EACCES, get_byte(id, 0, IPC_NOWAIT));
}

static void mode_bits_ask_for_permission(void)
{
	key_t readable = new_key(), writable = new_key();
	int r = new_keyed_queue(readable, 0604);
	int w = new_keyed_queue(writable, 0602);
	become(NOBODY, NOBODY);
	/* Which of the three digits asks makes no difference. */
	expect_int(r, msgget(readable, 0400));
	expect_int(r, msgget(readable, 0040));
	expect_int(r, msgget(readable, 0004));
	expect_errno(EACCES, msgget(readable, 0200));
	expect_errno(EACCES, msgget(readable, 0020));
	expect_errno(EACCES, msgget(readable, 0600));
	expect_errno(EACCES, msgget(readable, 0100));
	expect_errno(EACCES, msgget(readable, IPC_CREAT | 0666));
	expect_int(w, msgget(writable, 0200));
	expect_int(w, msgget(writable, 0002));
	expect_errno(EACCES, msgget(writable, 0400));
}

static void missing_key_is_enoent(void)
{
	key_t key = new_key();
	expect_errno(ENOENT, msgget(key, 0));
	expect_errno(ENOENT, msgget(key, 0666));
	expect_errno(ENOENT, msgget(key, IPC_EXCL | 0666));
}

static int *many_queues(int count)
{
	int *ids = calloc((size_t)count, sizeof *ids);
	for (int i = 0; i < count; i++)
		ids[i] = (int)must(msgget(IPC_PRIVATE, 0600));
	return ids;
}

static int compare_ints(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

static void ids_are_distinct_and_not_negative(void)
{
	int *ids = many_queues(300), sorted[300];
	memcpy(sorted, ids, sizeof sorted);
	qsort(sorted, 300, sizeof sorted[0], compare_ints);
	for (int i = 0; i < 300; i++) {
		expect_true(sorted[i] >= 0);
		expect_true(i == 0 || sorted[i] != sorted[i - 1]);
		expect_true((ids[i] & 0x7fff) < 32768);
	}
	for (int i = 0; i < 300; i++)
		expect_int(0, msgctl(ids[i], IPC_RMID, NULL));
}

static void two_thousand_queues(void)
{
	int *ids = many_queues(2000);
	struct msg m;
	for (int i = 0; i < 2000; i++)
		expect_int(0, put(ids[i], i + 1, 8, (unsigned)i, 0));
	for (int i = 1999; i >= 0; i--) {
		expect_int(8, msgrcv(ids[i], &m, sizeof m.text, 0, IPC_NOWAIT));
		expect_int(i + 1, m.type);
		expect_true(text_is(m.text, 8, (unsigned)i));
		expect_int(0, msgctl(ids[i], IPC_RMID, NULL));
	}
}

static void sparse_queues(void)
{
	int *ids = many_queues(2000), *more;
	for (int i = 0; i < 2000; i++)
		if (i % 100)
			expect_int(0, msgctl(ids[i], IPC_RMID, NULL));
	more = many_queues(200);
	for (int i = 0; i < 2000; i += 100)
		expect_int(0, put_byte(ids[i], 1, i / 100, 0));
	for (int i = 0; i < 200; i++) {
		expect_int(0, status_of(more[i]).msg_qnum);
		expect_int(0, msgctl(more[i], IPC_RMID, NULL));
	}
	for (int i = 0; i < 2000; i++) {
		if (i % 100) {
			expect_errno(EINVAL, put_byte(ids[i], 1, 0, 0));
		} else {
			expect_int(i / 100, get_byte(ids[i], 0, IPC_NOWAIT));
			expect_int(0, msgctl(ids[i], IPC_RMID, NULL));
		}
	}
}

static void key_is_free_after_removal(void)
{
	key_t key = new_key();
	int old = new_keyed_queue(key, 0600);
	expect_int(0, msgctl(old, IPC_RMID, NULL));
	expect_errno(ENOENT, msgget(key, 0));
	int id = new_keyed_queue(key, 0600);
	expect_true(id != old);
	expect_int(id, msgget(key, 0));
	expect_errno(EINVAL, put_byte(old, 1, 'x', 0));
}

static void same_key_in_another_process(void)
{
	key_t key = new_key();
	pid_t pid = fork_child();
	if (pid == 0) {
		int id = new_keyed_queue(key, 0600);
		must(put_byte(id, 5, 'c', 0));
		_exit(0);
	}
	join(pid);
	int id = (int)must(msgget(key, IPC_CREAT | 0600));
	expect_int('c', get_byte(id, 5, IPC_NOWAIT));
}

static void creat_on_existing_changes_nothing(void)
{
	key_t key = new_key();
	int id = new_keyed_queue(key, 0640);
	struct msqid_ds before = status_of(id), after;
	expect_int(id, msgget(key, IPC_CREAT | 0600));
	after = status_of(id);
	expect_same_status(before, after);
}

static void mode_key_and_creator_are_recorded(void)
{
	static const int modes[] = { 0, 0777, 0111, 0640, 0421 };
	for (int i = 0; i < 5; i++) {
		key_t key = new_key();
		int id = new_keyed_queue(key, modes[i]);
		struct msqid_ds s;
		memset(&s, 0, sizeof s);
		if (geteuid() != 0 && !(modes[i] & 0400)) {
			expect_errno(EACCES, msgctl(id, IPC_STAT, &s));
			continue;
		}
		s = status_of(id);
		expect_int(modes[i], s.msg_perm.mode);
		expect_int(key, s.msg_perm.__key);
		expect_int(geteuid(), s.msg_perm.uid);
		expect_int(geteuid(), s.msg_perm.cuid);
		expect_int(getegid(), s.msg_perm.gid);
		expect_int(getegid(), s.msg_perm.cgid);
	}
}

/* Start `count` children at one moment on the same key, `rounds` times; collect their ids or negated errno. */
static void race(int count, int rounds, int flags, void (*judge)(const int *results, int count, key_t key))
{
	struct { _Atomic int go; _Atomic int ready; _Atomic int done; int result[16]; } *s = shared_memory(sizeof *s);
	key_t keys[64];
	pid_t pids[16];
	for (int r = 0; r < rounds; r++)
		keys[r] = new_key();
	for (int c = 0; c < count; c++) {
		pids[c] = fork_child();
		if (pids[c] == 0) {
			for (int r = 0; r < rounds; r++) {
				s->ready++;
				while (s->go <= r)
					sched_yield();
				int id = msgget(keys[r], flags | 0600);
				s->result[c] = id == -1 ? -errno : id;
				s->done++;
			}
			_exit(0);
		}
	}
	for (int r = 0; r < rounds; r++) {
		while (s->ready < (r + 1) * count)
			nap(50);
		s->go = r + 1;
		while (s->done < (r + 1) * count)
			nap(50);
		judge(s->result, count, keys[r]);
	}
	for (int c = 0; c < count; c++)
		join(pids[c]);
}

static void judge_one_winner(const int *results, int count, key_t key)
{
	int winner = -1;
	for (int i = 0; i < count; i++) {
		if (results[i] >= 0) {
			expect_true(winner == -1);
			winner = results[i];
		} else {
			expect_int(EEXIST, -results[i]);
		}
	}
	expect_true(winner >= 0);
	expect_int(winner, msgget(key, 0));
	expect_int(0, msgctl(winner, IPC_RMID, NULL));
}

static void judge_all_same(const int *results, int count, key_t key)
{
	for (int i = 0; i < count; i++)
		expect_int(results[0], results[i]);
	expect_int(results[0], msgget(key, 0));
	expect_int(0, msgctl(results[0], IPC_RMID, NULL));
}

static void one_exclusive_creator_wins(void)
{
	race(6, 40, IPC_CREAT | IPC_EXCL, judge_one_winner);
}

static void all_creators_get_the_same_queue(void)
{
	race(6, 40, IPC_CREAT, judge_all_same);
}

static void wait_nanoseconds(long most)
{
	struct timespec begun, now;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - begun.tv_sec) * 1000000000L + now.tv_nsec - begun.tv_nsec < most);
}

/* A creator that is stopped in the middle of msgget is neither waited for nor passed over: who comes meanwhile, who looks
 * for the first time when the creator goes on, and the creator itself, all get the same queue. */
static void stopped_creator_gets_the_same_queue(void)
{
	enum { ROUNDS = 1000 };
	struct { _Atomic int go, watch, id, seen; key_t key; } *s = shared_memory(sizeof *s);
	pid_t creator = fork_child();
	if (creator == 0) {
		for (int r = 1;; r++) {
			while (s->go < r)
				;
			s->id = msgget(s->key, IPC_CREAT | 0600);
		}
	}
	pid_t watcher = fork_child();
	if (watcher == 0) {
		for (int r = 1;; r++) {
			while (s->watch < r)
				sched_yield();
			wait_nanoseconds(r % 97 * 300L);
			s->seen = msgget(s->key, 0);
		}
	}
	for (int r = 1; r <= ROUNDS; r++) {
		s->key = new_key();
		s->id = s->seen = -2;
		s->go = r;
		/* Up to about as long as a creation takes. */
		wait_nanoseconds(r % 101 * 1000L);
		kill(creator, SIGSTOP);
		int status;
		waitpid(creator, &status, WUNTRACED);
		int id = msgget(s->key, IPC_CREAT | 0600);
		s->watch = r;
		kill(creator, SIGCONT);
		while (s->id == -2 || s->seen == -2)
			nap(20);
		expect_int(id, s->id);
		expect_int(id, s->seen);
		expect_int(id, msgget(s->key, 0));
		expect_int(0, msgctl(id, IPC_RMID, NULL));
	}
	kill(creator, SIGKILL);
	kill(watcher, SIGKILL);
	waitpid(creator, NULL, 0);
	waitpid(watcher, NULL, 0);
}

static void creators_and_removers(void)
{
	key_t key = new_key();
	pid_t pids[4];
	for (int c = 0; c < 4; c++) {
		pids[c] = fork_child();
		if (pids[c] == 0) {
			for (int i = 0; i < 500; i++) {
				int id = (int)must(msgget(key, IPC_CREAT | 0600));
				if (put_byte(id, 1, c, IPC_NOWAIT) != 0 && errno != EINVAL && errno != EIDRM)
					fail("msgsnd: expected success, EINVAL or EIDRM, came %s", errno_name(errno));
				if (get_byte(id, 0, IPC_NOWAIT) == -1 && errno != EINVAL && errno != EIDRM && errno != ENOMSG)
					fail("msgrcv: expected success, EINVAL, EIDRM or ENOMSG, came %s", errno_name(errno));
				if (msgctl(id, IPC_RMID, NULL) != 0 && errno != EINVAL && errno != EIDRM)
					fail("IPC_RMID: expected success, EINVAL or EIDRM, came %s", errno_name(errno));
			}
			_exit(0);
		}
	}
	for (int c = 0; c < 4; c++)
		join(pids[c]);
	expect_errno(ENOENT, msgget(key, 0));
}

static void unknown_ids_are_invalid(void)
{
	int id = new_queue(0600);
	expect_gone(id ^ 0x40000000);
	expect_gone(INT_MAX);
	expect_gone(-1);
	expect_gone(INT_MIN);
	must(put_byte(id, 1, 'a', 0));
}

static void odd_flag_bits_are_ignored(void)
{
	key_t key = new_key();
	int odd = ~(IPC_CREAT | IPC_EXCL | 0777);
	expect_errno(ENOENT, msgget(key, odd));
	int id = remember_queue((int)must(msgget(key, IPC_CREAT | odd | 0600)));
	expect_int(0600, status_of(id).msg_perm.mode);
	expect_int(id, msgget(key, odd));
}

static const struct row rows[] = {
	ROW(private_always_creates),
	ROW(excl_without_creat_is_ignored),
	ROW(odd_keys_are_ordinary),
	ROW_ROOT(eexist_comes_before_eacces),
	ROW(removed_ids_stay_invalid),
	ROW_ROOT(no_flags_succeeds_for_anybody),
	ROW_ROOT(mode_bits_ask_for_permission),
	ROW(missing_key_is_enoent),
	ROW(ids_are_distinct_and_not_negative),
	ROW_LONG(two_thousand_queues, 30),
	ROW_LONG(sparse_queues, 30),
	ROW(key_is_free_after_removal),
	ROW(same_key_in_another_process),
	ROW(creat_on_existing_changes_nothing),
	ROW(mode_key_and_creator_are_recorded),
	ROW(one_exclusive_creator_wins),
	ROW(all_creators_get_the_same_queue),
	ROW(stopped_creator_gets_the_same_queue),
	ROW(creators_and_removers),
	ROW(unknown_ids_are_invalid),
	ROW(odd_flag_bits_are_ignored),
};

CHECK_MAIN("ids_keys", rows)
