/*
 * workloads.c: what is measured on every transport; the main program of each.
 *
 *     bench-TRANSPORT [--milliseconds N] [--operations N] WORKLOAD...
 *
 * prints a line "NAME VALUE" for each result: nanoseconds per operation unless the name says otherwise. A workload is first run
 * with few operations, then several times with so many that all of it takes about as long as asked; the fastest run counts, for
 * whoever else uses the machine can only make one slower. With --operations it is run once with that many. What a transport
 * cannot do is answered by "NAME -".
 */
#define _GNU_SOURCE
#include "bench.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

long first_number, second_number;
struct board *board;

enum { WARM = 32, ROOM = 16384, LONGEST = 8192, PROCESSES = 64, NOTES = 8, RUNS = 4 };

static char text[LONGEST];
static double milliseconds = 40;
long operations;

double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double cpu(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

void must(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

void *shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	must(memory != MAP_FAILED, "mmap");
	return memory;
}

void allow_files(void)
{
	struct rlimit files = { 0, 0 };
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/* ---- children ---- */

static pid_t children[PROCESSES];
static int running;

/*
 * Processes begin on different CPUs, and may run on all that this one may run on: where they stay is the scheduler's choice,
 * and a library that asks how many CPUs it has gets the true answer.
 */
static void spread(int number)
{
	cpu_set_t all, one;
	if (sched_getaffinity(0, sizeof all, &all) == -1)
		return;
	int place = number % CPU_COUNT(&all);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all) && place-- == 0)
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof one, &one);
	sched_setaffinity(0, sizeof all, &all);
}

void child(void (*body)(int), int number)
{
	pid_t pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		spread(number);
		body(number);
		transport_leave();
		_exit(0);
	}
	children[running++] = pid;
}

void finish(void)
{
	int failed = 0;
	for (; running > 0; running--) {
		int status = 0;
		pid_t pid = waitpid(-1, &status, 0);
		if (pid < 0 || status != 0) {
			failed = 1;
			for (int i = 0; i < PROCESSES; i++) /* who waits for it would wait for ever */
				if (children[i] > 0 && children[i] != pid)
					kill(children[i], SIGKILL);
		}
		for (int i = 0; i < PROCESSES; i++)
			if (children[i] == pid)
				children[i] = 0;
	}
	if (failed) {
		fprintf(stderr, "bench: a child failed\n");
		transport_drop();
		exit(1);
	}
}

void meet(int parties)
{
	__atomic_fetch_add(&board->arrived, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&board->arrived, __ATOMIC_ACQUIRE) < parties)
		sched_yield();
}

/* ---- results ---- */

static struct note {
	const char *name;
	double value;
} notes[NOTES], best_notes[NOTES];

void note(const char *name, double value)
{
	for (int i = 0; i < NOTES; i++)
		if (notes[i].name == NULL || strcmp(notes[i].name, name) == 0) {
			notes[i].name = name;
			notes[i].value = value;
			return;
		}
}

/* ---- one process ---- */

static int depth(long size)
{
	return (int)(size < 64 ? ROOM / 64 : ROOM / size);
}

static double pair(long n)
{
	size_t size = (size_t)first_number;
	if (transport_make(1, size, depth(first_number), 0) == -1)
		return -1;
	transport_join(0, SEND | RECEIVE);
	double start = 0;
	for (long i = -WARM; i < n; i++) {
		if (i == 0)
			start = now();
		transport_send(0, text, size);
		transport_receive(0, text, sizeof text);
	}
	double took = now() - start;
	transport_leave();
	transport_drop();
	return took;
}

/* Fills a queue, then drains it. */
static double burst(long n)
{
	size_t size = (size_t)first_number;
	int many = transport_make(1, size, depth(first_number), 0);
	if (many == -1)
		return -1;
	transport_join(0, SEND | RECEIVE);
	double start = 0;
	long done = -(long)many;
	for (; done < n; done += many) {
		if (done == 0)
			start = now();
		for (int i = 0; i < many; i++)
			transport_send(0, text, size);
		for (int i = 0; i < many; i++)
			transport_receive(0, text, sizeof text);
	}
	double took = now() - start;
	transport_leave();
	transport_drop();
	return took * (double)n / (double)done;
}

