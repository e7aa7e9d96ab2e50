/*
 * Ways: how programs reach the queues, and what they learn of them, beside the four functions.
 *
 *  1. /proc/sysvipc/msg: headings, and a line per queue in the order of indices, for everybody; by each function that opens files
 *  2. /proc/sys/kernel/msgmax, msgmnb, msgmni, msg_next_id: what is written is read, and acts at once, also on queues in use elsewhere
 *  3. a descriptor that stays open acts with each write from the beginning; a shorter number over a longer one is that number
 *  4. what is no number within bounds changes nothing; only root may write
 *  5. msg_next_id names the next identifier, or the first free index above it; once
 *  6. access, stat and their like answer for these files; flags of open mean what they do for any file
 *  7. other files: results, errno, modes, descriptors and EFAULT are those of the C library; open is a cancellation point, may be used in
 *     signal handlers and after vfork, and by a constructor that runs before any of ours
 *  8. dlopen with RTLD_DEEPBIND: the module is on the same queues; the caller's search path counts
 *  9. syscall: six arguments, errno, and no cancellation point
 * 10. cancellation unwinds: cleanups run once, inner before outer, may use the queue, and the cancellation type is as it was
 */
#include "check.h"

#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/syscall.h>

extern int module_early;
extern int __open_2(const char *, int), __open64_2(const char *, int), __openat_2(int, const char *, int), __openat64_2(int, const char *, int);

static const char heading[] = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n";

static const char *const table = "/proc/sysvipc/msg";

/* ---- opening ---- */

enum way { OPEN, OPEN64, OPENAT, OPENAT64, OPEN_2, OPEN64_2, OPENAT_2, OPENAT64_2, FOPEN, FOPEN64, WAYS };

static int opened_by(enum way way, const char *name, int flags)
{
	const char *mode = (flags & O_ACCMODE) == O_RDONLY ? "re" : (flags & O_ACCMODE) == O_WRONLY ? "we" : "r+e";
	FILE *f;
	int fd;
	switch (way) {
	case OPEN: return open(name, flags);
	case OPEN64: return open64(name, flags);
	case OPENAT: return openat(AT_FDCWD, name, flags);
	case OPENAT64: return openat64(-1, name, flags);
	case OPEN_2: return __open_2(name, flags);
	case OPEN64_2: return __open64_2(name, flags);
	case OPENAT_2: return __openat_2(AT_FDCWD, name, flags);
	case OPENAT64_2: return __openat64_2(AT_FDCWD, name, flags);
	default:
		f = way == FOPEN ? fopen(name, mode) : fopen64(name, mode);
		if (!f)
			return -1;
		fd = dup(fileno(f));
		fclose(f);
		return fd;
	}
}

