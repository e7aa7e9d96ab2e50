/*
 * When something runs out: the errno, that nothing acknowledged is lost, and that all is well again once there is more.
 *
 *  1. a full file system: msgget and msgsnd say ENOMEM (or ENOSPC, when not even a name can be made), nobody gets SIGBUS; what was sent
 *     before is received whole and in order; room that comes back is used
 *  2. RLIMIT_FSIZE: too little for the smallest queue is ENOMEM; more, and the queue grows as far as that; never SIGXFSZ
 *  3. RLIMIT_AS: no address space for a queue is ENOMEM, for a new one and for an old one
 *  4. RLIMIT_NOFILE: no descriptor is ENOMEM where one is needed; queues in use need none
 *  5. more calls at once in a queue than it has participants: ENOMEM for those beyond 4095; the others sleep on and are woken
 *  6. all 32768 indices in use: ENOSPC; one that is free again is given out
 *  7. a directory that cannot be written (read-only, another user's), or is none: EACCES, ENOENT, ENOTDIR
 *  8. no /dev/shm: the next place is used
 *
 * To be run with USYSV_MSGMNB=67108864 and USYSV_MSGMNI=32768, so that the limits under test are the ones met.
 */
#include "files.h"


/* A file system of this size for the directory, in a mount namespace of the row's own. */
static void mount_small(const char *options)
{
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		skip("no mount namespace: %s", strerror(errno));
	if (mount("tmpfs", directory(), "tmpfs", 0, options) != 0)
		skip("no mount of tmpfs: %s", strerror(errno));
}

static void use(int id)
{
	expect_int(0, put(id, 3, 10, 5, IPC_NOWAIT));
	expect_int('x', (put_byte(id, 4, 'x', IPC_NOWAIT), get_byte(id, 4, IPC_NOWAIT)));
	struct msg m;
	expect_int(10, msgrcv(id, &m, sizeof m.text, 3, IPC_NOWAIT));
	expect_true(text_is(m.text, 10, 5));
}

/* 1 */
static void full_create(void)
{
	int ids[100], n;
	mount_small("size=200k,mode=1777");
	for (n = 0; n < 100; n++) {
		ids[n] = msgget(IPC_PRIVATE, 0600);
		if (ids[n] < 0)
			break;
	}
	expect_true(n > 5 && n < 100);
	expect_true(errno == ENOMEM || errno == ENOSPC);
	int names = count_names("usysv.");
	for (int i = 0; i < 5; i++)
		expect_true(msgget(IPC_PRIVATE, 0600) == -1 && (errno == ENOMEM || errno == ENOSPC));
	expect_int(names, count_names("usysv.")); /* nothing is left of an attempt that failed */
	for (int i = 0; i < n; i++)
		use(ids[i]);
	expect_int(0, msgctl(ids[0], IPC_RMID, NULL));
	use((int)must(msgget(IPC_PRIVATE, 0600)));
}

/* 1: no inodes left. */
static void full_of_names(void)
{
	int n = 0, id = -1, last = -1;
	mount_small("size=10m,nr_inodes=20,mode=1777");
	while (n < 100 && (id = msgget(IPC_PRIVATE, 0600)) >= 0) {
		last = id;
		n++;
	}
	expect_true(n > 2 && n < 100);
	expect_true(errno == ENOSPC || errno == ENOMEM);
	use(last);
	expect_int(0, msgctl(last, IPC_RMID, NULL));
	use((int)must(msgget(IPC_PRIVATE, 0600)));
}