static double queues_in_turn(long n)
{
	int count = (int)first_number;
	if (transport_make(count, 64, depth(64), 0) == -1) {
		transport_drop();
		return -1;
	}
	for (int q = 0; q < count; q++)
		transport_join(q, SEND | RECEIVE);
	double start = 0;
	for (long i = -count; i < n; i++) {
		if (i == 0)
			start = now();
		int q = (int)((i + count) % count);
		transport_send(q, text, 64);
		transport_receive(q, text, sizeof text);
	}
	double took = now() - start;
	transport_leave();
	transport_drop();
	return took;
}

static double create(long n)
{
	double start = 0;
	for (long i = -4; i < n; i++) {
		if (i == 0)
			start = now();
		if (transport_make(1, 64, depth(64), 0) == -1)
			return -1;
		transport_join(0, SEND | RECEIVE);
		transport_leave();
		transport_drop();
	}
	return now() - start;
}

/* Memory of 16 queues, each with as many messages of a size as it takes, or none. */
static double memory(long n)
{
	enum { COUNT = 16 };
	(void)n;
	size_t size = first_number ? (size_t)first_number : 64;
	if (!transport_bytes || transport_make(COUNT, size, depth((long)size), 0) == -1)
		return -1;
	for (int q = 0; q < COUNT; q++) {
		transport_join(q, SEND);
		for (int i = 0; first_number && i < depth((long)size); i++)
			transport_send(q, text, size);
	}
	double bytes = transport_bytes();
	if (bytes >= 0)
		note("kib", bytes / 1024 / COUNT);
	transport_leave();
	transport_drop();
	return bytes < 0 ? -1 : 0;
}

/* ---- two processes, and more ---- */

static void stream_sender(int number)
{
	(void)number;
	transport_join(0, SEND);
	meet(2);
	for (long i = -WARM; i < operations; i++)
		transport_send(0, text, (size_t)first_number);
}

static void stream_receiver(int number)
{
	transport_join(0, RECEIVE);
	meet(2);
	double start = 0;
	for (long i = -WARM; i < operations; i++) {
		if (i == 0)
			start = now();
		transport_receive(0, text, sizeof text);
	}
	board->end[number] = now() - start;
}