static char *contents(enum way way, const char *name)
{
	static char text[20000];
	int fd = (int)must(opened_by(way, name, O_RDONLY));
	size_t length = 0;
	ssize_t count;
	while ((count = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += (size_t)count;
	text[length] = 0;
	close(fd);
	return text;
}

static const char *path_of(const char *limit)
{
	static char path[64];
	snprintf(path, sizeof path, "/proc/sys/kernel/%s", limit);
	return path;
}

static long limit(const char *name)
{
	return strtol(contents(OPEN, path_of(name)), NULL, 10);
}

static void set_limit_by(enum way way, const char *name, const char *text)
{
	int fd = opened_by(way, path_of(name), O_WRONLY);
	if (fd < 0)
		skip("%s cannot be set: %s", name, strerror(errno));
	expect_int(strlen(text), write(fd, text, strlen(text)));
	close(fd);
}

static void set_limit(const char *name, const char *text)
{
	set_limit_by(OPEN, name, text);
}

static void own_limits(void)
{
	if (unshare(CLONE_NEWIPC) != 0)
		skip("no IPC namespace of our own: %s", strerror(errno));
	/* Our queues do not know that namespace. */
	set_limit("msgmax", "8192\n");
	set_limit("msgmnb", "16384\n");
	set_limit("msgmni", "32000\n");
}

/* ---- the table ---- */

static void add_line(char *to, int id)
{
	struct msqid_ds s = status_of(id);
	sprintf(to + strlen(to), "%10d %10d  %4o  %10lu %10lu %5u %5u %5u %5u %5u %5u %10llu %10llu %10llu\n", (int)s.msg_perm.__key, id,
		(unsigned)s.msg_perm.mode, s.__msg_cbytes, s.msg_qnum, (unsigned)s.msg_lspid, (unsigned)s.msg_lrpid, s.msg_perm.uid, s.msg_perm.gid,
		s.msg_perm.cuid, s.msg_perm.cgid, (unsigned long long)s.msg_stime, (unsigned long long)s.msg_rtime,
		(unsigned long long)s.msg_ctime);
}

static void table_tells_all(void)
{
	char want[4096];
	int before = strcmp(contents(OPEN, table), heading) != 0, ids[3];
	if (before)
		skip("there are queues already");
	ids[0] = new_keyed_queue(-1, 0640);
	ids[1] = new_queue(0);
	ids[2] = new_keyed_queue(0x1234, 0777);
	must(put(ids[0], 1, 1000, 0, 0));
	must(put(ids[0], 1, 1, 0, 0));
	must(put(ids[2], 5, 1, 0, 0));
	must(get_byte(ids[2], 0, 0));
	strcpy(want, heading);
	for (int i = 0; i < 3; i++)
		add_line(want, ids[i]);
	for (enum way way = 0; way < WAYS; way++)
		if (strcmp(want, contents(way, table)) != 0)
			fail("way %d: expected\n%scame\n%s", way, want, contents(way, table));
	if (geteuid() == 0) {
		become(NOBODY, NOBODY);
		expect_int(0, strcmp(want, contents(OPEN, table)));
	}
}

static void table_is_read_in_pieces(void)
{
	char whole[4096], text[4096];
	size_t length = 0;
	for (int i = 0; i < 10; i++)
		new_queue(0600);
	strcpy(whole, contents(FOPEN, table));
	int fd = (int)must(open(table, O_RDONLY));
	for (ssize_t count; length < sizeof text && (count = read(fd, text + length, 7)) > 0;)
		length += (size_t)count;
	expect_int(strlen(whole), length);
	expect_int(0, memcmp(whole, text, length));
	expect_int(0, lseek(fd, 0, SEEK_SET));
	expect_int(7, read(fd, text, 7));
	expect_int(0, memcmp(whole, text, 7));
}

/* ---- limits ---- */

static void limits_are_read(void)
{
	own_limits();
	for (enum way way = 0; way < WAYS; way++) {
		expect_int(0, strcmp("8192\n", contents(way, path_of("msgmax"))));
		expect_int(0, strcmp("16384\n", contents(way, path_of("msgmnb"))));
		expect_int(0, strcmp("32000\n", contents(way, path_of("msgmni"))));
	}
	become(NOBODY, NOBODY);
	expect_int(8192, limit("msgmax"));
}

static void limits_are_written(void)
{
	struct msginfo info;
	char text[16];
	own_limits();
	for (enum way way = 0; way < WAYS; way++) {
		sprintf(text, "%d\n", 1000 + (int)way);
		set_limit_by(way, "msgmax", text);
		expect_int(0, strcmp(text, contents(WAYS - 1 - way, path_of("msgmax"))));
		sprintf(text, "%d\n", 2000 + (int)way);
		set_limit_by(way, "msgmnb", text);
		sprintf(text, "%d\n", 3000 + (int)way);
		set_limit_by(way, "msgmni", text);
		must(msgctl(0, IPC_INFO, (struct msqid_ds *)&info));
		expect_int(1000 + (int)way, info.msgmax);
		expect_int(2000 + (int)way, info.msgmnb);
		expect_int(3000 + (int)way, info.msgmni);
		int id = (int)must(msgget(IPC_PRIVATE, 0600));
		expect_int(2000 + (int)way, status_of(id).msg_qbytes);
		must(msgctl(id, IPC_RMID, NULL));
	}
	own_limits();
}

static void what_is_no_limit_changes_nothing(void)
{
	static const char *const bad[] = { "-1\n", "abc\n", "2147483648\n", "12x\n", "\n", "99999999999999999999\n" };
	own_limits();
	set_limit("msgmax", "777\n");
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int fd = (int)must(open(path_of("msgmax"), O_WRONLY | O_TRUNC));
		/* The kernel says EINVAL. */
		(void)!write(fd, bad[i], strlen(bad[i]));
		close(fd);
		expect_int(777, limit("msgmax"));
	}
	set_limit("msgmax", "0x10\n");
	expect_int(16, limit("msgmax"));
	set_limit("msgmax", " 010\n");
	expect_int(8, limit("msgmax"));
	set_limit("msgmni", "32768\n");
	(void)!write((int)must(open(path_of("msgmni"), O_WRONLY)), "32769\n", 6);
	expect_int(32768, limit("msgmni"));
	own_limits();
}

static void only_root_writes(void)
{
	own_limits();
	become(NOBODY, NOBODY);
	for (enum way way = 0; way < WAYS; way++) {
		expect_errno(EACCES, opened_by(way, path_of("msgmax"), O_WRONLY));
		expect_errno(EACCES, opened_by(way, path_of("msgmni"), O_RDWR));
		expect_errno(EACCES, opened_by(way, path_of("msg_next_id"), O_WRONLY));
		expect_errno(EACCES, opened_by(way, table, O_RDWR));
	}
	expect_errno(EACCES, access(path_of("msgmnb"), W_OK));
	expect_errno(EACCES, access(table, W_OK));
	expect_int(0, access(table, R_OK));
	expect_int(8192, limit("msgmax"));
}

struct elsewhere {
	_Atomic int turn;
	int value, error;
};

static void msgmax_acts_elsewhere(void)
{
	struct elsewhere *e = shared_memory(sizeof *e);
	static const struct { const char *limit; size_t length; int value; } turns[] = {
		{ "8192\n", 5000, 0 }, { "4999\n", 5000, -1 }, { "5000\n", 5000, 0 }, { "100\n", 101, -1 }, { "100\n", 100, 0 },
		{ "0\n", 1, -1 }, { "0\n", 0, 0 }, { "8192\n", 8192, 0 }, { "8192\n", 8193, -1 },
	};
	enum { N = sizeof turns / sizeof *turns };
	own_limits();
	int id = (int)must(msgget(IPC_PRIVATE, 0600));
	set_limit("msgmnb", "1000000\n");
	set_qbytes(id, 1000000);
	pid_t pid = fork_child();
	if (pid == 0) {
		char *m = calloc(1, 10000);
		*(long *)m = 1;
		for (int i = 0; i < N; i++) {
			while (e->turn != 2 * i + 1)
				nap(100);
			e->value = msgsnd(id, m, turns[i].length, IPC_NOWAIT);
			e->error = errno;
			e->turn = 2 * i + 2;
		}
		_exit(0);
	}
	for (int i = 0; i < N; i++) {
		set_limit("msgmax", turns[i].limit);
		e->turn = 2 * i + 1;
		while (e->turn != 2 * i + 2)
			nap(100);
		if (e->value != turns[i].value || (e->value && e->error != EINVAL))
			fail("turn %d: msgmax %.4s, %zu bytes: expected %d, came %d (%s)", i, turns[i].limit, turns[i].length, turns[i].value,
			     e->value, errno_name(e->error));
	}
	join(pid);
	must(msgctl(id, IPC_RMID, NULL));
	own_limits();
}

static void a_limit_is_kept_open(void)
{
	own_limits();
	int id = (int)must(msgget(IPC_PRIVATE, 0600)), fd = (int)must(open(path_of("msgmax"), O_WRONLY));
	expect_int(0, put(id, 1, 200, 0, IPC_NOWAIT));
	for (int i = 0; i < 20; i++) {
		must(lseek(fd, 0, SEEK_SET));
		expect_int(4, write(fd, i % 2 ? "199\n" : "200\n", 4));
		if (i % 2)
			expect_errno(EINVAL, put(id, 1, 200, 0, IPC_NOWAIT));
		else
			expect_int(0, put(id, 1, 200, 0, IPC_NOWAIT));
		expect_int(i % 2 ? 199 : 200, limit("msgmax"));
	}
	/* In the hands of a child that goes on when we have closed it. */
	pid_t pid = fork_child();
	if (pid == 0) {
		must(lseek(fd, 0, SEEK_SET));
		expect_int(4, write(fd, "150\n", 4));
		_exit(0);
	}
	close(fd);
	join(pid);
	expect_int(0, put(id, 1, 150, 0, IPC_NOWAIT));
	expect_errno(EINVAL, put(id, 1, 151, 0, IPC_NOWAIT));
	must(msgctl(id, IPC_RMID, NULL));
	own_limits();
}

static void a_shorter_number(void)
{
	own_limits();
	static const char *const texts[] = { "1000000", "5", "123456789\n", "7\n", "0" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		set_limit("msgmnb", texts[i]);
		expect_int(atol(texts[i]), limit("msgmnb"));
		/* What is read, written and read again by one stream. */
		FILE *f = fopen(path_of("msgmnb"), "r+");
		long value = -1;
		expect_int(1, fscanf(f, "%ld", &value));
		expect_int(atol(texts[i]), value);
		rewind(f);
		fprintf(f, "%ld\n", value / 2);
		fclose(f);
		expect_int(value / 2, limit("msgmnb"));
	}
	FILE *f = fopen(path_of("msgmnb"), "a");
	fputs("4321\n", f);
	fclose(f);
	expect_int(4321, limit("msgmnb"));
	own_limits();
}

static void next_identifier(void)
{
	own_limits();
	if (access(path_of("msg_next_id"), F_OK) != 0)
		skip("this kernel has no msg_next_id");
	expect_int(-1, limit("msg_next_id"));
	int first = (int)must(msgget(IPC_PRIVATE, 0600));
	set_limit("msg_next_id", "70000\n");
	expect_int(70000, limit("msg_next_id"));
	int wanted = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_int(70000, wanted);
	expect_int(-1, limit("msg_next_id"));
	int after = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_int(first + 1, after);
	set_limit("msg_next_id", "70000\n");
	int taken = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_int(70001, taken);
	set_limit("msg_next_id", "0\n");
	(void)!write((int)must(open(path_of("msg_next_id"), O_WRONLY)), "-1\n", 3);
	expect_int(0, limit("msg_next_id"));
	int lowest = (int)must(msgget(IPC_PRIVATE, 0600)); /* unless it is ours, index 0 is free */
	expect_true(lowest < 64);
	const int ids[] = { first, wanted, after, taken, lowest };
	for (int i = 0; i < 5; i++)
		must(msgctl(ids[i], IPC_RMID, NULL));
}

/* ---- asking ---- */

static void files_are_described(void)
{
	static const struct { const char *name; unsigned mode; } files[] = {
		{ "/proc/sysvipc/msg", 0444 }, { "/proc/sys/kernel/msgmax", 0644 }, { "/proc/sys/kernel/msgmnb", 0644 },
		{ "/proc/sys/kernel/msgmni", 0644 },
	};
	for (int i = 0; i < 4; i++) {
		const char *name = files[i].name;
		struct stat s[4];
		struct stat64 s64[3];
		struct statx x;
		must(stat(name, &s[0]));
		must(lstat(name, &s[1]));
		must(fstatat(AT_FDCWD, name, &s[2], 0));
		must(fstatat(-1, name, &s[3], AT_SYMLINK_NOFOLLOW));
		must(stat64(name, &s64[0]));
		must(lstat64(name, &s64[1]));
		must(fstatat64(AT_FDCWD, name, &s64[2], 0));
		must(statx(AT_FDCWD, name, 0, STATX_BASIC_STATS, &x));
		for (int j = 0; j < 4; j++) {
			expect_int(S_IFREG | files[i].mode, s[j].st_mode);
			expect_true(s[j].st_uid == 0 && s[j].st_gid == 0 && s[j].st_nlink == 1 && s[j].st_size == 0);
		}
		for (int j = 0; j < 3; j++)
			expect_int(S_IFREG | files[i].mode, s64[j].st_mode);
		expect_int(S_IFREG | files[i].mode, x.stx_mode);
		expect_int(0, access(name, R_OK));
		expect_int(0, eaccess(name, F_OK));
		expect_int(0, euidaccess(name, R_OK));
		expect_int(0, faccessat(AT_FDCWD, name, R_OK, 0));
		expect_errno(EACCES, access(name, X_OK));
		expect_errno(EFAULT, stat(name, (struct stat *)8));
	}
	struct stat s;
	expect_errno(ENOENT, stat("/proc/sysvipc/msg1", &s));
	expect_errno(ENOENT, access("/proc/sys/kernel/msgma", F_OK));
	expect_errno(ENOENT, open("/proc/sys/kernel/msgmaxi", O_RDONLY));
	expect_true(fopen("/proc/sysvipc/ms", "r") == NULL && errno == ENOENT);
}

static void flags_of_open(void)
{
	for (int i = 0; i < 2; i++) {
		const char *name = i ? path_of("msgmax") : table;
		expect_errno(EEXIST, open(name, O_RDONLY | O_CREAT | O_EXCL, 0600));
		expect_errno(ENOTDIR, open(name, O_RDONLY | O_DIRECTORY));
		int plain = (int)must(open(name, O_RDONLY)), closing = (int)must(open(name, O_RDONLY | O_CLOEXEC));
		expect_int(0, fcntl(plain, F_GETFD));
		expect_int(FD_CLOEXEC, fcntl(closing, F_GETFD));
		/* The lowest number that is free. */
		expect_int(plain + 1, closing);
		close(closing);
		close(plain);
		expect_int(plain, open(name, O_RDONLY));
		close(plain);
		FILE *f = fopen(name, "r");
		expect_int(plain, fileno(f));
		expect_int(0, fcntl(plain, F_GETFD));
		fclose(f);
		f = fopen(name, "re");
		expect_int(FD_CLOEXEC, fcntl(fileno(f), F_GETFD));
		fclose(f);
		errno = 0;
		expect_true(fopen(name, "q") == NULL && errno == EINVAL);
		errno = 77;
		int fd = open(name, O_RDONLY), kept = errno;
		expect_int(77, kept);
		close(fd);
	}
}

/* ---- other files ---- */

static void other_files_are_untouched(void)
{
	char directory[] = "/tmp/ways.XXXXXX", name[64];
	struct stat s;
	must(mkdtemp(directory) ? 0 : -1);
	sprintf(name, "%s/file", directory);
	umask(027);
	errno = 77;
	int fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0666), kept = errno;
	expect_int(77, kept);
	must(fstat(fd, &s));
	expect_int(S_IFREG | 0640, s.st_mode);
	expect_int(3, write(fd, "abc", 3));
	expect_errno(EEXIST, open64(name, O_CREAT | O_EXCL | O_RDWR, 0666));
	int at = (int)must(open(directory, O_DIRECTORY | O_RDONLY));
	int second = (int)must(openat(at, "second", O_CREAT | O_WRONLY, 0604));
	must(fstat(second, &s));
	expect_int(S_IFREG | 0600, s.st_mode);
	FILE *f = fopen(name, "r+");
	expect_int('a', fgetc(f));
	fclose(f);
	f = fopen64(name, "w");
	fclose(f);
	must(stat(name, &s));
	expect_int(0, s.st_size);
	expect_int(0, fstatat(at, "file", &s, 0));
	expect_int(0, faccessat(at, "second", W_OK, 0));
	expect_errno(ENOENT, open("", O_RDONLY));
	expect_errno(ENOTDIR, open("/dev/null/x", O_RDONLY));
	expect_errno(EISDIR, open("/", O_WRONLY));
	expect_errno(EBADF, openat(-1, "x", O_RDONLY));
	must(unlinkat(at, "second", 0));
	must(unlink(name));
	must(rmdir(directory));
}

