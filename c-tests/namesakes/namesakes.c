/*
 * namesakes.c: two threads of equal id, in two pid namespaces, of which one dies near the participant that both use.
 *
 * A thread's robust list names a participant's owner word while the thread holds it, so that the system marks the word when
 * the thread dies. All that the system compares is the thread id, and in another pid namespace another thread has the same. If
 * the list names the word a little too early or too late, and the namesake claims it just then, a death marks the living.
 *
 * A and B are each process 1 of a pid namespace of its own, and have used one queue. A makes one call under ptrace and is
 * stopped after k of its instructions. B goes to sleep in msgrcv. A is killed. C, process 1 of a third namespace, whose threads
 * look at every participant, sends, receives and asks for the status: it would heal B, were B taken for dead. Then a
 * message is sent to B. Checked:
 *   - B's owner word in the control file holds B's id and no mark, after A's death and after C;
 *   - the message is handed to B, which gets it, and nothing else, within 2 s;
 *   - afterwards the queue holds what A may have left and nothing more, and IPC_STAT says the same.
 * A row for a send and one for a receive; two more in which A has made the queue and was alone in it until B came. What a first
 * call from another namespace does to calls under way is not tried: all have made calls before.
 *
 * Usage: namesakes [--seconds N] [--seed N] [--only ROW]
 *        namesakes --all [--stride N] [--from K] [--only ROW]
 *        namesakes --probe      says why it cannot run here, and exits with 77, or nothing
 * Without --all instructions are drawn until the time is over, every other one close to where the pointer or an owner word
 * changes. On the kernel's queues, which know nothing of this, the program tests itself.
 */
#include "../hygiene/hygiene.h"

#include <elf.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

/* Of src/shm/layout.rs. */
enum {
	SUPERBLOCK_ID = 16,
	SUPERBLOCK_PARTICIPANTS = 128,
	PARTICIPANT = 1024,
	MAX_PARTICIPANTS = 4095,
	OWNER = 0,
	TYPE = 80,
	CONTROL = 4 << 20
};

/* A's message has A_TYPE, C's the types from C_TYPE on, B's one that no trial before had: by that its participant is told. */
enum { WARM_TYPE = 2, A_TYPE = 3, C_TYPE = 11, B_TYPE = 1000, LENGTH = 24, LONGEST = 16384, EDGES = 64 };
static const long FAR = 1000000;
/* B looks by itself when it has slept 0.1 s. Until then what is sent to it must be handed over. */
static const double FIRST_SLEEP = 0.08;

static const struct row {
	const char *name;
	bool receives, creates;
} rows[] = {
	{ "send", false, false },
	{ "receive", true, false },
	{ "send-creator", false, true },
	{ "receive-creator", true, true },
};
enum { ROWS = sizeof rows / sizeof *rows };

/* Between the processes. */
static struct shared {
	atomic_int id, begun, over, right;
	atomic_int b_warm, b_begun, b_over, b_error;
	atomic_long b_got;
	atomic_int c_right;
} *sh;

static struct result {
	long trials, wrong, first_trial, longest, met, handed, unmarked;
	long edges[EDGES];
	int n_edges;
	int usual; /* A's participant */
	bool bad[LONGEST];
	char first[700]; /* all that was wrong in the first trial that was */
} results[ROWS];

static int id = -1, own_namespace, gate[2];
static const char *directory;
static const volatile unsigned char *control; /* the queue's control file, or NULL */
static char doing[200];
static struct result *current;
static long current_k;
static uint64_t rnd;

static uint32_t random_below(uint32_t n)
{
	rnd = rnd * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(((rnd >> 32) * n) >> 32);
}

__attribute__((format(printf, 1, 2))) static void wrong(const char *format, ...)
{
	size_t n = strlen(current->first);
	if (current->wrong++ == 0 || current->first_trial == current->trials) {
		va_list ap;
		current->first_trial = current->trials;
		n += (size_t)snprintf(current->first + n, sizeof current->first - n, "%s", n == 0 ? doing : "; ");
		va_start(ap, format);
		if (n < sizeof current->first)
			vsnprintf(current->first + n, sizeof current->first - n, format, ap);
		va_end(ap);
	}
	if (current_k < LONGEST)
		current->bad[current_k] = true;
}