/* 1: text of `length`. */
static void full_send(void)
{
	size_t length = (size_t)(long)row_arg();
	struct msg m;
	unsigned sent = 0, more, received = 0;
	int fd, id;

	mount_small("size=2m,mode=1777");
	id = (int)must(msgget(IPC_PRIVATE, 0600));
	set_qbytes(id, 64 << 20);
	/* Something else takes most of the room. */
	fd = (int)must(open(name("ballast", 0), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	expect_int(0, posix_fallocate(fd, 0, 1 << 20));
	while (put(id, 1 + sent % 3, length, sent, IPC_NOWAIT) == 0)
		if (++sent > 1000000)
			fail("the file system never got full");
	expect_true(errno == ENOMEM);
	for (int i = 0; i < 10; i++)
		expect_errno(ENOMEM, put(id, 1, length, 0, IPC_NOWAIT));
	expect_errno(ENOMEM, put(id, 1, length, 0, 0)); /* does not wait either */
	expect_int(sent, status_of(id).msg_qnum);
	expect_int(sent * length, status_of(id).__msg_cbytes);
	/* Room comes back. */
	must(ftruncate(fd, 1 << 19));
	for (more = 0; more < 10; more++)
		expect_int(0, put(id, 1 + (sent + more) % 3, length, sent + more, IPC_NOWAIT));
	/* And is gone again while others receive, by type too, which needs room for an index. */
	expect_int(0, posix_fallocate(fd, 0, 1 << 19));
	while (posix_fallocate(fd, (1 << 19) + received, 4096) == 0)
		received += 4096;
	received = 0;
	in_fresh_process(
		for (unsigned i = 0; i < sent / 2; i++) {
			expect_int(length, msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT));
			expect_true(m.type == 1 + i % 3 && text_is(m.text, length, i));
		}
	);
	for (long type = 1; type <= 3; type++)
		for (unsigned i = sent / 2; i < sent + more; i++)
			if (1 + i % 3 == type) {
				expect_int(length, msgrcv(id, &m, sizeof m.text, type, IPC_NOWAIT));
				expect_true(m.type == type && text_is(m.text, length, i));
			}
	expect_errno(ENOMSG, msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT));
	/* What it has, it can use again. */
	for (unsigned i = 0; i < sent; i++)
		expect_int(0, put(id, 1, length, i, IPC_NOWAIT));
	expect_int(0, msgctl(id, IPC_RMID, NULL));
}

/* 2 */
static void file_size_limited(void)
{
	static const struct { rlim_t limit; int made; } cases[] = {
		{ 0, 0 }, { 4096, 0 }, { 4 << 20, 0 }, { (4 << 20) + 4096, 1 }, { 5 << 20, 1 }, { RLIM_INFINITY, 1 },
	};
	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		int *id = shared_memory(sizeof *id), *sent = shared_memory(sizeof *sent);
		in_fresh_process(
			struct rlimit limit = { cases[c].limit, RLIM_INFINITY };
			must(setrlimit(RLIMIT_FSIZE, &limit));
			*id = msgget(IPC_PRIVATE, 0600);
			if (!cases[c].made) {
				expect_true(*id == -1);
				expect_true(errno == ENOMEM);
				_exit(0);
			}
			must(*id);
			if (cases[c].limit == RLIM_INFINITY)
				_exit(0);
			set_qbytes(*id, 64 << 20);
			while (put(*id, 1, 1000, (unsigned)*sent, IPC_NOWAIT) == 0)
				++*sent;
			expect_true(errno == ENOMEM)
		);
		if (*id < 0)
			continue;
		in_fresh_process(
			struct msg m;
			for (int i = 0; i < *sent; i++) {
				expect_int(1000, msgrcv(*id, &m, sizeof m.text, 0, IPC_NOWAIT));
				expect_true(text_is(m.text, 1000, (unsigned)i));
			}
			use(*id);
			expect_int(0, msgctl(*id, IPC_RMID, NULL))
		);
		if (cases[c].limit == 5 << 20)
			expect_true(*sent > 300);
	}
	expect_int(0, count_names("usysv.q."));
}

static rlim_t address_space(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (!f || fscanf(f, "%lu", &pages) != 1)
		fail("no /proc/self/statm");
	fclose(f);
	return pages * 4096;
}