static void bad_names(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(mprotect(pages + page, page, PROT_NONE));
	char *const bad[] = { NULL, (char *)-1, (char *)8, pages + page, pages + page - 2 };
	struct stat s;
	struct statx x;
	memcpy(pages + page - 2, "/p", 2);
	for (int i = 0; i < 5; i++) {
		char *volatile name = bad[i];
		for (enum way way = 0; way < WAYS; way++)
			expect_errno(EFAULT, opened_by(way, name, O_RDONLY));
		expect_errno(EFAULT, access(name, R_OK));
		expect_errno(EFAULT, faccessat(AT_FDCWD, name, R_OK, 0));
		expect_errno(EFAULT, stat(name, &s));
		expect_errno(EFAULT, lstat(name, &s));
		if (name) /* since Linux 6.11 a null name may mean the descriptor itself */
			expect_errno(EFAULT, statx(AT_FDCWD, name, 0, STATX_BASIC_STATS, &x));
	}
	/* Names that end where the page does. */
	static const char *const names[] = { "/", "/p", "/proc/sys", "x", "/proc/sysvipc/msg" };
	for (int i = 0; i < 5; i++) {
		char *name = pages + page - strlen(names[i]) - 1;
		strcpy(name, names[i]);
		errno = 0;
		int fd = open(name, O_RDONLY);
		expect_true(i == 1 || i == 3 ? fd == -1 && errno == ENOENT : fd >= 0);
		expect_int(i == 1 || i == 3 ? -1 : 0, access(name, R_OK));
	}
}

