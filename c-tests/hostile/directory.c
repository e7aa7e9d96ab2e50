/*
 * What a peer can do to the directory, and what its victims see: for every name of ours, every kind of thing that can lie there instead.
 *
 *  1. a control file replaced by anything else: no queue of that identifier (EINVAL), by key none either (ENOENT), and with IPC_CREAT a
 *     new one. Never a hang (a fifo is not waited for), never a crash, and what lies there is left as it is
 *  2. a body replaced by anything else: EINVAL; IPC_RMID too, unless the queue was attached before
 *  3. a key's link replaced: the key has no queue (ENOENT); with IPC_CREAT it gets one, in another slot
 *  4. the file of hints replaced: queues come and go; what its name leads to is not written to
 *  5. indices and bodies squatted: other identifiers are given; links of a key squatted, all 64: ENOMEM
 *  6. files truncated: who sleeps gets EIDRM; who comes later EINVAL; who only lists, or creates something else, while a foreign control
 *     file is truncated and stretched without pause, sees no SIGBUS
 *  7. the bystander, another queue in the directory, has its message after every row
 */
#include "files.h"

enum object {
	ABSENT, EMPTY, SHORT_TEXT, LONG_ZEROS, LONG_NOISE, DIRECTORY, FIFO, SOCKET, DEVICE, LINK_TO_NOTHING, LINK_TO_ITSELF,
	LINK_TO_OTHER, HARD_LINK_TO_OTHER, FOREIGN_HARD_LINK, WRONG_VERSION, WRONG_ID, OBJECTS
};

static const char *const object_name[OBJECTS] = {
	"nothing", "an empty file", "a short text", "zeros", "noise", "a directory", "a fifo", "a socket", "a device", "a dangling link",
	"a link to itself", "a link to another queue", "a hard link to another queue", "a hard link to another user's file",
	"a control file of another version", "a control file of another queue",
};

#define OTHER 65001 /* a user */

static int bystander;

static void plant_bystander(void)
{
	bystander = new_queue(0600);
	expect_int(0, put(bystander, 1, 100, 77, 0));
}

static void check_bystander(void)
{
	struct msg m;
	expect_int(100, msgrcv(bystander, &m, sizeof m.text, 0, IPC_NOWAIT));
	expect_true(text_is(m.text, 100, 77));
	expect_int(0, put(bystander, 1, 100, 77, IPC_NOWAIT));
}

static void write_file(const char *path, long size, int noise)
{
	unsigned char block[4096];
	int fd = (int)must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	must(ftruncate(fd, size));
	for (int i = 0; noise && i < 64; i++) {
		for (size_t b = 0; b < sizeof block; b++)
			block[b] = (unsigned char)random();
		must(pwrite(fd, block, sizeof block, i * 4096L));
	}
	close(fd);
}

static void poke(const char *path, long offset, uint64_t value)
{
	int fd = (int)must(open(path, O_RDWR | O_CLOEXEC));
	expect_int(8, pwrite(fd, &value, 8, offset));
	close(fd);
}

static void copy_start(const char *from, const char *to)
{
	char block[8192];
	int in = (int)must(open(from, O_RDONLY | O_CLOEXEC));
	int out = (int)must(open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	must(ftruncate(out, CONTROL_SIZE));
	must(pread(in, block, sizeof block, 0));
	must(pwrite(out, block, sizeof block, 0));
	close(in);
	close(out);
}

static char victim_file[300];

static uint64_t sum_of(const char *path)
{
	unsigned char block[4096];
	uint64_t sum = 0;
	ssize_t n;
	int fd = (int)must(open(path, O_RDONLY | O_CLOEXEC));
	for (int i = 0; i < 4096 && (n = pread(fd, block, sizeof block, i * 4096L)) > 0; i++)
		for (ssize_t b = 0; b < n; b++)
			sum = sum * 31 + block[b];
	close(fd);
	return sum;
}

/* Puts `what` in the place of `path`. */
static void replace(const char *path, enum object what, const char *others)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char saved[310];
	int fd;

	snprintf(saved, sizeof saved, "%s/saved", directory());
	unlink(saved);
	must(rename(path, saved));
	switch (what) {
	case ABSENT: break;
	case EMPTY: write_file(path, 0, 0); break;
	case SHORT_TEXT: write_file(path, 100, 0); break;
	case LONG_ZEROS: write_file(path, 8 << 20, 0); break;
	case LONG_NOISE: write_file(path, 8 << 20, 1); break;
	case DIRECTORY: must(mkdir(path, 0700)); break;
	case FIFO: must(mkfifo(path, 0600)); break;
	case SOCKET:
		fd = (int)must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
		snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory());
		unlink(address.sun_path);
		must(bind(fd, (struct sockaddr *)&address, sizeof address));
		must(rename(address.sun_path, path));
		close(fd);
		break;
	case DEVICE:
		if (mknod(path, S_IFCHR | 0600, (1 << 8) | 5) != 0) /* /dev/zero */
			skip("no devices can be made here: %s", strerror(errno));
		break;
	case LINK_TO_NOTHING: must(symlink("nowhere", path)); break;
	case LINK_TO_ITSELF: must(symlink(path, path)); break;
	case LINK_TO_OTHER: must(symlink(others, path)); break;
	case HARD_LINK_TO_OTHER: must(link(others, path)); break;
	case FOREIGN_HARD_LINK:
		/* As an attacker could where fs.protected_hardlinks is 0; root can anyway. */
		must(chown(victim_file, OTHER, OTHER));
		must(link(victim_file, path));
		break;
	case WRONG_VERSION:
		copy_start(saved, path);
		poke(path, 8, 99);
		break;
	case WRONG_ID:
		copy_start(saved, path);
		poke(path, OFFSET_ID, 12345);
		break;
	case OBJECTS: break;
	}
}