static double stream(long n)
{
	(void)n;
	if (transport_make(1, (size_t)first_number, depth(first_number), 0) == -1)
		return -1;
	child(stream_receiver, 0);
	child(stream_sender, 1);
	finish();
	transport_drop();
	return board->end[0];
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void ping(int number)
{
	double *each = malloc((size_t)operations * sizeof *each);
	must(each != NULL, "malloc");
	transport_join(0, SEND);
	transport_join(1, RECEIVE);
	meet(2);
	double start = 0;
	for (long i = -WARM; i < operations; i++) {
		double before = now();
		if (i == 0)
			start = before;
		transport_send(0, text, 64);
		transport_receive(1, text, sizeof text);
		if (i >= 0)
			each[i] = now() - before;
	}
	board->end[number] = now() - start;
	qsort(each, (size_t)operations, sizeof *each, by_size);
	board->more[0] = each[operations / 2];
	board->more[1] = each[operations * 99 / 100];
}

static void pong(int number)
{
	(void)number;
	transport_join(0, RECEIVE);
	transport_join(1, SEND);
	meet(2);
	for (long i = -WARM; i < operations; i++) {
		transport_receive(0, text, sizeof text);
		transport_send(1, text, 64);
	}
}

static double ping_pong(long n)
{
	(void)n;
	if (transport_make(2, 64, depth(64), 0) == -1)
		return -1;
	child(ping, 0);
	child(pong, 1);
	finish();
	transport_drop();
	note("p50", board->more[0]);
	note("p99", board->more[1]);
	return board->end[0];
}

static void worker(int number)
{
	int side = (int)first_number, sends = number >= side;
	size_t size = (size_t)second_number;
	long mine = operations / side;
	transport_join(0, sends ? SEND : RECEIVE);
	meet(2 * side);
	if (number == 0)
		board->start = now();
	for (long i = 0; i < mine; i++)
		if (sends)
			transport_send(0, text, size);
		else
			transport_receive(0, text, sizeof text);
	board->end[number] = now();
}

static double last_end(int from, int to)
{
	double end = 0;
	for (int i = from; i <= to; i++)
		end = end > board->end[i] ? end : board->end[i];
	return end;
}

static double workers(long n)
{
	int side = (int)first_number;
	operations = (n + side - 1) / side * side;
	if (transport_make(1, (size_t)second_number, depth(second_number), 1) == -1)
		return -1;
	for (int i = 0; i < 2 * side; i++)
		child(worker, i);
	finish();
	transport_drop();
	return (last_end(0, side - 1) - board->start) * (double)n / (double)operations;
}

/* A server, and clients that each have a queue for answers; requests say whose they are. */
static void client(int number)
{
	int clients = (int)first_number;
	long mine = operations / clients;
	transport_join(0, SEND);
	transport_join(number, RECEIVE);
	meet(clients + 1);
	memcpy(text, &number, sizeof number);
	for (long i = 0; i < mine; i++) {
		transport_send(0, text, 64);
		transport_receive(number, text, sizeof text);
	}
	board->end[number] = now();
}

static void server(int number)
{
	int clients = (int)first_number;
	transport_join(0, RECEIVE);
	for (int i = 1; i <= clients; i++)
		transport_join(i, SEND);
	meet(clients + 1);
	board->start = now();
	for (long i = 0; i < operations; i++) {
		transport_receive(0, text, sizeof text);
		memcpy(&number, text, sizeof number);
		transport_send(number, text, 64);
	}
}

double serve_clients(long n, int queues, void (*server)(int), void (*client)(int))
{
	int clients = (int)first_number;
	operations = (n + clients - 1) / clients * clients;
	if (transport_make(queues, 64, depth(64), 1) == -1)
		return -1;
	child(server, 0);
	for (int i = 1; i <= clients; i++)
		child(client, i);
	finish();
	transport_drop();
	return (last_end(1, clients) - board->start) * (double)n / (double)operations;
}

static double request_reply(long n)
{
	return serve_clients(n, (int)first_number + 1, server, client);
}

/* What waiting costs: a receiver that is sent nothing for two seconds. */
static void sleeper(int number)
{
	(void)number;
	transport_join(0, RECEIVE);
	struct rusage usage;
	meet(2);
	transport_receive(0, text, sizeof text); /* it knows the queue then */
	getrusage(RUSAGE_SELF, &usage);
	double wakes = (double)usage.ru_nvcsw, start = now(), before = cpu();
	transport_receive(0, text, sizeof text);
	double seconds = (now() - start) / 1e9, after = cpu();
	getrusage(RUSAGE_SELF, &usage);
	board->cpu[0] = (after - before) / seconds;
	board->more[0] = ((double)usage.ru_nvcsw - wakes - 1) / seconds; /* one is the message's */
}

static void late_sender(int number)
{
	(void)number;
	transport_join(0, SEND);
	meet(2);
	transport_send(0, text, 64);
	usleep(2000000);
	transport_send(0, text, 64);
}

static double blocked(long n)
{
	(void)n;
	if (transport_make(1, 64, depth(64), 0) == -1)
		return -1;
	child(sleeper, 0);
	child(late_sender, 1);
	finish();
	transport_drop();
	note("cpu-us-per-s", board->cpu[0] / 1e3);
	note("wakes-per-s", board->more[0] < 0 ? 0 : board->more[0]);
	return 0;
}

/* A peer that answers after a millisecond: CPU time of both, per round trip. */
static void patient(int number)
{
	int asks = number == 0;
	transport_join(0, asks ? SEND : RECEIVE);
	transport_join(1, asks ? RECEIVE : SEND);
	meet(2);
	double before = 0;
	for (long i = -4; i < operations; i++) {
		if (i == 0)
			before = cpu();
		if (asks) {
			transport_send(0, text, 64);
			transport_receive(1, text, sizeof text);
		} else {
			transport_receive(0, text, sizeof text);
			usleep(1000);
			transport_send(1, text, 64);
		}
	}
	board->cpu[number] = cpu() - before;
}

static double slow_peer(long n)
{
	operations = 100;
	(void)n;
	if (transport_make(2, 64, depth(64), 0) == -1)
		return -1;
	child(patient, 0);
	child(patient, 1);
	finish();
	transport_drop();
	note("cpu", (board->cpu[0] + board->cpu[1]) / (double)operations);
	return 0;
}

/* ---- choosing ---- */

static const struct workload common[] = {
	{ "pair", pair, 200 },
	{ "burst", burst, 512 },
	{ "queues", queues_in_turn, 1000 },
	{ "create", create, 10 },
	{ "memory", memory, 0 },
	{ "stream", stream, 500 },
	{ "ping-pong", ping_pong, 200 },
	{ "workers", workers, 512 },
	{ "request-reply", request_reply, 256 },
	{ "blocked", blocked, 0 },
	{ "slow-peer", slow_peer, 0 },
	{ NULL, NULL, 0 },
};

static const struct workload *find(const struct workload *list, const char *name)
{
	for (; list->name != NULL; list++)
		if (strcmp(list->name, name) == 0)
			return list;
	return NULL;
}

/* Takes a number off the end of a name; 0 if there is none. */
static long take_number(char *name)
{
	char *dash = strrchr(name, '-');
	if (dash == NULL || dash[1] < '0' || dash[1] > '9')
		return 0;
	long number = strtol(dash + 1, NULL, 10);
	*dash = 0;
	return number;
}

static double run(const struct workload *workload, long n)
{
	memset(board, 0, sizeof *board);
	operations = n;
	return workload->run(n);
}

/* A function of its own, for run.py lets valgrind tell what each cost. */
__attribute__((noinline)) static void measure(const char *whole, long fixed)
{
	char name[128];
	snprintf(name, sizeof name, "%s", whole);
	first_number = take_number(name);
	second_number = 0;
	long before = take_number(name);
	if (before) {
		second_number = first_number;
		first_number = before;
	}
	const struct workload *workload = transport_workloads ? find(transport_workloads, name) : NULL;
	workload = workload ? workload : find(common, name);
	if (workload == NULL) {
		fprintf(stderr, "bench: no workload %s\n", name);
		exit(2);
	}
	long n = fixed ? fixed : workload->first;
	double took = run(workload, n), wanted = milliseconds * 1e6 / RUNS;
	while (!fixed && n > 0 && took >= 0 && took < wanted / 2) {
		double more = took > 0 ? wanted / took : 20;
		n = (long)((double)n * (more < 1.5 ? 1.5 : more > 20 ? 20 : more));
		took = run(workload, n);
	}
	memcpy(best_notes, notes, sizeof notes);
	for (int i = 1; !fixed && n > 0 && took >= 0 && i < RUNS; i++) {
		double again = run(workload, n);
		if (again < took) {
			took = again;
			memcpy(best_notes, notes, sizeof notes);
		}
	}
	if (took < 0)
		printf("%s -\n", whole);
	else if (n > 0)
		printf("%s %.1f\n", whole, took / (double)n);
	for (int i = 0; i < NOTES && best_notes[i].name != NULL; i++)
		printf("%s:%s %.3f\n", whole, best_notes[i].name, best_notes[i].value);
	memset(notes, 0, sizeof notes);
	fflush(stdout);
}

int main(int count, char **arguments)
{
	long fixed = 0;
	board = shared(sizeof *board);
	for (int i = 1; i < count; i++) {
		if (strcmp(arguments[i], "--milliseconds") == 0 && i + 1 < count)
			milliseconds = strtod(arguments[++i], NULL);
		else if (strcmp(arguments[i], "--operations") == 0 && i + 1 < count)
			fixed = strtol(arguments[++i], NULL, 10);
		else
			measure(arguments[i], fixed);
	}
	return 0;
}