static volatile int handled;

static void open_in_handler(int signal)
{
	char text[8];
	int fd = open("/proc/sys/kernel/msgmax", O_RDONLY), other = open("/dev/null", O_RDONLY);
	(void)signal;
	handled = fd >= 0 && other >= 0 && read(fd, text, 8) > 1;
	close(fd);
	close(other);
}

static void in_handlers_and_after_vfork(void)
{
	int status;
	signal(SIGUSR1, open_in_handler);
	for (int i = 0; i < 100; i++) {
		handled = 0;
		raise(SIGUSR1);
		expect_int(1, handled);
	}
	pid_t pid = vfork();
	if (pid == 0) {
		int fd = open("/proc/sysvipc/msg", O_RDONLY);
		_exit(fd >= 0 && open("/dev/null", O_RDONLY) >= 0 && syscall(SYS_close, fd) == 0 ? 7 : 8);
	}
	waitpid(pid, &status, 0);
	expect_int(7, WEXITSTATUS(status));
}

static void constructors_before_ours(void)
{
	expect_int(31, module_early);
}

/* ---- dlopen ---- */

static void deep_binding(void)
{
	int id = new_queue(0600);
	/* By the search path of this program, that of the module, and an absolute name. */
	void *deep = dlopen("sub/libdeep.so", RTLD_NOW | RTLD_DEEPBIND), *deeper;
	char path[4096], *slash;
	expect_true(deep == NULL);
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
	must(length);
	path[length] = 0;
	slash = strrchr(path, '/');
	strcpy(slash, "/sub/libdeep.so");
	deep = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
	if (!deep)
		fail("expected to load %s, came %s", path, dlerror());
	void *(*load)(const char *);
	*(void **)&load = dlsym(deep, "module_load");
	expect_true(dlopen("libdeeper.so", RTLD_NOW) == NULL); /* not in our path */
	deeper = load("libdeeper.so");
	if (!deeper)
		fail("expected the module to find another beside itself, came %s", dlerror());
	expect_true(dlopen("libways.so", RTLD_NOW) != NULL); /* in ours */
	for (int i = 0; i < 2; i++) {
		int (*send)(int);
		*(void **)&send = dlsym(i ? deeper : deep, "module_send");
		must(send(id));
		expect_int('d', get_byte(id, 9, IPC_NOWAIT));
		expect_int(getpid(), status_of(id).msg_lspid);
	}
	expect_true(dlopen(NULL, RTLD_NOW | RTLD_DEEPBIND) != NULL);
	expect_int(0, dlclose(deep));
}