static void remove_object(const char *path)
{
	if (rmdir(path) != 0)
		unlink(path);
}

static void all_calls_say(int want, int id)
{
	struct msg m;
	struct msqid_ds s = { .msg_qbytes = 100 };
	expect_errno(want, put_byte(id, 1, 'x', IPC_NOWAIT));
	expect_errno(want, msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT));
	expect_errno(want, msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT | MSG_COPY));
	expect_errno(want, msgctl(id, IPC_STAT, &s));
	expect_errno(want, msgctl(id, IPC_SET, &s));
	expect_errno(want, msgctl(id, IPC_RMID, NULL));
}

/* 1 */
static void control_replaced(void)
{
	enum object what = (enum object)(long)row_arg();
	key_t key = new_key();
	struct msqid_ds s;
	int made = 0, *id = shared_memory(sizeof *id);
	uint64_t sum;
	struct stat before, after;

	plant_bystander();
	snprintf(victim_file, sizeof victim_file, "%s/victim", directory());
	write_file(victim_file, 8 << 20, 1);
	sum = sum_of(victim_file);
	in_fresh_process(*id = (int)must(msgget(key, IPC_CREAT | 0600)); expect_int(0, put_byte(*id, 1, 'm', 0)));
	replace(control_of(*id), what, control_of(bystander));
	if (what != ABSENT)
		must(lstat(control_of(*id), &before));

	in_fresh_process(all_calls_say(EINVAL, *id));
	in_fresh_process(expect_errno(EINVAL, msgctl(*id & 0x7fff, MSG_STAT, &s)));
	in_fresh_process(expect_errno(EINVAL, msgctl(*id & 0x7fff, MSG_STAT_ANY, &s)));
	in_fresh_process(must(msgctl(0, MSG_INFO, &s)));
	in_fresh_process(expect_errno(ENOENT, msgget(key, 0600)));
	in_fresh_process(must(msgget(key, IPC_CREAT | 0600)));
	made = (int)must(msgget(key, 0600));
	expect_true(made != *id);
	expect_int(0, put_byte(made, 1, 'n', IPC_NOWAIT));
	expect_int('n', get_byte(made, 0, IPC_NOWAIT));
	expect_int(0, msgctl(made, IPC_RMID, NULL));

	if (what != ABSENT) {
		must(lstat(control_of(*id), &after));
		expect_true(before.st_ino == after.st_ino && before.st_mode == after.st_mode && before.st_size == after.st_size);
	}
	expect_true(sum_of(victim_file) == sum);
	check_bystander();
	remove_object(control_of(*id));
	unlink(body_of(*id));
	unlink(link_of(key));
	unlink(victim_file);
}

/* 2 */
static void body_replaced(void)
{
	enum object what = (enum object)(long)row_arg();
	int *id = shared_memory(sizeof *id);
	uint64_t sum;

	plant_bystander();
	snprintf(victim_file, sizeof victim_file, "%s/victim", directory());
	write_file(victim_file, 8 << 20, 1);
	sum = sum_of(victim_file);
	in_fresh_process(*id = (int)must(msgget(IPC_PRIVATE, IPC_CREAT | 0600)); expect_int(0, put_byte(*id, 1, 'm', 0)));
	replace(body_of(*id), what, body_of(bystander));
	in_fresh_process(all_calls_say(EINVAL, *id));
	in_fresh_process(int other = new_queue(0600); expect_int(0, put_byte(other, 1, 'o', 0)); expect_int(0, msgctl(other, IPC_RMID, NULL)));
	expect_true(sum_of(victim_file) == sum);
	check_bystander();
	remove_object(body_of(*id));
	unlink(control_of(*id));
	unlink(victim_file);
}