/* ---- A, B and C ------------------------------------------------------------------------------------------------------ */

static bool sent(long type, long number)
{
	struct {
		long mtype;
		char mtext[LENGTH];
	} m = { .mtype = type };
	memcpy(m.mtext, &number, sizeof number);
	memset(m.mtext + sizeof number, (int)(number & 0x7f), LENGTH - sizeof number);
	return msgsnd(id, &m, LENGTH, IPC_NOWAIT) == 0;
}

/* The number of a message of that type, -1 if there is none, -2 if it is not as it was sent. */
static long received(long type, int flags)
{
	struct {
		long mtype;
		char mtext[2 * LENGTH];
	} m = { .mtype = 0 };
	long number = -2;
	ssize_t r = msgrcv(id, &m, sizeof m.mtext, type, flags);
	if (r < 0)
		return -1;
	memcpy(&number, m.mtext, sizeof number);
	bool whole = r == LENGTH && (type == 0 || m.mtype == type);
	for (size_t i = sizeof number; i < LENGTH; i++)
		whole = whole && m.mtext[i] == (char)(number & 0x7f);
	return whole ? number : -2;
}

static bool pair_of(long type, long number)
{
	return sent(type, number) && received(type, IPC_NOWAIT) == number;
}

/* More than once, so that nothing is found out, bound or paged in for the first time later. */
static bool warm_up(void)
{
	struct msqid_ds ds;
	bool right = getpid() == 1 && syscall(SYS_gettid) == 1;
	for (int i = 0; i < 3 && right; i++)
		right = pair_of(WARM_TYPE, 100 + i) && msgctl(id, IPC_STAT, &ds) == 0;
	return right;
}

enum { MINE = 5000 };

static _Noreturn void a(const struct row *row)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (row->creates) {
		id = msgget(IPC_PRIVATE, 0600);
		atomic_store(&sh->id, id);
	}
	if (!warm_up() || (row->receives && !sent(A_TYPE, MINE)) || ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		_exit(9);
	kill(getpid(), SIGSTOP);
	atomic_store(&sh->begun, 1);
	bool right = row->receives ? received(A_TYPE, IPC_NOWAIT) == MINE : sent(A_TYPE, MINE);
	atomic_store(&sh->over, 1);
	atomic_store(&sh->right, right);
	_exit(0);
}

static _Noreturn void b(long type)
{
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!warm_up())
		_exit(9);
	atomic_store(&sh->b_warm, 1);
	if (read(gate[0], &byte, 1) != 1)
		_exit(8);
	atomic_store(&sh->b_begun, 1);
	long got = received(type, 0);
	atomic_store(&sh->b_error, got == -1 ? errno : 0);
	atomic_store(&sh->b_got, got);
	atomic_store(&sh->b_over, 1);
	_exit(0);
}

static void *c_thread(void *arg)
{
	struct msqid_ds ds;
	long type = *(long *)arg;
	bool right = true;
	for (int i = 0; i < 3; i++)
		right = pair_of(type, 200 + i) && msgctl(id, IPC_STAT, &ds) == 0 && right;
	*(long *)arg = right;
	return NULL;
}

/* A thread tries the participant with its own id as number first: 1, 2, and 3, of which there may be only 0 to 2. */
static _Noreturn void c(void)
{
	pthread_t thread;
	bool right = true;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (long i = 0; i < 3; i++) {
		long arg = C_TYPE + i;
		if (i == 0)
			c_thread(&arg);
		else if (pthread_create(&thread, NULL, c_thread, &arg) != 0 || pthread_join(thread, NULL) != 0)
			arg = 0;
		right = right && arg == 1;
	}
	atomic_store(&sh->c_right, right);
	_exit(0);
}

/* ---- the supervisor -------------------------------------------------------------------------------------------------- */

/* Forks into a new pid namespace. Returns the process as seen from here, 0 in the child, -1. */
static pid_t fork_alone(void)
{
	fflush(stdout);
	if (unshare(CLONE_NEWPID) != 0)
		return -1;
	pid_t pid = fork();
	/* For the next one: only from our own namespace can another be made. */
	if (pid != 0 && setns(own_namespace, CLONE_NEWPID) != 0)
		hy_need(false, "setns back to the own pid namespace");
	return pid;
}