/* ---- syscall ---- */

static void six_arguments(void)
{
	char *page = (char *)syscall(SYS_mmap, NULL, 4096L, (long)(PROT_READ | PROT_WRITE), (long)(MAP_PRIVATE | MAP_ANONYMOUS), -1L, 0L);
	must(page == MAP_FAILED ? -1 : 0);
	strcpy(page, "here");
	char copy[8] = "";
	struct iovec to = { copy, 5 }, from = { page, 5 };
	expect_int(5, syscall(SYS_process_vm_readv, getpid(), &to, 1L, &from, 1L, 0L));
	expect_int(0, strcmp(copy, "here"));
	expect_errno(EINVAL, syscall(SYS_process_vm_readv, getpid(), &to, 1L, &from, 1L, 77L));
	expect_errno(ENOSYS, syscall(-1));
	expect_errno(ENOSYS, syscall(100000));
	errno = 77;
	long pid = syscall(SYS_getpid), uid = syscall(SYS_getuid);
	int kept = errno;
	expect_int(77, kept);
	expect_int(getpid(), pid);
	expect_int(getuid(), uid);
	expect_errno(EFAULT, syscall(SYS_msgsnd, -1, 8L, 0L, 0));
	expect_errno(EINVAL, syscall(SYS_msgctl, -1, IPC_STAT, 8L));
	expect_errno(ENOENT, syscall(SYS_msgget, 0x7654321, 0));
}

