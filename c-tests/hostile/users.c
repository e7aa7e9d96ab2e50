/*
 * Other users in one sticky directory: what a queue's mode forbids, the file system forbids.
 *
 *  1. a table of modes: which users can open the control file and the body for reading and writing; nobody else can. (Files are coarser
 *     than modes: who may only receive, or only send, can do both to the memory. README, "How it differs".)
 *  2. nobody but its owner removes, renames, truncates or gives away a queue's names and files, whatever its mode
 *  3. IPC_SET by an unprivileged creator: the new owner and group get in by an access control list; the old ones are let go
 *  4. a queue given away by root belongs to its new owner with all of its names: removal leaves nothing
 *  5. owners who are not the files' owners remove: the queue is gone for all; ten such leftovers of one key are in nobody's way; each
 *     goes when its creator comes by
 *  6. a new queue shows no old bytes, in none of its files, whatever was sent before
 *  7. what was received stays in the body until it is overwritten: only who may use the queue can see it
 *  8. a queue's hints, keys and indices are in nobody's hand: another user's forged link never leads to a queue of another key
 */
#include "files.h"

enum { A = 65001, B = 65002, C = 65003, GROUP = 65010 };

struct access {
	int mode;
	/* What user B, a member of GROUP, and user C, a stranger, can open: the body. */
	int b, c;
};

static int can_open(const char *path, int flags)
{
	int before = errno;
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	else if (errno != EACCES)
		fail("open %s: %s", path, strerror(errno));
	errno = before;
	return fd >= 0;
}

static void be_member(void)
{
	gid_t group = GROUP;
	if (setgroups(1, &group) != 0 || setresgid(B, B, B) != 0 || setresuid(B, B, B) != 0)
		fail("becoming B: %s", strerror(errno));
}

/* 1 */
static void mode(void)
{
	const struct access *a = row_arg();
	int *id = shared_memory(sizeof *id);

	in_fresh_process(
		if (setgroups(0, NULL) != 0 || setresgid(GROUP, GROUP, GROUP) != 0 || setresuid(A, A, A) != 0)
			fail("becoming A: %s", strerror(errno));
		umask(077);
		*id = (int)must(msgget(IPC_PRIVATE, a->mode));
		/* The creator can always get at it: it may remove it. */
		expect_true(can_open(control_of(*id), O_RDWR) && can_open(body_of(*id), O_RDWR))
	);
	in_fresh_process(
		be_member();
		expect_int(1, can_open(control_of(*id), O_RDONLY));
		expect_int(a->b, can_open(control_of(*id), O_RDWR));
		expect_int(a->b, can_open(body_of(*id), O_RDONLY));
		expect_int(a->b, can_open(body_of(*id), O_RDWR))
	);
	as_user(C,
		expect_int(1, can_open(control_of(*id), O_RDONLY));
		expect_int(a->c, can_open(control_of(*id), O_RDWR));
		expect_int(a->c, can_open(body_of(*id), O_RDONLY));
		expect_int(a->c, can_open(body_of(*id), O_RDWR))
	);
	as_user(A, expect_int(0, msgctl(*id, IPC_RMID, NULL)));
}