static void end(pid_t *pid)
{
	int status;
	if (*pid <= 0)
		return;
	kill(*pid, SIGKILL);
	while (waitpid(*pid, &status, 0) == *pid && !WIFEXITED(status) && !WIFSIGNALED(status))
		;
	*pid = 0;
}

/* Waits for a process to set a flag; false if it ends before, or does not come to it. */
static bool await(atomic_int *flag, pid_t *pid, double limit)
{
	int status;
	for (double until = hy_seconds() + limit; !atomic_load(flag) && hy_seconds() < until;) {
		if (waitpid(*pid, &status, WNOHANG) == *pid) {
			*pid = 0;
			break;
		}
		usleep(50);
	}
	return atomic_load(flag);
}

static bool asleep(pid_t pid)
{
	char path[64], line[256] = "";
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "r");
	if (f) {
		if (!fgets(line, sizeof line, f))
			line[0] = 0;
		fclose(f);
	}
	char *p = strrchr(line, ')');
	return p && strncmp(p, ") S", 3) == 0;
}

/* Lets A execute one instruction. False when it has ended. */
static bool step(pid_t *pid)
{
	int status;
	if (ptrace(PTRACE_SINGLESTEP, *pid, NULL, NULL) != 0)
		return false;
	if (waitpid(*pid, &status, 0) != *pid || !WIFSTOPPED(status)) {
		*pid = 0;
		return false;
	}
	return true;
}

/* Where a stopped process is: file and offset, for addr2line. It is a fork of this one, so addresses are the same. */
static const char *place(pid_t pid)
{
	static char text[120];
	struct user_regs_struct regs;
	struct iovec all = { &regs, sizeof regs };
	Dl_info info = { 0 };

	if (pid <= 0 || ptrace(PTRACE_GETREGSET, pid, (void *)(intptr_t)NT_PRSTATUS, &all) != 0)
		return "nowhere";
#if defined(__x86_64__)
	uintptr_t at = regs.rip;
#elif defined(__aarch64__)
	uintptr_t at = regs.pc;
#else
	uintptr_t at = 0;
#endif
	if (!dladdr((void *)at, &info) || !info.dli_fname)
		return "an unknown place";
	const char *base = strrchr(info.dli_fname, '/');
	snprintf(text, sizeof text, "%s+%#lx", base ? base + 1 : info.dli_fname, (unsigned long)(at - (uintptr_t)info.dli_fbase));
	return text;
}

/* ---- the control file ------------------------------------------------------------------------------------------------ */

static uint64_t control_word(size_t offset)
{
	return *(const volatile uint64_t *)(control + offset);
}

static uint32_t control_half(size_t offset)
{
	return *(const volatile uint32_t *)(control + offset);
}

static int participants(void)
{
	uint32_t n = control ? control_half(SUPERBLOCK_PARTICIPANTS) : 0;
	return n < MAX_PARTICIPANTS ? (int)n : MAX_PARTICIPANTS;
}

static uint32_t owner_of(int participant)
{
	return control_half((size_t)PARTICIPANT * (size_t)(participant + 1) + OWNER);
}

/* The participant in which who waits for that type sleeps, or -1. */
static int sleeper_of(long type)
{
	for (int i = 0; i < participants(); i++)
		if ((owner_of(i) & FUTEX_TID_MASK) == 1 && (long)control_word((size_t)PARTICIPANT * (size_t)(i + 1) + TYPE) == type)
			return i;
	return -1;
}