/* ---- cancellation ---- */

struct thread {
	int id, way;
	char fifo[64];
	_Atomic pid_t thread;
	_Atomic int go, cleanups, order, returned;
	int value, type, state;
};

static void *volatile scratch;

static void count_outer(void *arg)
{
	struct thread *t = arg;
	t->order = t->order * 10 + 2;
	t->cleanups++;
}

/* What a destructor is in C++: run by forced unwinding. */
static void leave_scope(struct thread **t)
{
	(*t)->order = (*t)->order * 10 + 1;
	(*t)->cleanups++;
	if ((*t)->way == 2) {
		/* The queue may be used here, and the call that was left is healed. */
		must(put_byte((*t)->id, 3, 'z', IPC_NOWAIT));
		expect_int('z', get_byte((*t)->id, 3, IPC_NOWAIT));
	}
}

static void *in_scopes(void *arg)
{
	struct thread *t = arg;
	pthread_cleanup_push(count_outer, t);
	{
		struct thread *scoped __attribute__((cleanup(leave_scope))) = t;
		scratch = &scoped;
		t->thread = thread_id();
		switch (t->way) {
		case 0: case 2: t->value = get_byte(t->id, 0, 0); break;
		case 1: t->value = put_byte(t->id, 1, 'c', 0); break;
		case 3: t->value = open(t->fifo, O_RDONLY); break;
		case 4: t->value = openat(AT_FDCWD, t->fifo, O_RDONLY); break;
		case 5: t->value = fopen(t->fifo, "r") != NULL; break;
		}
		t->returned++;
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static void cancelled(int way)
{
	struct thread t = { .way = way };
	pthread_t thread;
	void *end;
	t.id = new_queue(0600);
	if (way == 1) {
		set_qbytes(t.id, 1);
		must(put_byte(t.id, 1, 'f', 0));
	}
	if (way >= 3) {
		sprintf(t.fifo, "/tmp/ways.fifo.%d", (int)getpid());
		must(mkfifo(t.fifo, 0600));
	}
	pthread_create(&thread, NULL, in_scopes, &t);
	while (!t.thread)
		nap(100);
	wait_blocked(t.thread);
	pthread_cancel(thread);
	pthread_join(thread, &end);
	if (way >= 3)
		unlink(t.fifo);
	expect_true(end == PTHREAD_CANCELED);
	expect_int(0, t.returned);
	expect_int(2, t.cleanups);
	expect_int(12, t.order);
	expect_int(way == 1, status_of(t.id).msg_qnum);
}

static void cancelled_in_scopes(void)
{
	for (int i = 0; i < 10; i++)
		for (int way = 0; way < 3; way++)
			cancelled(way);
}

static void cancelled_while_opening(void)
{
	for (int way = 3; way < 6; way++)
		cancelled(way);
}

static void *keeps_type(void *arg)
{
	struct thread *t = arg;
	pthread_setcanceltype(t->way ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED, NULL);
	t->thread = thread_id();
	t->value = get_byte(t->id, 0, 0);
	pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &t->type);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &t->state);
	return NULL;
}