/* 2 */
static void not_theirs(void)
{
	int *id = shared_memory(sizeof *id);
	key_t key = new_key();

	as_user(A, *id = (int)must(msgget(key, IPC_CREAT | 0666)); expect_int(0, put_byte(*id, 1, 'x', 0)));
	as_user(B,
		const char *names[] = { control_of(*id), body_of(*id), link_of(key) };
		for (int i = 0; i < 3; i++) {
			expect_errno(EPERM, unlink(names[i]));
			expect_errno(EPERM, rename(names[i], name("mine.%lu", 0)));
			close((int)must(open(name("mine.%lu", 1), O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
			expect_errno(EPERM, rename(name("mine.%lu", 1), names[i]));
			expect_errno(EEXIST, link(name("mine.%lu", 1), names[i]));
			expect_errno(EEXIST, symlink("x", names[i]));
			unlink(name("mine.%lu", 1));
			expect_errno(EPERM, lchown(names[i], B, B));
			if (i < 2)
				expect_errno(EPERM, chmod(names[i], 0666));
		}
		expect_errno(EPERM, msgctl(*id, IPC_RMID, NULL));
		struct msqid_ds s = status_of(*id);
		expect_errno(EPERM, msgctl(*id, IPC_SET, &s));
		expect_int('x', get_byte(*id, 0, IPC_NOWAIT))
	);
	/* Without write permission not even its contents can be cut. */
	as_user(A, struct msqid_ds s = status_of(*id); s.msg_perm.mode = 0600; expect_int(0, msgctl(*id, IPC_SET, &s)));
	as_user(B,
		expect_errno(EACCES, truncate(control_of(*id), 0));
		expect_errno(EACCES, truncate(body_of(*id), 0));
		expect_errno(EACCES, msgget(key, 0600));
		expect_errno(EACCES, put_byte(*id, 1, 'x', IPC_NOWAIT));
		expect_errno(EEXIST, msgget(key, IPC_CREAT | IPC_EXCL | 0600))
	);
	as_user(A, expect_int(0, msgctl(*id, IPC_RMID, NULL)));
}

static int lists_work(void)
{
	int fd = (int)must(open(name("acl", 0), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	int works = fgetxattr(fd, "system.posix_acl_access", NULL, 0) >= 0 || errno == ENODATA;
	unlink(name("acl", 0));
	close(fd);
	return works;
}

/* 3 */
static void given_away_by_a_user(void)
{
	int *id = shared_memory(sizeof *id);

	if (!lists_work())
		skip("no access control lists on this file system");
	as_user(A,
		*id = (int)must(msgget(IPC_PRIVATE, 0600));
		struct msqid_ds s = status_of(*id);
		s.msg_perm.uid = B;
		expect_int(0, msgctl(*id, IPC_SET, &s))
	);
	as_user(B, expect_true(can_open(body_of(*id), O_RDWR)); expect_int(0, put_byte(*id, 1, 'b', IPC_NOWAIT)));
	as_user(C, expect_true(!can_open(body_of(*id), O_RDONLY)); expect_errno(EACCES, put_byte(*id, 1, 'c', IPC_NOWAIT)));
	/* B gives it on to C: B is out, A, the creator, is in for ever. */
	as_user(B, struct msqid_ds s = status_of(*id); s.msg_perm.uid = C; expect_int(0, msgctl(*id, IPC_SET, &s)));
	as_user(B, expect_errno(EACCES, put_byte(*id, 1, 'b', IPC_NOWAIT)));
	as_user(A, expect_int('b', get_byte(*id, 0, IPC_NOWAIT)));
	/* B does not own the files: only their owner can change the list. Until A does, B's name stands in it. */
	as_user(A, struct msqid_ds s = status_of(*id); expect_int(0, msgctl(*id, IPC_SET, &s)));
	as_user(B, expect_true(!can_open(body_of(*id), O_RDONLY)));
	as_user(C, expect_int(0, put_byte(*id, 1, 'c', IPC_NOWAIT)); expect_int('c', get_byte(*id, 0, IPC_NOWAIT)));
	as_user(A, expect_int(0, msgctl(*id, IPC_RMID, NULL)));
}

/* 4 */
static void given_away_by_root(void)
{
	key_t key = new_key();
	for (int round = 0; round < 10; round++) {
		int id = (int)must(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
		struct msqid_ds s = status_of(id);
		s.msg_perm.uid = B;
		s.msg_perm.gid = B;
		expect_int(0, msgctl(id, IPC_SET, &s));
		as_user(B, expect_int(id, msgget(key, 0)); expect_int(0, put_byte(id, 1, 'b', IPC_NOWAIT)); expect_int(0, msgctl(id, IPC_RMID, NULL)));
		as_user(B, expect_errno(ENOENT, msgget(key, 0)));
		expect_errno(EINVAL, msgctl(id, IPC_STAT, &s));
		for (int slot = 0; slot < 64; slot++)
			expect_int(-1, readlink(link_slot(key, slot), (char[16]){ 0 }, 16));
		expect_int(-1, access(control_of(id), F_OK));
		expect_int(-1, access(body_of(id), F_OK));
	}
}

/* 5 */
static void leftovers_of_one_key(void)
{
	enum { ROUNDS = 10 };
	key_t key = new_key();
	int *ids = shared_memory(ROUNDS * sizeof *ids);
	int *last = shared_memory(sizeof *last);
	struct result *r = shared_memory(sizeof *r);

	if (!lists_work())
		skip("no access control lists on this file system");
	for (int i = 0; i < ROUNDS; i++) {
		as_user(66000 + (unsigned)i,
			ids[i] = (int)must(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
			struct msqid_ds s = status_of(ids[i]);
			s.msg_perm.uid = B;
			expect_int(0, msgctl(ids[i], IPC_SET, &s))
		);
		pid_t sleeper = blocked_receiver_as(66000 + (unsigned)i, r, ids[i], 10, 0, 0);
		as_user(B, expect_int(ids[i], msgget(key, 0)); expect_int(0, msgctl(ids[i], IPC_RMID, NULL)));
		join(sleeper);
		expect_result(r, -1, EIDRM);
		as_user(C, expect_errno(ENOENT, msgget(key, 0)); expect_errno(EINVAL, put_byte(ids[i], 1, 'c', IPC_NOWAIT)));
		expect_int(0, access(control_of(ids[i]), F_OK)); /* or this shows nothing */
	}
	as_user(C,
		*last = (int)must(msgget(key, IPC_CREAT | IPC_EXCL | 0666));
		expect_errno(EEXIST, msgget(key, IPC_CREAT | IPC_EXCL | 0666))
	);
	as_user(B, expect_int(*last, msgget(key, IPC_CREAT | 0666)); expect_int(0, put_byte(*last, 1, 'b', IPC_NOWAIT)));
	/* Each creator who comes by takes its own away. */
	for (int i = 0; i < ROUNDS; i++) {
		as_user(66000 + (unsigned)i, expect_int(*last, msgget(key, 0)));
		expect_int(-1, access(control_of(ids[i]), F_OK));
		expect_int(-1, access(body_of(ids[i]), F_OK));
	}
	as_user(A, expect_int(*last, msgget(key, 0)); expect_int('b', get_byte(*last, 0, IPC_NOWAIT)));
	as_user(C, expect_int(0, msgctl(*last, IPC_RMID, NULL)));
	as_user(A, expect_errno(ENOENT, msgget(key, 0)));
	/* The fourth link stays as a mark that there may be more. */
	for (int slot = 0; slot < 64; slot++)
		expect_int(slot == 3 ? 0 : -1, readlink(link_slot(key, slot), (char[16]){ 0 }, 16) >= 0 ? 0 : -1);
	as_user(A, int id = (int)must(msgget(key, IPC_CREAT | 0600)); expect_int(id, msgget(key, 0)); expect_int(0, msgctl(id, IPC_RMID, NULL)));
	unlink(link_slot(key, 3));
}

static int holds(const char *path, const char *secret)
{
	static char block[1 << 16];
	int found = 0, fd = (int)must(open(path, O_RDONLY | O_CLOEXEC));
	for (off_t at = 0; !found && (at = lseek(fd, at, SEEK_DATA)) >= 0; at += sizeof block - 64) {
		ssize_t n = pread(fd, block, sizeof block, at);
		found = n > 0 && memmem(block, (size_t)n, secret, strlen(secret)) != NULL;
		if (n < (ssize_t)sizeof block)
			break;
	}
	close(fd);
	return found;
}

/* 6 and 7 */
static void old_bytes(void)
{
	static const char secret[] = "a secret that was sent";
	struct { long type; char text[6000]; } m = { .type = 1 };
	int id;

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i + sizeof secret < sizeof m.text; i += sizeof secret)
			memcpy(m.text + i, secret, sizeof secret);
		id = (int)must(msgget(IPC_PRIVATE, 0600));
		expect_true(!holds(body_of(id), secret) && !holds(control_of(id), secret));
		for (int i = 0; i < 20; i++)
			expect_int(0, msgsnd(id, &m, i % 2 ? 60 : 500, IPC_NOWAIT));
		expect_true(holds(body_of(id), secret)); /* or this shows nothing */
		expect_true(!holds(control_of(id), secret));
		for (int i = 0; i < 20; i++)
			must(msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT));
		/* Documented: freed text is not wiped, and the body is for those who may use the queue. */
		expect_true(holds(body_of(id), secret));
		expect_true(!holds(control_of(id), secret));
		as_user(B, expect_true(!can_open(body_of(id), O_RDONLY)));
		/* A longer buffer gets no more than what was sent. */
		memset(m.text, '.', sizeof m.text);
		expect_int(0, put_byte(id, 1, 'x', 0));
		expect_int(1, msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT));
		expect_true(m.text[0] == 'x' && m.text[1] == '.');
		expect_int(0, msgctl(id, IPC_RMID, NULL));
	}
}

/* 8 */
static void forged_links(void)
{
	key_t key = new_key(), other = new_key();
	int *id = shared_memory(2 * sizeof *id);

	as_user(A, id[0] = (int)must(msgget(other, IPC_CREAT | 0666)); expect_int(0, put_byte(id[0], 1, 'a', 0)));
	as_user(B, char digits[16]; snprintf(digits, sizeof digits, "%d", id[0]); must(symlink(digits, link_of(key))));
	as_user(C, expect_errno(ENOENT, msgget(key, 0)); id[1] = (int)must(msgget(key, IPC_CREAT | 0600)); expect_true(id[1] != id[0]));
	as_user(C, expect_int(id[1], msgget(key, 0600)); expect_int(0, msgctl(id[1], IPC_RMID, NULL)));
	as_user(A, expect_int('a', get_byte(id[0], 0, IPC_NOWAIT)); expect_int(0, msgctl(id[0], IPC_RMID, NULL)));
	unlink(link_of(key));
}

/* Whether everything goes with the system's protections on and off: they are global, so only on request. */
static void with_protections(void)
{
	static const char *const files[] = { "/proc/sys/fs/protected_regular", "/proc/sys/fs/protected_symlinks",
		"/proc/sys/fs/protected_hardlinks", "/proc/sys/fs/protected_fifos" };
	char before[4][8];
	int fd[4];
	const char *allowed = getenv("HOSTILE_SYSCTL");

	if (!allowed || strcmp(allowed, "1") != 0)
		skip("fs.protected_* are the whole machine's; HOSTILE_SYSCTL=1 allows to change them for a second");
	for (int i = 0; i < 4; i++) {
		fd[i] = open(files[i], O_RDWR | O_CLOEXEC);
		if (fd[i] < 0)
			skip("%s: %s", files[i], strerror(errno));
		before[i][must(pread(fd[i], before[i], 7, 0))] = 0;
	}
	for (int on = 0; on < 3; on++) {
		for (int i = 0; i < 4; i++) {
			char value[2] = { (char)('0' + (on && (i == 0 || i == 3) ? on : !!on)), 0 };
			if (pwrite(fd[i], value, 1, 0) != 1)
				break;
		}
		pid_t pid = fork_child();
		if (pid == 0) {
			not_theirs();
			forged_links();
			given_away_by_root();
			given_away_by_a_user();
			_exit(0);
		}
		int status;
		waitpid(pid, &status, 0);
		for (int i = 0; i < 4; i++)
			if (pwrite(fd[i], before[i], strlen(before[i]), 0) < 0)
				fail("%s cannot be put back to %s", files[i], before[i]);
		expect_true(status == 0);
	}
}

static const struct access modes[] = {
	{ 0600, 0, 0 }, { 0660, 1, 0 }, { 0640, 1, 0 }, { 0620, 1, 0 }, { 0666, 1, 1 }, { 0604, 0, 1 }, { 0602, 0, 1 }, { 0606, 0, 1 },
	{ 0000, 0, 0 }, { 0777, 1, 1 }, { 0111, 0, 0 }, { 0060, 1, 0 }, { 0006, 0, 1 },
};

#define MODE(number, title) { .name = "mode_" title, .run = mode, .user = AS_ROOT, .arg = &modes[number] }

static const struct row rows[] = {
	MODE(0, "0600"), MODE(1, "0660"), MODE(2, "0640"), MODE(3, "0620"), MODE(4, "0666"), MODE(5, "0604"), MODE(6, "0602"),
	MODE(7, "0606"), MODE(8, "0000"), MODE(9, "0777"), MODE(10, "0111"), MODE(11, "0060"), MODE(12, "0006"),
	ROW_ROOT(not_theirs),
	ROW_ROOT(given_away_by_a_user),
	ROW_ROOT(given_away_by_root),
	ROW_ROOT(leftovers_of_one_key),
	ROW_ROOT(old_bytes),
	ROW_ROOT(forged_links),
	ROW_ROOT(with_protections),
};

CHECK_MAIN("users", rows)
