/*
 * mappings.c: queues that are gone leave nothing behind.
 *
 *   mappings   after creating, using and removing 2000 queues the process has as many mappings as after the first few
 *   space      and its address space has not grown by more than a little
 *   files      and the namespace directory holds what it held after the first few: no file of a removed queue
 *   blocks     and takes no more disk blocks
 *   others     queues that other processes removed: their mappings go as well, at the latest when more queues are used
 *   children   queues made and used by children that ended without removing them can be removed by the parent, without rest
 *   held       a queue removed while another process has it mapped and sleeps on it: no file is left, the sleeper is woken
 */
#include "hygiene.h"

#include <sys/wait.h>

static struct hy_message m;

static long address_space_kb(void)
{
	long pages = -1;
	FILE *f = fopen("/proc/self/statm", "r");
	if (f) {
		if (fscanf(f, "%ld", &pages) != 1)
			pages = -1;
		fclose(f);
	}
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static bool use(int id)
{
	m.mtype = 1;
	return msgsnd(id, &m, 100, IPC_NOWAIT) == 0 && msgsnd(id, &m, 3000, IPC_NOWAIT) == 0 &&
	       msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) == 100;
}

static bool cycle(key_t key)
{
	int id = msgget(key, IPC_CREAT | 0600);
	return id >= 0 && use(id) && msgctl(id, IPC_RMID, NULL) == 0;
}

/* Uses n queues that a child then removes, and touches the stale identifiers. */
static bool removed_by_child(int n)
{
	static int id[1000];
	int status = -1;
	bool good = true;

	for (int i = 0; i < n; i++) {
		id[i] = msgget(IPC_PRIVATE, 0600);
		good = good && id[i] >= 0 && use(id[i]);
	}
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < n; i++)
			if (msgctl(id[i], IPC_RMID, NULL) != 0)
				_exit(1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	for (int i = 0; i < n; i++)
		good = good && msgsnd(id[i], &m, 1, IPC_NOWAIT) == -1 && errno == EINVAL;
	return good && status == 0;
}

int main(void)
{
	const char *directory = hy_directory();
	struct hy_usage first = { 0, 0, 0 }, later = { 0, 0, 0 };
	key_t key = (key_t)(0x57000000 + (getpid() & 0xffffff));
	bool good = true;

	hy_begin("mappings", 120);
	for (int i = 0; i < 10; i++)
		good = good && cycle(i % 2 ? key : IPC_PRIVATE);
	hy_need(good, "first queues");
	long maps = hy_lines("/proc/self/maps"), space = address_space_kb();
	if (directory)
		hy_tree(directory, &first, false);

	for (int i = 0; i < 2000; i++)
		good = good && cycle(i % 2 ? key + i / 2 : IPC_PRIVATE);
	long maps_after = hy_lines("/proc/self/maps"), space_after = address_space_kb();
	hy_check(good, "cycles", "a call failed: %s", strerror(errno));
	hy_check(maps_after <= maps + 2, "mappings", "%ld became %ld", maps, maps_after);
	hy_check(space_after <= space + 4096, "space", "%ld KiB of address space became %ld", space, space_after);
	if (directory) {
		hy_tree(directory, &later, false);
		if (!hy_check(later.files <= first.files && later.directories <= first.directories, "files",
			      "%ld files and %ld directories became %ld and %ld", first.files, first.directories, later.files,
			      later.directories))
			hy_tree(directory, &later, true);
		hy_check(later.blocks <= first.blocks + 16, "blocks", "%ld blocks became %ld", first.blocks, later.blocks);
	} else {
		hy_skip("files", "no USYSV_DIR, or the kernel's queues");
		hy_skip("blocks", "no USYSV_DIR, or the kernel's queues");
	}

	good = true;
	for (int i = 0; i < 5; i++)
		good = good && removed_by_child(400);
	hy_check(good, "others-calls", "a call went wrong");
	for (int i = 0; i < 100; i++)
		cycle(IPC_PRIVATE);
	maps_after = hy_lines("/proc/self/maps");
	hy_check(maps_after <= maps + 100, "others", "2000 queues removed by others: %ld mappings became %ld", maps, maps_after);

	/* Children that leave their queues behind. */
	int ends[2], left = 0;
	hy_need(pipe(ends) == 0, "pipe");
	fflush(stdout);
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			int id = msgget(IPC_PRIVATE, 0600);
			if (id < 0 || !use(id) || write(ends[1], &id, sizeof id) != sizeof id)
				_exit(1);
			if (i % 2)
				raise(SIGKILL);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	for (int i = 0; i < 20; i++) {
		int id;
		if (read(ends[0], &id, sizeof id) != sizeof id)
			break;
		left += msgrcv(id, &m, sizeof m.mtext, 0, IPC_NOWAIT) == 3000 && msgctl(id, IPC_RMID, NULL) == 0;
	}
	hy_check(left == 20, "children", "only %d of 20 queues of ended children could be used and removed", left);

	/* A sleeper. */
	int id = msgget(IPC_PRIVATE, 0600), status = -1;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(msgrcv(id, &m, sizeof m.mtext, 0, 0) == -1 && errno == EIDRM ? 0 : 1);
	usleep(100000);
	hy_need(msgctl(id, IPC_RMID, NULL) == 0, "IPC_RMID");
	double t = hy_seconds();
	waitpid(pid, &status, 0);
	t = hy_seconds() - t;
	hy_check(status == 0 && t < 1.5, "held", "the sleeper's status is %#x after %.1f s", (unsigned)status, t);
	if (directory) {
		memset(&later, 0, sizeof later);
		hy_tree(directory, &later, false);
		if (!hy_check(later.files <= first.files, "files-at-end", "%ld files became %ld", first.files, later.files))
			hy_tree(directory, &later, true);
	} else {
		hy_skip("files-at-end", "no USYSV_DIR, or the kernel's queues");
	}
	return hy_end();
}