static void the_cancellation_type_stays(void)
{
	for (int way = 0; way < 2; way++) {
		struct thread t = { .way = way, .id = new_queue(0600) };
		pthread_t thread;
		pthread_create(&thread, NULL, keeps_type, &t);
		while (!t.thread)
			nap(100);
		wait_blocked(t.thread);
		must(put_byte(t.id, 1, 'k', 0));
		pthread_join(thread, NULL);
		expect_int('k', t.value);
		expect_int(way ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED, t.type);
		expect_int(PTHREAD_CANCEL_ENABLE, t.state);
	}
}

static void *through_syscall(void *arg)
{
	struct thread *t = arg;
	struct { long type; char text[1]; } m;
	t->thread = thread_id();
	t->value = (int)syscall(SYS_msgrcv, t->id, &m, 1L, 0L, 0);
	t->returned++;
	pthread_testcancel();
	t->returned++;
	return NULL;
}

static void syscall_is_no_cancellation_point(void)
{
	struct thread t = { .id = new_queue(0600) };
	pthread_t thread;
	void *end;
	pthread_create(&thread, NULL, through_syscall, &t);
	while (!t.thread)
		nap(100);
	wait_blocked(t.thread);
	pthread_cancel(thread);
	nap(20000);
	wait_blocked(t.thread);
	must(put_byte(t.id, 1, 's', 0));
	pthread_join(thread, &end);
	expect_true(end == PTHREAD_CANCELED);
	expect_int(1, t.value);
	expect_int(1, t.returned);
}