/* 3 */
static void address_space_limited(void)
{
	int *id = shared_memory(2 * sizeof *id);
	struct msqid_ds s;
	in_fresh_process(id[0] = (int)must(msgget(IPC_PRIVATE, 0600)); expect_int(0, put_byte(id[0], 1, 'x', 0)));
	id[1] = (int)must(msgget(IPC_PRIVATE, 0600));
	struct rlimit before, limit;
	must(getrlimit(RLIMIT_AS, &before));
	limit = before;
	limit.rlim_cur = address_space() + (2 << 20);
	must(setrlimit(RLIMIT_AS, &limit));
	expect_errno(ENOMEM, msgget(IPC_PRIVATE, 0600));
	expect_errno(ENOMEM, msgctl(id[0], IPC_STAT, &s));
	expect_errno(ENOMEM, put_byte(id[0], 1, 'x', IPC_NOWAIT));
	expect_errno(ENOMEM, get_byte(id[0], 0, IPC_NOWAIT));
	/* One that is mapped already goes on. */
	use(id[1]);
	must(setrlimit(RLIMIT_AS, &before));
	expect_int('x', get_byte(id[0], 0, IPC_NOWAIT));
	expect_int(0, msgctl(id[0], IPC_RMID, NULL));
	expect_int(0, msgctl(id[1], IPC_RMID, NULL));
	expect_int(0, count_names("usysv.q."));
}