static void open_control(void)
{
	struct dirent *e;
	DIR *d = directory ? opendir(directory) : NULL;
	if (!d)
		return;
	while (!control && (e = readdir(d)) != NULL) {
		if (strncmp(e->d_name, "usysv.q.", 8) != 0)
			continue;
		int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
		void *p = mmap(NULL, CONTROL, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (p == MAP_FAILED)
			continue;
		control = p;
		if (control_word(SUPERBLOCK_ID) != (uint64_t)id) {
			munmap(p, CONTROL);
			control = NULL;
		}
	}
	closedir(d);
}

static void close_control(void)
{
	if (control)
		munmap((void *)(uintptr_t)control, CONTROL);
	control = NULL;
}

/* What A's robust list names just now. */
static uintptr_t pending_of(pid_t pid)
{
	static uintptr_t head;
	static pid_t whose;
	size_t length;
	uintptr_t pending = 0;
	if (whose != pid) {
		head = 0;
		if (syscall(SYS_get_robust_list, pid, &head, &length) != 0)
			head = 0;
		whose = pid;
	}
	struct iovec here = { &pending, sizeof pending };
	struct iovec there = { (void *)(head + offsetof(struct robust_list_head, list_op_pending)), sizeof pending };
	return head && process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof pending ? pending : 0;
}

/* Notes after which instructions of A's call the pointer or an owner word is another than before. */
static void survey(pid_t pid, long steps)
{
	enum { FEW = 16 };
	static struct {
		uintptr_t pending;
		uint32_t owners[FEW];
	} before, now;
	memset(&now, 0, sizeof now);
	now.pending = pending_of(pid);
	for (int i = 0; i < participants() && i < FEW; i++) {
		now.owners[i] = owner_of(i);
		if (steps > 0 && now.owners[i] == 1 && before.owners[i] != 1)
			current->usual = i;
	}
	if (steps > 0 && memcmp(&before, &now, sizeof now) != 0 && current->n_edges < EDGES)
		current->edges[current->n_edges++] = steps;
	before = now;
}

/* ---- trials ---------------------------------------------------------------------------------------------------------- */

/* The queue when A and B are gone. */
static void account(const struct row *row)
{
	struct msqid_ds ds = { .msg_qnum = 0 };
	long number, mine = 0, others = 0;
	bool over = atomic_load(&sh->over);

	if (msgctl(id, IPC_STAT, &ds) != 0)
		wrong("IPC_STAT: %s", strerror(errno));
	while ((number = received(0, IPC_NOWAIT)) != -1)
		*(number == MINE ? &mine : &others) += 1;
	if (ds.msg_qnum != (unsigned long)(mine + others) || ds.__msg_cbytes != (unsigned long)(mine + others) * LENGTH)
		wrong("IPC_STAT said %lu messages, %lu bytes; there were %ld", ds.msg_qnum, (unsigned long)ds.__msg_cbytes, mine + others);
	if (others != 0)
		wrong("%ld messages too many", others);
	if (mine > 1 || (over && mine != !row->receives))
		wrong("A's message is there %ld times, A's call is %s", mine, over ? "done" : "not done");
	if (msgctl(id, IPC_STAT, &ds) != 0 || ds.msg_qnum != 0 || ds.__msg_cbytes != 0)
		wrong("IPC_STAT of the empty queue: %lu messages, %lu bytes", ds.msg_qnum, (unsigned long)ds.__msg_cbytes);
}

/* B's owner word as it must be. */
static void check_owner(int participant, const char *when)
{
	if (participant >= 0 && owner_of(participant) != 1)
		wrong("%s the owner word of participant %d, which B holds, is %#x", when, participant, owner_of(participant));
}

/* Whether A left a participant that does not show its death. Costs a kilobyte, and whatever it holds, but hurts nobody. */
static bool claimed_by_the_dead(int of_b)
{
	for (int i = 0; i < participants(); i++)
		if (i != of_b && (owner_of(i) & FUTEX_TID_MASK) == 1)
			return true;
	return false;
}

/* From B asleep to B's answer. */
static void wake(pid_t *b_pid, int participant, long type, double went)
{
	struct msqid_ds ds = { .msg_qnum = 0 };
	long number = type + 1;

	pid_t c_pid = fork_alone();
	if (c_pid == 0)
		c();
	int status = 0;
	for (double until = hy_seconds() + 2; c_pid > 0 && waitpid(c_pid, &status, WNOHANG) == 0; usleep(50))
		if (hy_seconds() > until)
			end(&c_pid);
	if (status != 0 || !atomic_load(&sh->c_right))
		wrong("C's calls fail or do not return (status %#x)", (unsigned)status);
	check_owner(participant, "after C");

	bool good = msgctl(id, IPC_STAT, &ds) == 0;
	unsigned long before = ds.msg_qnum;
	good = good && sent(type, number) && msgctl(id, IPC_STAT, &ds) == 0;
	if (!good)
		wrong("a call of the supervisor: %s", strerror(errno));
	if (hy_seconds() - went < FIRST_SLEEP) {
		current->handed++;
		if (good && ds.msg_qnum != before)
			wrong("the message to B is queued, not handed over");
	}
	if (!await(&sh->b_over, b_pid, 2))
		wrong("B does not get its message within 2 s");
	else if (atomic_load(&sh->b_got) != number)
		wrong("B got %ld (%s), not %ld", atomic_load(&sh->b_got), strerror(atomic_load(&sh->b_error)), number);
}

/* One trial; true if A was stopped inside its call. */
static bool trial(int which, long k, bool surveys)
{
	static long type = B_TYPE;
	const struct row *row = &rows[which];
	int status;

	alarm(30);
	type += 2;
	current = &results[which];
	current_k = k;
	snprintf(doing, sizeof doing, "%ld instructions: ", k);
	memset(sh, 0, sizeof *sh);
	if (!row->creates)
		hy_need((id = msgget(IPC_PRIVATE, 0600)) >= 0, "msgget");
	pid_t a_pid = fork_alone();
	if (a_pid == 0)
		a(row);
	hy_need(a_pid > 0 && waitpid(a_pid, &status, 0) == a_pid, "A");
	if (!WIFSTOPPED(status)) {
		wrong("A does not start: status %#x", (unsigned)status);
		if (!row->creates)
			msgctl(id, IPC_RMID, NULL);
		return false;
	}
	ptrace(PTRACE_SETOPTIONS, a_pid, NULL, (void *)(intptr_t)PTRACE_O_EXITKILL);
	if (row->creates)
		id = atomic_load(&sh->id);
	pid_t b_pid = fork_alone();
	if (b_pid == 0)
		b(type);
	hy_need(b_pid > 0, "B");
	if (!await(&sh->b_warm, &b_pid, 5))
		wrong("B does not start");
	open_control();
	if (directory && !control)
		wrong("the control file of queue %d is not in %s", id, directory);

	while (a_pid > 0 && !atomic_load(&sh->begun) && step(&a_pid))
		;
	long steps = 0;
	if (surveys && a_pid > 0)
		survey(a_pid, 0);
	while (a_pid > 0 && steps < k && !atomic_load(&sh->over) && step(&a_pid)) {
		steps++;
		if (surveys && a_pid > 0)
			survey(a_pid, steps);
	}
	bool inside = a_pid > 0 && !atomic_load(&sh->over);
	if (!inside) {
		if (steps > current->longest)
			current->longest = steps;
		if (a_pid > 0 && ptrace(PTRACE_CONT, a_pid, NULL, NULL) == 0 && waitpid(a_pid, &status, 0) == a_pid && !WIFSTOPPED(status))
			a_pid = 0;
		if (!atomic_load(&sh->right))
			wrong("A's call fails");
	}
	snprintf(doing, sizeof doing, "%ld instructions, A at %s: ", steps, inside ? place(a_pid) : "its end");

	double went = hy_seconds();
	if (b_pid > 0 && write(gate[1], "", 1) == 1 && await(&sh->b_begun, &b_pid, 2)) {
		for (double until = went + 2; !asleep(b_pid) && hy_seconds() < until;)
			usleep(50);
		int participant = sleeper_of(type);
		if (!asleep(b_pid) || (control && participant < 0))
			wrong("B does not sleep in the queue");
		check_owner(participant, "before A's death");
		current->met += control && participant == current->usual;
		end(&a_pid);
		check_owner(participant, "after A's death");
		current->unmarked += claimed_by_the_dead(participant);
		wake(&b_pid, participant, type, went);
	} else {
		wrong("B does not go");
	}
	end(&a_pid);
	end(&b_pid);
	account(row);
	if (msgctl(id, IPC_RMID, NULL) != 0)
		wrong("IPC_RMID: %s", strerror(errno));
	close_control();
	current->trials++;
	return inside;
}

/* ---- what is tried, and the verdict ---------------------------------------------------------------------------------- */

/* Why this cannot be run here, or NULL. */
static const char *obstacle(void)
{
	static char text[120];
	int status;

	if (geteuid() != 0)
		return "only root makes pid namespaces";
	own_namespace = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if (own_namespace < 0)
		return "no /proc/self/ns/pid";
	pid_t pid = fork_alone();
	if (pid < 0) {
		snprintf(text, sizeof text, "no pid namespace of one's own: %s", strerror(errno));
		return text;
	}
	if (pid == 0)
		_exit(getpid() != 1 ? 1 : ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 ? 2 : 0);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) == 1)
		return "the first process of a pid namespace is not number 1";
	return WEXITSTATUS(status) == 2 ? "ptrace is not permitted" : NULL;
}