/* Cancelled at any moment around a message: either it was received, or it is still there. */
static void *receives_one(void *arg)
{
	struct thread *t = arg;
	t->thread = thread_id();
	t->value = get_byte(t->id, 0, 0);
	t->returned++;
	return NULL;
}

static void a_message_and_a_cancellation(void)
{
	for (int i = 0; i < 300; i++) {
		struct thread t = { .id = new_queue(0600) };
		pthread_t thread;
		void *end;
		pthread_create(&thread, NULL, receives_one, &t);
		while (!t.thread)
			nap(10);
		if (i % 3)
			wait_blocked(t.thread);
		if (i % 2)
			pthread_cancel(thread);
		must(put_byte(t.id, 1, 'x', 0));
		if (i % 2 == 0)
			pthread_cancel(thread);
		pthread_join(thread, &end);
		/* In the kernel a message may also end with the thread that it was handed to. */
		expect_true(status_of(t.id).msg_qnum <= (unsigned)!t.returned);
		must(put_byte(t.id, 1, 'y', IPC_NOWAIT));
		expect_true(get_byte(t.id, 0, IPC_NOWAIT) > 0);
		must(msgctl(t.id, IPC_RMID, NULL));
	}
}

static const struct row rows[] = {
	ROW(table_tells_all),
	ROW(table_is_read_in_pieces),
	ROW_ROOT(limits_are_read),
	ROW_ROOT(limits_are_written),
	ROW_ROOT(what_is_no_limit_changes_nothing),
	ROW_ROOT(only_root_writes),
	ROW_ROOT(msgmax_acts_elsewhere),
	ROW_ROOT(a_limit_is_kept_open),
	ROW_ROOT(a_shorter_number),
	ROW_ROOT(next_identifier),
	ROW(files_are_described),
	ROW(flags_of_open),
	ROW(other_files_are_untouched),
	ROW(bad_names),
	ROW(in_handlers_and_after_vfork),
	ROW(constructors_before_ours),
	ROW(deep_binding),
	ROW(six_arguments),
	ROW_LONG(cancelled_in_scopes, 20),
	ROW(cancelled_while_opening),
	ROW(the_cancellation_type_stays),
	ROW(syscall_is_no_cancellation_point),
	ROW_LONG(a_message_and_a_cancellation, 20),
};

CHECK_MAIN("ways", rows)
