/*
 * step.c: runs the victim instruction by instruction, or straight to one of them.
 *
 * A step costs two changes of process, so a trial that steps all the way to its instruction is a thousand times that. Where the
 * processor has breakpoints (x86-64), a call is stepped through once and its path written down: an address for each instruction. A
 * later victim runs to an instruction by way of a few breakpoints, and steps only where the path repeats itself. That it got there
 * is not taken for granted: a call whose path is another one this time ends (the end is a breakpoint too), falls asleep, or comes by
 * with another stack. Such a trial is made, and then made once more, by steps alone.
 */
#define _GNU_SOURCE
#include "../state.h"
#include "everystep.h"

#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

bool asleep(pid_t pid)
{
	return state_of(pid) == 'S';
}

static pid_t corpse;

/* Waits for the victim to stop or end. False when it has ended. */
static bool await(int *status)
{
	if (waitpid(victim_pid, status, 0) != victim_pid || WIFEXITED(*status) || WIFSIGNALED(*status)) {
		victim_pid = 0;
		return false;
	}
	return true;
}

/* Lets the victim execute one instruction, with a signal or not. False when it has ended. */
bool step(int sig)
{
	int status;
	return ptrace(PTRACE_SINGLESTEP, victim_pid, NULL, (long)sig) == 0 && await(&status);
}

/* Waits for a victim that may fall asleep instead of stopping: then it is left asleep, running, and `slept` is set. */
static bool await_or_sleep(bool *slept, int *status)
{
	for (int turns = 1;; turns++) {
		pid_t there = waitpid(victim_pid, status, WNOHANG);
		if (there == 0) {
			if (turns % 64 == 0) {
				if (asleep(victim_pid)) {
					*slept = true;
					return true;
				}
				usleep(100);
			} else {
				sched_yield();
			}
			continue;
		}
		if (there != victim_pid || WIFEXITED(*status) || WIFSIGNALED(*status)) {
			victim_pid = 0;
			return false;
		}
		return true;
	}
}

/* One instruction of a call that may sleep. */
bool step_or_sleep(bool *slept)
{
	int status;
	return ptrace(PTRACE_SINGLESTEP, victim_pid, NULL, NULL) == 0 && await_or_sleep(slept, &status);
}

/* ---- straight to an instruction ------------------------------------------------------------------------------------ */

#if defined(__x86_64__)

enum { TARGET = 0, END = 1 };        /* the breakpoints: where to go, and what ends it */
enum { EXECUTE = 0, WRITE_WORD = 13 }; /* their kinds, as in DR7: condition and length */

static bool useless; /* breakpoints are refused here */

static bool set_register(int which, uintptr_t value)
{
	return ptrace(PTRACE_POKEUSER, victim_pid, offsetof(struct user, u_debugreg) + sizeof(long) * (size_t)which, value) == 0;
}

/* Sets the breakpoints: TARGET on execution of `to` (unless 0), END on a store to `end`. Nothing is left of them when both are 0. */
static bool set_breakpoints(uintptr_t to, const atomic_int *end)
{
	uintptr_t control = (to ? 1UL << (TARGET * 2) | (uintptr_t)EXECUTE << (16 + TARGET * 4) : 0) |
			    (end ? 1UL << (END * 2) | (uintptr_t)WRITE_WORD << (16 + END * 4) : 0);
	return (!to || set_register(TARGET, to)) && (!end || set_register(END, (uintptr_t)end)) && set_register(7, control);
}

static uintptr_t where(size_t member)
{
	return (uintptr_t)ptrace(PTRACE_PEEKUSER, victim_pid, member, NULL);
}

enum {
	COUNT = offsetof(struct user_regs_struct, rcx),
	STACK = offsetof(struct user_regs_struct, rsp),
	INSTRUCTION = offsetof(struct user_regs_struct, rip)
};

static bool put(size_t member, uintptr_t value)
{
	return ptrace(PTRACE_POKEUSER, victim_pid, member, value) == 0;
}

static uintptr_t instruction(void)
{
	return where(INSTRUCTION);
}

static uintptr_t stack(void)
{
	return where(STACK);
}

