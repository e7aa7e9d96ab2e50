/*
 * conductor.c: gives the operations of a list to the actors, or carries them out itself, one after the other.
 *
 * Blocking. After each operation of a scene the conductor waits until everybody is through or asleep: /proc/PID/stat says 'S' while the actor is
 * in its call (phase IN_CALL). A wake-up makes a sleeper runnable before the waker's call returns, so a state 'S' seen after the waker is
 * done says that the sleeper was not woken, or sleeps again. Two rounds without a change, and the next operation follows.
 */
#include "execute.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void start_actor(int a)
{
	struct actor *actor = &side->actors[a];
	char path[64];
	pid_t pid;

	memset(actor, 0, offsetof(struct actor, pid));
	actor->busy = actor->stopped = actor->dead = 0;
	pid = fork();
	if (pid < 0)
		_exit(3);
	if (pid == 0) {
		me = a;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		act();
		_exit(0);
	}
	actor->pid = pid;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	actor->stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (actor->stat_fd < 0)
		_exit(3);
}

static char state_of(struct actor *actor)
{
	char text[256];
	ssize_t n = pread(actor->stat_fd, text, sizeof text - 1, 0);
	char *end;
	if (n <= 0)
		return 0;
	text[n] = 0;
	end = strrchr(text, ')');
	return end && end[1] == ' ' ? end[2] : 0;
}

/* It died in the operation it was at: that is what came of it. */
static int has_died(struct actor *actor, uint32_t now)
{
	int status;
	if (waitpid(actor->pid, &status, WNOHANG) != actor->pid)
		return 0;
	uint32_t i = actor->from;
	while (i + 1 < actor->to && side->records[i].outcome != NOT_RUN)
		i++;
	side->records[i] = (struct record){ .outcome = DIED, .error = WIFSIGNALED(status) ? WTERMSIG(status) : -1, .done_at = (int32_t)now };
	actor->busy = actor->stopped = 0;
	actor->dead = 1;
	close(actor->stat_fd);
	return 1;
}

static int is_over(struct actor *actor)
{
	return atomic_load(&actor->over) == atomic_load(&actor->go);
}

static void give(struct actor *actor, uint32_t from, uint32_t to)
{
	actor->from = from;
	actor->to = to;
	actor->busy = 1;
	actor->arrived = from;
	actor->receiving = side->ops[from].kind == RECEIVE;
	actor->queue = id_of(&side->ops[from]);
	atomic_fetch_add(&actor->go, 1);
	futex_wake(&actor->go);
}

/* Waits until an actor is through with calls that do not block. */
static void await(struct actor *actor, uint32_t now)
{
	for (int spin = 0; !is_over(actor); spin++) {
		if (spin < 500) {
			pause_cpu();
			continue;
		}
		uint32_t over = atomic_load(&actor->over);
		if (over == atomic_load(&actor->go))
			break;
		futex_wait(&actor->over, over, 20);
		if (has_died(actor, now))
			return;
	}
	actor->busy = 0;
}

/* Waits until everybody is through, or blocked. */
static void settle(uint32_t now)
{
	for (int quiet = 0; quiet < 2;) {
		int changed = 0;
		for (int a = 1; a < ACTORS; a++) {
			struct actor *actor = &side->actors[a];
			if (!actor->pid || !actor->busy)
				continue;
			if (is_over(actor)) {
				side->records[actor->from].done_at = (int32_t)now;
				actor->busy = 0;
				changed = 1;
				continue;
			}
			int in_call = atomic_load(&actor->phase) == IN_CALL;
			char state = state_of(actor);
			if ((state == 0 || state == 'Z') && has_died(actor, now))
				changed = 1;
			else if (actor->stopped ? state != 'T' : state != 'S' || !in_call || is_over(actor))
				changed = 1;
		}
		quiet = changed ? 0 : quiet + 1;
		if (changed)
			yield();
	}
}

/* Whether a receiver that came later than this one waits at the same queue. */
static int is_overtaken(const struct actor *one)
{
	for (int a = 1; a < ACTORS; a++) {
		const struct actor *other = &side->actors[a];
		if (other != one && other->busy && other->receiving && other->queue == one->queue && other->arrived > one->arrived)
			return 1;
	}
	return 0;
}

/* Signals and the like, for an actor that is blocked. */
static void disturb(const struct op *op, struct record *r)
{
	struct actor *actor = &side->actors[op->slot % ACTORS];
	r->outcome = DONE;
	if (!actor->pid || actor->dead || !actor->busy || (op->kind == CONTINUE) != (actor->stopped == 1)) {
		r->outcome = BUSY;
		return;
	}
	switch (op->kind) {
	case SIGNAL:
		side->handler_result = 2000;
		kill(actor->pid, SIGRTMIN + op->flags % NOTICES);
		if (op->flags % NOTICES == IGNORED)
			break;
		/* A handler ran when it has left its mark. */
		for (int i = 0; side->handler_result == 2000 && i < 200000; i++)
			yield();
		r->result = side->handler_result;
		r->error = side->handler_error;
		break;
	case STOP:
		kill(actor->pid, SIGSTOP);
		actor->stopped = 1;
		for (int i = 0; state_of(actor) != 'T' && i < 200000; i++)
			yield();
		break;
	case CONTINUE:
		if (actor->receiving && (side->avoid & AVOID_STOPPED_ORDER) && is_overtaken(actor)) {
			r->outcome = AVOIDED;
			atomic_fetch_add(&side->avoided, 1);
			return;
		}
		actor->stopped = 0;
		kill(actor->pid, SIGCONT);
		actor->arrived = (uint32_t)(op - side->ops);
		break;
	default:
		kill(actor->pid, SIGKILL);
		while (!has_died(actor, (uint32_t)(op - side->ops)))
			yield();
		break;
	}
}

void conduct(void)
{
	uint32_t count = side->count;

	side->begun = time(NULL);
	for (int s = 0; s < SLOTS; s++)
		side->ids[s] = side->former[s] = -1 - s % 2 * INT_MAX;
	prepare_operations();
	side->actors[0].pid = getpid();
	if (side->perturb)
		perturb();

	for (uint32_t i = 0; i < count;) {
		const struct op *op = &side->ops[i];
		struct actor *actor = &side->actors[op->actor % ACTORS];
		uint32_t to = i + 1;
		if (op->kind < SIGNAL && op->actor != 0 && !actor->busy && (!actor->pid || actor->dead))
			start_actor(op->actor);
		draw_priorities(i);
		if (op->kind < SIGNAL)
			lag(i);
		if (op->kind >= SIGNAL) {
			disturb(op, &side->records[i]);
		} else if (op->actor == 0) {
			do_op(i);
		} else if (actor->busy) {
			side->records[i].outcome = BUSY;
		} else {
			if (!side->blocking)
				while (to < count && side->ops[to].actor == op->actor && side->ops[to].kind < SIGNAL)
					to++;
			give(actor, i, to);
			if (!side->blocking)
				await(actor, i);
		}
		/* The next does not wait, unless it is about somebody who must be known to be blocked. */
		if (side->blocking && !(op->hasty && to < count && side->ops[to].kind < SIGNAL))
			settle(i);
		i = to;
	}
	for (int a = 1; a < ACTORS; a++)
		if (side->actors[a].busy)
			side->records[side->actors[a].from].outcome = STILL_BLOCKED;
}