/* The instructions after which it went wrong, as ranges. */
static const char *ranges(const struct result *r)
{
	static char text[300];
	size_t n = 0;
	text[0] = 0;
	for (long k = 0; k < LONGEST && n < sizeof text - 40; k++) {
		if (!r->bad[k])
			continue;
		long last = k;
		while (last + 1 < LONGEST && r->bad[last + 1])
			last++;
		n += (size_t)snprintf(text + n, sizeof text - n, last > k ? "%s%ld-%ld" : "%s%ld", n ? ", " : "", k, last);
		k = last;
	}
	return text;
}

static long drawn(const struct result *r)
{
	if (r->n_edges == 0 || random_below(2))
		return (long)random_below((uint32_t)r->longest + 1);
	long k = r->edges[random_below((uint32_t)r->n_edges)] + (long)random_below(12) - 4;
	return k < 0 ? 0 : k;
}

static void verdict(int which)
{
	const struct result *r = &results[which];
	if (r->wrong)
		hy_check(false, rows[which].name, "%ld complaints in %ld trials, after instructions %s of %ld; first: %s", r->wrong, r->trials,
			 ranges(r), r->longest, r->first);
	else if (r->trials <= 1)
		hy_skip(rows[which].name, "not tried");
	else if (directory && (r->met == 0 || r->handed == 0))
		hy_check(false, rows[which].name, "it shows nothing: of %ld trials B had A's participant in %ld, was still in its first sleep in %ld",
			 r->trials, r->met, r->handed);
	else
		hy_check(true, rows[which].name, "-");
	printf("note: %s: %ld trials over %ld instructions, %ld with B where A was, %ld handed over, %ld with A's death unmarked\n",
	       rows[which].name, r->trials, r->longest, r->met, r->handed, r->unmarked);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' }, { "seed", required_argument, NULL, 'r' }, { "all", no_argument, NULL, 'a' },
		{ "stride", required_argument, NULL, 'd' },  { "from", required_argument, NULL, 'k' }, { "only", required_argument, NULL, 'o' },
		{ "probe", no_argument, NULL, 'p' },	     { NULL, 0, NULL, 0 },
	};
	double seconds = 5;
	uint64_t seed = (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 32);
	bool all = false, probe = false;
	long stride = 1, from = 0;
	const char *only = NULL;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's': seconds = atof(optarg); break;
		case 'r': seed = strtoull(optarg, NULL, 0); break;
		case 'a': all = true; break;
		case 'd': stride = atol(optarg) > 0 ? atol(optarg) : 1; break;
		case 'k': from = atol(optarg); break;
		case 'o': only = optarg; break;
		case 'p': probe = true; break;
		default: fprintf(stderr, "usage: %s [--seconds N] [--seed N] [--all [--stride N] [--from K]] [--only ROW] [--probe]\n", argv[0]); return 2;
		}
	}
	const char *why = obstacle();
	if (probe) {
		if (why)
			puts(why);
		return why ? 77 : 0;
	}
	hy_begin("namesakes", 30);
	if (why) {
		hy_skip("everything", why);
		hy_end();
		return 77;
	}
	printf("note: seed %llu\n", (unsigned long long)seed);
	directory = hy_directory();
	rnd = seed * 2 + 1;
	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	hy_need(sh != MAP_FAILED && pipe2(gate, O_CLOEXEC) == 0, "mmap and pipe2");

	int wanted[ROWS], n = 0;
	for (int r = 0; r < ROWS; r++)
		if (!only || strcmp(only, rows[r].name) == 0)
			wanted[n++] = r;
	for (int i = 0; i < n; i++)
		trial(wanted[i], FAR, true);
	if (all) {
		for (int i = 0; i < n; i++)
			for (long k = from; trial(wanted[i], k, false); k += stride)
				;
	} else {
		for (double until = hy_seconds() + seconds; n > 0 && hy_seconds() < until;) {
			int r = wanted[random_below((uint32_t)n)];
			trial(r, drawn(&results[r]), false);
		}
	}
	for (int i = 0; i < n; i++)
		verdict(wanted[i]);
	return hy_end();
}