/* 2: a body of zeros, and one of noise, are bodies as far as anybody can tell; what they hold is checked at every step. */
static void body_overwritten(void)
{
	int noise = (long)row_arg() != 0;
	int *id = shared_memory(sizeof *id);
	struct msg m;

	plant_bystander();
	in_fresh_process(*id = (int)must(msgget(IPC_PRIVATE, IPC_CREAT | 0600)); expect_int(0, put(*id, 1, 3000, 1, 0)); expect_int(0, put(*id, 2, 3, 1, 0)));
	must(truncate(body_of(*id), BODY_START));
	must(truncate(body_of(*id), 2L << 30));
	if (noise) {
		int fd = (int)must(open(body_of(*id), O_RDWR | O_CLOEXEC));
		for (long at = BODY_START; at < BODY_START + 65536; at += 4)
			must(pwrite(fd, &(int){ (int)random() }, 4, at));
		close(fd);
	}
	for (int i = 0; i < 3; i++)
		in_fresh_process(
			for (int n = 0; n < 50; n++) {
				ssize_t got = msgrcv(*id, &m, 100, n % 5 - 2, IPC_NOWAIT | MSG_NOERROR);
				expect_true(got <= 100);
				expect_true(got >= 0 || errno == ENOMSG || errno == EIDRM || errno == EINVAL);
				expect_true(put_byte(*id, 1, 'x', IPC_NOWAIT) == 0 || errno == EAGAIN || errno == EIDRM || errno == EINVAL || errno == ENOMEM);
			}
		);
	in_fresh_process(if (msgctl(*id, IPC_RMID, NULL) != 0) expect_true(errno == EIDRM || errno == EINVAL));
	check_bystander();
	unlink(body_of(*id));
	unlink(control_of(*id));
}

/* 3 */
static void link_replaced(void)
{
	static const char *const content[] = { "32767", "99999999999", "007", "-1", "abc", "", "2147483647", "0x10", NULL };
	enum object what = (enum object)(long)row_arg();
	key_t key = new_key();
	char digits[20];
	int *id = shared_memory(sizeof *id);

	plant_bystander();
	snprintf(digits, sizeof digits, "%d", bystander);
	in_fresh_process(*id = (int)must(msgget(key, IPC_CREAT | 0600)));
	for (int i = 0; what == LINK_TO_OTHER ? i < 9 : i < 1; i++) {
		const char *to = what != LINK_TO_OTHER ? NULL : content[i] ? content[i] : digits;
		if (to && !*to)
			continue;
		unlink(link_of(key));
		remove_object(link_of(key));
		if (to)
			must(symlink(to, link_of(key)));
		else {
			must(symlink("x", link_of(key)));
			replace(link_of(key), what, control_of(bystander));
		}
		in_fresh_process(expect_errno(ENOENT, msgget(key, 0600)));
		in_fresh_process(
			int made = (int)must(msgget(key, IPC_CREAT | 0600));
			expect_true(made != bystander && made != *id);
			expect_int(made, msgget(key, 0));
			expect_int(0, put_byte(made, 1, 'n', IPC_NOWAIT));
			in_fresh_process(expect_int(made, msgget(key, 0600)); expect_int('n', get_byte(made, 0, IPC_NOWAIT)));
			expect_int(0, msgctl(made, IPC_RMID, NULL))
		);
	}
	check_bystander();
	remove_object(link_of(key));
	in_fresh_process(expect_int(0, msgctl(*id, IPC_RMID, NULL)));
}

/* 4 */
static void hints_replaced(void)
{
	enum object what = (enum object)(long)row_arg();
	char *hints = name("usysv.ns", 0);
	char path[300];
	uint64_t sum;

	plant_bystander();
	snprintf(path, sizeof path, "%s", hints);
	snprintf(victim_file, sizeof victim_file, "%s/victim", directory());
	write_file(victim_file, 100, 0);
	must(chmod(victim_file, 0666));
	sum = sum_of(victim_file);
	replace(path, what, victim_file);
	for (int i = 0; i < 5; i++)
		in_fresh_process(
			int id = (int)must(msgget(IPC_PRIVATE, 0600));
			expect_int(0, put_byte(id, 1, 'x', IPC_NOWAIT));
			expect_int('x', get_byte(id, 0, IPC_NOWAIT));
			expect_int(0, msgctl(id, IPC_RMID, NULL))
		);
	expect_true(sum_of(victim_file) == sum);
	check_bystander();
	remove_object(path);
	unlink(victim_file);
}

