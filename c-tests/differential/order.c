/*
 * order.c: who comes first, made to vary.
 *
 * Who comes first of several that act at once, or were woken at once, is the kernel's choice; but on a quiet machine it nearly always
 * chooses alike: the conductor's own call was before that of an actor, who must first wake up, in each of two thousand runs. So waiting for
 * the other order is no way to see it, and a run whose number is not 0 is perturbed:
 *
 *   - In two of three, order is ours. All are on one processor, with real-time priorities, and before each operation the priorities of some
 *     are drawn anew, above or below the conductor's. Who is above it acts as soon as it is told; who is below waits for the conductor's
 *     next sleep, and then the highest goes first. Drawn anew, because one order for a whole run never shows a before b and later b before a.
 *   - In the third, everybody acts on a processor drawn by lot, after a moment drawn by lot, from nothing to half a millisecond: that makes
 *     calls overlap, and is what is left where real-time priorities are not to be had.
 *
 * Everything is drawn from the number of the run. None of it adds an outcome to those that are possible: processes may be that slow.
 */
#include "execute.h"

#include <sched.h>
#include <sys/resource.h>
#include <time.h>

enum { OUR_PRIORITY = 50 };

static int processors[CPU_SETSIZE], processor_count;

static int lagging(void)
{
	return side->perturb % 4 == 3;
}

static uint32_t draw(uint32_t number, uint32_t what, uint32_t below)
{
	return (uint32_t)(mix(mix(side->perturb) + number * 64 + what) >> 32) % below;
}

static void go_to_processor(uint32_t which)
{
	cpu_set_t one;
	if (processor_count == 0)
		return;
	CPU_ZERO(&one);
	CPU_SET(processors[which % (uint32_t)processor_count], &one);
	sched_setaffinity(0, sizeof one, &one);
}

static void set_priority(pid_t pid, int priority)
{
	struct sched_param param = { .sched_priority = priority };
	if (sched_setscheduler(pid, SCHED_FIFO, &param) != 0)
		setpriority(PRIO_PROCESS, (id_t)pid, 20 - priority * 2 / 5);
}

/* The conductor's; actors inherit it. */
void perturb(void)
{
	cpu_set_t all;
	if (sched_getaffinity(0, sizeof all, &all) == 0)
		for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
			if (CPU_ISSET(cpu, &all))
				processors[processor_count++] = cpu;
	if (lagging())
		return;
	go_to_processor(draw(0, 0, 1u << 16));
	set_priority(0, OUR_PRIORITY);
}

/* Whether somebody else may be in a call while this operation is carried out. */
int in_haste(uint32_t number)
{
	return side->blocking && (side->ops[number].hasty || (number > 0 && side->ops[number - 1].hasty));
}

/* Before an operation, by who carries it out; not by an actor that is in its call, whose sleep would pass for one in the queue. */
void lag(uint32_t number)
{
	struct timespec begun, t;
	uint32_t what = me ? 2 : 1, length = draw(number, what, 12);
	if (!side->perturb || !lagging() || !in_haste(number))
		return;
	go_to_processor(draw(number, what + 2, 1u << 16));
	if (length < 2)
		return;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do {
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((t.tv_sec - begun.tv_sec) * 1000000000 + t.tv_nsec - begun.tv_nsec < 500L << length >> 1);
}

/* Before each operation, by the conductor. */
void draw_priorities(uint32_t number)
{
	if (!side->perturb || lagging())
		return;
	for (uint32_t a = 1; a < ACTORS; a++) {
		struct actor *actor = &side->actors[a];
		/* Only half of them, so that somebody can also be slow over many operations. */
		if (!actor->pid || actor->dead || draw(number, 8 + a, 2))
			continue;
		int priority = 1 + (int)draw(number, 16 + a, 98);
		set_priority(actor->pid, priority + (priority >= OUR_PRIORITY));
	}
}

void yield(void)
{
	struct timespec moment = { 0, 20000 };
	if (side->perturb)
		nanosleep(&moment, NULL);
	else
		sched_yield();
}