bool run_until(const atomic_int *word)
{
	if (!useless) {
		useless = !set_breakpoints(0, word);
		if (!useless) {
			int status;
			bool there = ptrace(PTRACE_CONT, victim_pid, NULL, NULL) == 0 && await(&status) && set_breakpoints(0, NULL);
			if (!there || atomic_load(word))
				return there;
		}
	}
	while (!atomic_load(word))
		if (!step(0))
			return false;
	return true;
}

void note_place(struct path *p)
{
	if (useless)
		return;
	if (p->n == p->room) {
		p->room = p->room ? p->room * 2 : 4096;
		p->at = realloc(p->at, sizeof *p->at * (size_t)p->room);
		if (!p->at)
			abort();
	}
	p->at[p->n++] = (struct place){ .instruction = instruction(), .stack = stack(), .count = where(COUNT) };
}

static int by_instruction(const void *a, const void *b)
{
	const struct place *x = *(const struct place *const *)a, *y = *(const struct place *const *)b;
	if (x->instruction != y->instruction)
		return x->instruction < y->instruction ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* For each place the cheapest way there: by a step from the place before it, or by a breakpoint, set at any place since the last time
 * that its instruction was met. The instruction that a victim stands on when it goes on counts as met, unless a breakpoint stopped it
 * there: that breakpoint lets it pass. And a repeated instruction (`rep movsb`) is many places; into the middle of it there is one more
 * way, below. */
void survey(struct path *p)
{
	const struct place **sorted = malloc(sizeof *sorted * (size_t)(p->n + 1));
	if (!sorted)
		abort();
	for (long i = 0; i < p->n; i++)
		sorted[i] = &p->at[i];
	qsort(sorted, (size_t)p->n, sizeof *sorted, by_instruction);
	for (long i = 0; i < p->n; i++) {
		bool again = i > 0 && sorted[i]->instruction == sorted[i - 1]->instruction;
		p->at[sorted[i] - p->at].from = again ? sorted[i - 1] - p->at : -1;
	}
	free(sorted);
	long repeated = 0; /* where the run of equal instructions begins that the place before belongs to */
	for (long i = 0; i < p->n; i++) {
		struct place *here = &p->at[i];
		if (i && here->instruction == here[-1].instruction && here->count == here[-1].count - 1) {
			here->from = repeated;
			here->cost = p->at[repeated].cost + 2;
			here->by = SHARE;
			continue;
		}
		repeated = i;
		long last = here->from;
		here->cost = i ? p->at[i - 1].cost + 1 : 0;
		here->from = i - 1;
		here->by = STEP;
		long first = last < 0 ? 0 : p->at[last].by == BREAKPOINT ? last : last + 1;
		for (long from = first; from < i; from++)
			if (p->at[from].cost + 1 < here->cost || (here->by == STEP && p->at[from].cost + 1 == here->cost)) {
				here->cost = p->at[from].cost + 1;
				here->from = from;
				here->by = BREAKPOINT;
				if (here->cost <= 1)
					break;
			}
	}
	p->surveyed = true;
}

static bool run_to(uintptr_t to, const atomic_int *end, bool waits, bool *slept)
{
	int status;
	return set_breakpoints(to, end) && ptrace(PTRACE_CONT, victim_pid, NULL, NULL) == 0 &&
	       (waits ? await_or_sleep(slept, &status) : await(&status)) && !*slept && !atomic_load(end) && instruction() == to;
}

/* Into the middle of a repeated instruction: it is given its share of the count and runs to the instruction after it, then it is
 * given the rest and is the next one again. That leaves all registers as a step would. */
static bool run_share(const struct path *p, long from, long k, const atomic_int *end, bool waits, bool *slept)
{
	const struct place *start = &p->at[from];
	long after = k;
	while (after < p->n && p->at[after].instruction == start->instruction)
		after++;
	return after < p->n && where(COUNT) == start->count && put(COUNT, (uintptr_t)(k - from)) &&
	       run_to(p->at[after].instruction, end, waits, slept) && where(COUNT) == 0 && put(COUNT, start->count - (uintptr_t)(k - from)) &&
	       put(INSTRUCTION, start->instruction);
}

/* From place 0 of a path to another, or to its last when it is not that long. Returns the instructions made if all went as the path
 * says, or -1 with the victim stopped somewhere else, ended, or asleep. */
long reach(const struct path *p, long k, const atomic_int *end, bool waits, bool *slept)
{
	static long way[1 << 16];
	if (useless || !p->surveyed || p->n == 0)
		return 0;
	if (k > p->n - 1)
		k = p->n - 1;
	if (p->at[k].cost > (long)(sizeof way / sizeof *way))
		return 0;
	long stops = 0;
	for (long i = k; i > 0; i = p->at[i].from)
		way[stops++] = i;
	bool right = true;
	uintptr_t base = p->fixed ? stack() : 0;
	while (right && stops-- > 0) {
		long i = way[stops];
		const struct place *next = &p->at[i];
		if (next->by == BREAKPOINT)
			right = run_to(next->instruction, end, waits, slept);
		else if (next->by == SHARE)
			right = run_share(p, next->from, i, end, waits, slept);
		else
			right = (waits ? step_or_sleep(slept) : step(0)) && !*slept && !atomic_load(end) && instruction() == next->instruction;
	}
	if (right && p->fixed && base - stack() != p->at[0].stack - p->at[k].stack)
		right = false;
	if (victim_pid > 0 && !*slept)
		set_breakpoints(0, NULL);
	return right ? k : -1;
}

#else

bool run_until(const atomic_int *word)
{
	while (!atomic_load(word))
		if (!step(0))
			return false;
	return true;
}

void note_place(struct path *p)
{
	(void)p;
}

void survey(struct path *p)
{
	(void)p;
}

long reach(const struct path *p, long k, const atomic_int *end, bool waits, bool *slept)
{
	(void)p, (void)k, (void)end, (void)waits, (void)slept;
	return 0;
}

#endif

/* Stops a victim that sleeps, by a signal that it has not got yet. Its sleep may have ended just before, and the step with it: then
 * the signal is pending, and would be there twice when the victim is given it once more. */
void interrupt(int sig)
{
	int status;
	if (victim_pid <= 0)
		return;
	kill(victim_pid, sig);
	while (await(&status) && WSTOPSIG(status) != sig)
		if (ptrace(PTRACE_CONT, victim_pid, NULL, NULL) != 0)
			break;
}

static void end(pid_t *pid)
{
	int status;
	if (*pid <= 0)
		return;
	kill(*pid, SIGKILL);
	do {
		if (waitpid(*pid, &status, 0) < 0)
			break;
	} while (!WIFEXITED(status) && !WIFSIGNALED(status));
	*pid = 0;
}

/* Kills the victim and leaves it a zombie: its death shows by what the system marked, not by its absence. */
void kill_victim(void)
{
	siginfo_t info;
	if (victim_pid <= 0)
		return;
	kill(victim_pid, SIGKILL);
	waitid(P_PID, (id_t)victim_pid, &info, WEXITED | WNOWAIT);
	corpse = victim_pid;
	victim_pid = 0;
}

void bury_victim(void)
{
	kill_victim();
	end(&corpse);
}

void end_sleeper(void)
{
	end(&sleeper_pid);
}

/* Lets it run to its end, with a first signal or not. As long as that takes, now and then `release` does what a call
 * that waits needs. */
void finish_victim(int sig, void (*release)(void))
{
	int status;
	while (victim_pid > 0) {
		if (ptrace(PTRACE_CONT, victim_pid, NULL, (long)sig) != 0)
			break;
		pid_t there;
		int patience = random_below(16) ? 5 : 50;
		for (int turns = 1; (there = waitpid(victim_pid, &status, release ? WNOHANG : 0)) == 0; turns++) {
			usleep(100);
			if (turns % patience == 0)
				release();
		}
		if (there < 0)
			break;
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			victim_pid = 0;
			if (status != 0)
				wrong("the victim ended with status %#x", (unsigned)status);
			return;
		}
		sig = WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
	}
	kill_victim();
}