/* 4: hints that say anything. */
static void hints_forged(void)
{
	plant_bystander();
	for (int i = 0; i < 200; i++) {
		uint32_t words[6] = { 0x736e7375 };
		int fd = (int)must(open(name("usysv.ns", 0), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
		for (int w = 1; w < 6; w++)
			words[w] = random() & 1 ? (uint32_t)random() : random() & 1 ? UINT32_MAX - (uint32_t)(random() & 3) : (uint32_t)random() & 7;
		must(pwrite(fd, words, sizeof words, 0));
		close(fd);
		int id = (int)must(msgget(IPC_PRIVATE, 0600));
		expect_int(0, put_byte(id, 1, 'x', IPC_NOWAIT));
		expect_int(0, msgctl(id, IPC_RMID, NULL));
	}
	check_bystander();
	unlink(name("usysv.ns", 0));
}

/* 5 */
static void names_squatted(void)
{
	plant_bystander();
	for (unsigned long i = 0; i < 200; i++)
		if (access(name("usysv.q.%lu", i), F_OK) != 0)
			must(mkdir(name("usysv.q.%lu", i), 0700));
	for (unsigned long i = 200; i < 220; i++) {
		must(mkdir(name("usysv.b.%lu", i), 0700)); /* seq 0 */
		must(mkdir(name("usysv.b.%lu", i + 32768), 0700));
	}
	in_fresh_process(
		int id = (int)must(msgget(IPC_PRIVATE, 0600));
		expect_true((id & 0x7fff) >= 200);
		expect_int(0, put_byte(id, 1, 'x', IPC_NOWAIT));
		expect_int('x', get_byte(id, 0, IPC_NOWAIT));
		expect_int(0, msgctl(id, IPC_RMID, NULL))
	);
	check_bystander();
	for (unsigned long i = 0; i < 220; i++) {
		rmdir(name("usysv.q.%lu", i));
		rmdir(name("usysv.b.%lu", i));
		rmdir(name("usysv.b.%lu", i + 32768));
	}
}

static void key_squatted(void)
{
	key_t key = new_key();
	plant_bystander();
	for (int slot = 0; slot < 64; slot++)
		must(symlink("garbage", link_slot(key, slot)));
	in_fresh_process(expect_errno(ENOMEM, msgget(key, IPC_CREAT | 0600)));
	in_fresh_process(expect_errno(ENOENT, msgget(key, 0600)));
	/* One free place is enough, wherever it is. */
	unlink(link_slot(key, 63));
	in_fresh_process(must(msgget(key, IPC_CREAT | 0600)));
	in_fresh_process(expect_int(0, msgctl((int)must(msgget(key, 0)), IPC_RMID, NULL)));
	expect_int(-1, access(link_slot(key, 63), F_OK));
	check_bystander();
	for (int slot = 0; slot < 64; slot++)
		unlink(link_slot(key, slot));
}

/* 6 */
static void truncated_under_sleepers(void)
{
	int of_control = (long)row_arg() != 0;
	struct result *r = shared_memory(3 * sizeof *r);
	pid_t pid[3];
	int id, *made = shared_memory(sizeof *made);

	plant_bystander();
	/* This process must not have it mapped: its children would. */
	in_fresh_process(*made = new_queue(0600); set_qbytes(*made, 10); expect_int(0, put(*made, 5, 10, 1, 0)));
	id = *made;
	pid[0] = blocked_receiver(&r[0], id, 100, 1, 0);
	pid[1] = blocked_receiver(&r[1], id, 100, 2, 0);
	pid[2] = blocked_sender(&r[2], id, 5, 1);
	must(truncate(of_control ? control_of(id) : body_of(id), 0));
	for (int i = 0; i < 3; i++) {
		join(pid[i]);
		expect_result(&r[i], -1, EIDRM);
	}
	in_fresh_process(all_calls_say(EINVAL, id));
	check_bystander();
	unlink(control_of(id));
	unlink(body_of(id));
}

/* 6: who only comes by must not be hurt. */
static void foreign_file_truncated_all_the_time(void)
{
	struct msqid_ds s;
	_Atomic int *stop = shared_memory(sizeof *stop);
	int *id = shared_memory(sizeof *id);
	key_t key = new_key();
	pid_t attacker;
	struct timespec t;
	time_t end;

	plant_bystander();
	as_user(OTHER, *id = (int)must(msgget(IPC_PRIVATE, IPC_CREAT | 0666)));
	/* And it passes for the queue of a key that somebody else is about to create. */
	as_user(OTHER, char digits[20]; snprintf(digits, sizeof digits, "%d", *id); must(symlink(digits, link_of(key))));
	attacker = fork_child();
	if (attacker == 0) {
		become(OTHER, OTHER);
		int fd = (int)must(open(control_of(*id), O_RDWR | O_CLOEXEC));
		char page[4096];
		must(pread(fd, page, sizeof page, 0));
		/* Removed by participant 0, which is free: an invitation to bury it, now and then. */
		for (unsigned n = 0; !*stop; n++) {
			*(uint64_t *)(page + 1024 + 128 + 16 + 64) = n & 1;
			must(pwrite(fd, page, sizeof page, 0));
			must(ftruncate(fd, n % 3 ? 0 : 4096));
			must(ftruncate(fd, CONTROL_SIZE));
		}
		_exit(0);
	}
	clock_gettime(CLOCK_MONOTONIC, &t);
	end = t.tv_sec + 2;
	for (int rounds = 0; t.tv_sec < end; rounds++) {
		must(msgctl(0, MSG_INFO, &s));
		if (msgctl(*id & 0x7fff, MSG_STAT_ANY, &s) < 0)
			expect_true(errno == EINVAL || errno == EIDRM);
		if (msgctl(*id & 0x7fff, MSG_STAT, &s) < 0)
			expect_true(errno == EINVAL || errno == EIDRM || errno == EACCES);
		/* The hint says that the attacker's index is the next. */
		int fd = open(name("usysv.ns", 0), O_RDWR | O_CLOEXEC);
		if (fd >= 0) {
			uint32_t next = (uint32_t)*id & 0x7fff;
			must(pwrite(fd, &next, 4, 4));
			must(pwrite(fd, &(uint32_t){ next + 1 }, 4, 20));
			close(fd);
		}
		int made = msgget(key, IPC_CREAT | 0600);
		expect_true(made >= 0);
		expect_int(0, put_byte(made, 1, 'x', IPC_NOWAIT));
		expect_int(0, msgctl(made, IPC_RMID, NULL));
		clock_gettime(CLOCK_MONOTONIC, &t);
	}
	*stop = 1;
	join(attacker);
	check_bystander();
	unlink(control_of(*id));
	unlink(body_of(*id));
	unlink(link_of(key));
}

static struct row rows[4 * OBJECTS + 20];
static char names[4 * OBJECTS][100];
static size_t count;

static void add(const char *what, void (*run)(void), const char *whose, long arg)
{
	snprintf(names[count], sizeof names[0], "%s%s%s", whose, *whose ? "_is_" : "", what);
	for (char *c = names[count]; *c; c++)
		if (*c == ' ' || *c == '\'')
			*c = '_';
	rows[count] = (struct row){ .name = names[count], .run = run, .user = AS_ROOT, .arg = (const void *)arg };
	count++;
}

int main(int argc, char **argv)
{
	for (long o = 0; o < OBJECTS; o++) {
		/* A control file of zeros is none, and so on; what is a copy of the very file would be one. */
		add(object_name[o], control_replaced, "control", o);
		if (o != LONG_ZEROS && o != LONG_NOISE && o != HARD_LINK_TO_OTHER && o < WRONG_VERSION)
			add(object_name[o], body_replaced, "body", o);
		if (o != HARD_LINK_TO_OTHER && o != FOREIGN_HARD_LINK && o < WRONG_VERSION)
			add(object_name[o], link_replaced, "link", o);
		if (o < WRONG_VERSION && o != DEVICE)
			add(object_name[o], hints_replaced, "hints", o);
	}
	add("body_overwritten_with_zeros", body_overwritten, "", 0);
	add("body_overwritten_with_noise", body_overwritten, "", 1);
	add("hints_forged", hints_forged, "", 0);
	add("names_squatted", names_squatted, "", 0);
	add("key_squatted", key_squatted, "", 0);
	add("body_truncated_under_sleepers", truncated_under_sleepers, "", 0);
	add("control_truncated_under_sleepers", truncated_under_sleepers, "", 1);
	add("foreign_file_truncated_all_the_time", foreign_file_truncated_all_the_time, "", 0);
	return check_suite("directory", rows, count, argc, argv);
}
