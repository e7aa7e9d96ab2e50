/*
 * bench.h: what a workload knows of a transport.
 *
 * workloads.c holds the workloads that every kind of queue can do, against these functions; each transport is a file that
 * defines them, and a program of its own: bench-sysv (which is the kernel's queues, or ours when preloaded), bench-pipe and so
 * on. run.py runs them in turn and compares.
 *
 * A queue holds `depth` texts of up to `size` bytes, where the transport lets us choose, so that all have the room that a
 * System V queue has by default: 16384 bytes.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SEND = 1, RECEIVE = 2 };

/*
 * Makes queues 0 ... count - 1. `many` is set when more than one process sends, or receives, on one. Answers how many texts fit
 * in each; -1 if it cannot do that.
 */
int transport_make(int count, size_t size, int depth, int many);

/* Called in each process before it uses a queue in that role. */
void transport_join(int queue, int role);

/* Both wait as long as it takes; what goes wrong ends the program. */
void transport_send(int queue, const void *text, size_t size);
void transport_receive(int queue, void *text, size_t room);

/* A process that has joined is about to exit. */
void transport_leave(void);

/* The queues go, and nothing of them stays. */
void transport_drop(void);

/* The memory that the queues take, in bytes, less than 0 if that cannot be told. */
double transport_bytes(void) __attribute__((weak));

/* A workload: `run` answers the nanoseconds that `n` operations took, less than 0 if the transport cannot do that. */
struct workload {
	const char *name;
	double (*run)(long n);
	long first; /* how many operations at first; 0: run once and report what it noted, no more */
};

/* What only one transport has, or has in a way of its own: looked at first. Ends with a null name. */
extern const struct workload transport_workloads[] __attribute__((weak));

/* The numbers at the end of the workload's name: pair-64, workers-4-64. */
extern long first_number, second_number;

/* Another result of this workload, beside nanoseconds per operation. */
void note(const char *name, double value);

double now(void);
void must(int good, const char *what);

/* Runs `body(number)` in a child; `finish` waits for all of them. */
void child(void (*body)(int), int number);
void finish(void);

/* Memory that children share: room for what they tell, set to zero before each run. */
struct board {
	int arrived;
	double start;
	double end[64];
	double cpu[64];
	double more[64];
};
extern struct board *board;
/* Waits until as many processes have come here. */
void meet(int parties);

void *shared(size_t size);

/* As many open files as this process may have. */
void allow_files(void);

/*
 * A server, which receives from queue 0, and as many clients as the first number says, which are children 1, 2, ...: `operations` requests
 * in all, about `n`. The server notes the start on the board, each client its end. Answers what `n` took.
 */
double serve_clients(long n, int queues, void (*server)(int), void (*client)(int));
extern long operations; /* of the run at hand */

#ifdef __cplusplus
}
#endif
#endif