/* 4 */
static void descriptors_used_up(void)
{
	int *id = shared_memory(2 * sizeof *id);
	key_t key = new_key();
	in_fresh_process(id[0] = (int)must(msgget(key, IPC_CREAT | 0600)); expect_int(0, put_byte(id[0], 1, 'x', 0)));
	id[1] = (int)must(msgget(IPC_PRIVATE, 0600));
	struct rlimit before, limit;
	must(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = 0;
	must(setrlimit(RLIMIT_NOFILE, &limit));
	expect_errno(ENOMEM, msgget(IPC_PRIVATE, 0600));
	expect_errno(ENOMEM, msgget(key, 0600));
	expect_errno(ENOMEM, msgget(key, IPC_CREAT | 0600));
	expect_errno(ENOMEM, put_byte(id[0], 1, 'x', IPC_NOWAIT));
	use(id[1]);
	expect_int(0, msgctl(id[1], IPC_RMID, NULL)); /* unlinking needs none */
	must(setrlimit(RLIMIT_NOFILE, &before));
	expect_int(id[0], msgget(key, 0600));
	expect_int('x', get_byte(id[0], 0, IPC_NOWAIT));
	expect_int(0, msgctl(id[0], IPC_RMID, NULL));
	expect_int(0, count_names("usysv.q."));
}

/* 5 */
enum { PARTICIPANTS = 4095, THREADS = 4200 };
struct crowd {
	int id;
	_Atomic int refused, wrong, removed;
};

static void *crowd_member(void *argument)
{
	struct crowd *crowd = argument;
	struct { long type; char text[8]; } m;
	ssize_t got = msgrcv(crowd->id, &m, 8, 1, 0);
	if (got == -1 && errno == ENOMEM)
		crowd->refused++;
	else if (got == -1 && errno == EIDRM)
		crowd->removed++;
	else
		crowd->wrong++;
	return NULL;
}

static void more_threads_than_participants(void)
{
	static pthread_t thread[THREADS];
	struct crowd crowd = { .id = new_queue(0600) };
	pthread_attr_t attributes;
	int started = 0;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	for (; started < THREADS; started++)
		if (pthread_create(&thread[started], &attributes, crowd_member, &crowd) != 0)
			break;
	if (started < PARTICIPANTS + 10)
		skip("only %d threads can be made here", started);
	while (crowd.refused + PARTICIPANTS < started)
		nap(10000);
	nap(100000);
	expect_int(started - PARTICIPANTS, crowd.refused);
	expect_errno(ENOMEM, put_byte(crowd.id, 2, 'x', IPC_NOWAIT));
	/* Looking needs no participant. Removing does: so one has to go first. */
	expect_int(0, status_of(crowd.id).msg_qnum);
	in_fresh_process(expect_errno(ENOMEM, msgctl(crowd.id, IPC_RMID, NULL)));
	kill(getpid(), 0);
	_exit(crowd.wrong != 0);
}

/* 5: those who were refused come back when there is room; with as many as there can be, less one, everything works. */
static void as_many_threads_as_participants(void)
{
	static pthread_t thread[THREADS];
	struct crowd crowd = { .id = new_queue(0600) };
	pthread_attr_t attributes;
	int started = 0;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	for (; started < PARTICIPANTS - 1; started++)
		if (pthread_create(&thread[started], &attributes, crowd_member, &crowd) != 0)
			skip("only %d threads can be made here", started);
	nap(300000);
	expect_int(0, put_byte(crowd.id, 2, 'x', IPC_NOWAIT));
	expect_int('x', get_byte(crowd.id, 2, IPC_NOWAIT));
	expect_int(0, msgctl(crowd.id, IPC_RMID, NULL));
	for (int i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	/* Who had not begun to sleep says EINVAL. */
	expect_true(crowd.removed + crowd.wrong == started && crowd.refused == 0 && crowd.removed > started / 2);
}

/* 6 */
static void indices_used_up(void)
{
	int ids[8], n = 0;
	mount_small("size=64m,mode=1777,nr_inodes=100000");
	must(close((int)must(open(name("inode", 0), O_CREAT | O_RDWR | O_CLOEXEC, 0600))));
	for (unsigned long i = 0; i < 32768; i++)
		if (i % 4096 != 17)
			must(symlink("x", name("usysv.q.%lu", i)));
	for (; n < 8; n++) {
		ids[n] = (int)must(msgget(IPC_PRIVATE, 0600));
		expect_int(17, ids[n] % 4096);
		use(ids[n]);
	}
	for (int i = 0; i < 3; i++)
		expect_errno(ENOSPC, msgget(IPC_PRIVATE, 0600));
	expect_errno(ENOSPC, msgget(new_key(), IPC_CREAT | 0600));
	for (n = 0; n < 8; n++)
		use(ids[n]);
	expect_int(0, msgctl(ids[3], IPC_RMID, NULL));
	n = (int)must(msgget(IPC_PRIVATE, 0600));
	expect_int(ids[3] % 32768, n % 32768);
	expect_true(n != ids[3]);
	use(n);
}

/* 7 and 8: another directory needs another start of the library. The child answers with an errno; 0 for success. */
static int errno_in(const char *where, uid_t uid, int key)
{
	int status;
	pid_t pid = fork_child();
	if (pid == 0) {
		char number[20];
		if (uid)
			become(uid, uid);
		snprintf(number, sizeof number, "%d", key);
		if (where)
			setenv("USYSV_DIR", where, 1);
		else
			unsetenv("USYSV_DIR");
		execl("/proc/self/exe", "exhaustion", "--create", number, (char *)NULL);
		_exit(255);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		fail("create in %s: status %x", where ? where : "a default", status);
	return WEXITSTATUS(status);
}

static void unusable_directories(void)
{
	char path[300], longer[700];
	snprintf(path, sizeof path, "%s/place", directory());
	expect_int(ENOENT, errno_in(path, 0, 1));
	close((int)must(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
	expect_int(ENOTDIR, errno_in(path, 0, 1));
	unlink(path);
	must(mkdir(path, 0700));
	expect_int(0, errno_in(path, 0, 1));
	expect_int(EACCES, errno_in(path, NOBODY, 1));
	must(chmod(path, 0755));
	expect_int(EACCES, errno_in(path, NOBODY, 1));
	/* A link to a directory is one; so the administrator can choose. */
	snprintf(longer, sizeof longer, "%s/way", directory());
	must(symlink("place", longer));
	expect_int(0, errno_in(longer, 0, 1));
	unlink(longer);
	must(rmdir(path));
	memset(longer, 'x', sizeof longer - 1);
	longer[0] = '/';
	longer[sizeof longer - 1] = 0;
	expect_true(errno_in(longer, 0, 1) != 0);
}

static void read_only_directory(void)
{
	int *id = shared_memory(sizeof *id);
	key_t key = new_key();
	mount_small("size=1m,mode=1777");
	in_fresh_process(*id = (int)must(msgget(key, IPC_CREAT | 0600)));
	if (mount(NULL, directory(), NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
		skip("remounting: %s", strerror(errno));
	in_fresh_process(
		struct msqid_ds s;
		expect_errno(EACCES, msgget(IPC_PRIVATE, 0600));
		expect_errno(EACCES, put_byte(*id, 1, 'x', IPC_NOWAIT));
		expect_errno(EACCES, get_byte(*id, 0, IPC_NOWAIT));
		expect_int(*id, msgget(key, 0600)); /* which nobody needs to write for */
		expect_int(*id, msgctl(*id & 0x7fff, MSG_STAT_ANY, &s))
	);
	must(mount(NULL, directory(), NULL, MS_REMOUNT, NULL));
	in_fresh_process(use(*id));
}

static void no_shared_memory_directory(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		skip("no mount namespace: %s", strerror(errno));
	/* Nobody else sees what lies in these, in this namespace. The library may lie there itself. */
	char library[40];
	if (getenv("LD_PRELOAD")) {
		snprintf(library, sizeof library, "/proc/self/fd/%d", (int)must(open(getenv("LD_PRELOAD"), O_RDONLY)));
		setenv("LD_PRELOAD", library, 1);
	}
	if (mount("tmpfs", "/var/tmp", "tmpfs", 0, "size=1m,mode=1777") != 0 || mount("tmpfs", "/tmp", "tmpfs", 0, "size=1m,mode=1777") != 0)
		skip("no mount of tmpfs: %s", strerror(errno));
	if (mount("tmpfs", "/dev/shm", "tmpfs", MS_RDONLY, "size=4k,mode=0") != 0)
		skip("no mount over /dev/shm: %s", strerror(errno));
	if (access("/run/shm", F_OK) == 0 && mount("tmpfs", "/run/shm", "tmpfs", MS_RDONLY, "size=4k,mode=0") != 0)
		skip("no mount over /run/shm: %s", strerror(errno));
	expect_int(0, errno_in(NULL, NOBODY, (int)0x12340001));
	expect_int(0, access("/var/tmp/usysv.ns", F_OK));
	must(mount("tmpfs", "/var/tmp", "tmpfs", MS_RDONLY, "size=4k,mode=0"));
	expect_int(0, errno_in(NULL, NOBODY, (int)0x12340001));
	expect_int(0, access("/tmp/usysv.ns", F_OK));
}

static int create(int key)
{
	int id = msgget(key, IPC_CREAT | 0600);
	if (id < 0)
		return errno;
	if (put_byte(id, 1, 'x', IPC_NOWAIT) != 0 || get_byte(id, 0, IPC_NOWAIT) != 'x' || msgctl(id, IPC_RMID, NULL) != 0)
		return 254;
	if (key != 1)
		return 0;
	unlink(name("usysv.ns", 0));
	return 0;
}

static const struct row rows[] = {
	ROW_ROOT(full_create),
	ROW_ROOT(full_of_names),
	{ .name = "full_send_empty_texts", .run = full_send, .user = AS_ROOT, .arg = (void *)0L },
	{ .name = "full_send_short_texts", .run = full_send, .user = AS_ROOT, .arg = (void *)60L },
	{ .name = "full_send_long_texts", .run = full_send, .user = AS_ROOT, .arg = (void *)5000L },
	ROW_ROOT(file_size_limited),
	ROW(address_space_limited),
	ROW(descriptors_used_up),
	ROW_LONG(more_threads_than_participants, 60),
	ROW_LONG(as_many_threads_as_participants, 60),
	ROW_ROOT(indices_used_up),
	ROW_ROOT(unusable_directories),
	ROW_ROOT(read_only_directory),
	ROW_ROOT(no_shared_memory_directory),
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--create"))
		return create(atoi(argv[2]));
	return check_suite("exhaustion", rows, sizeof rows / sizeof rows[0], argc, argv);
}
