/*
 * ring.c: a bare ring in shared memory as a transport: the limit of what shared memory allows.
 *
 * One sender, one receiver, a slot each for `depth` texts, two counters that are each written by one side; no types, no
 * permissions, no faults survived, nobody sleeps. Where many share it there is a lock around each side, as simple as can be.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

struct side {
	_Alignas(64) _Atomic uint64_t count;
	uint64_t seen; /* of the other side's count */
	atomic_flag lock;
};

struct ring {
	struct side in, out;
	_Alignas(64) char slots[];
};

static char *memory;
static size_t ring_bytes, slot_bytes, all;
static uint64_t slots;
static int locked;

int transport_make(int count, size_t size, int depth, int many)
{
	slots = 1;
	while (slots < (uint64_t)depth)
		slots *= 2;
	locked = many;
	slot_bytes = (size + sizeof(size_t) + 63) / 64 * 64;
	ring_bytes = sizeof(struct ring) + slots * slot_bytes;
	all = (size_t)count * ring_bytes;
	memory = shared(all);
	return depth;
}

void transport_join(int queue, int role)
{
	(void)queue, (void)role;
}

static inline void pause_or_yield(int *tries)
{
	if (++*tries % 100 == 0)
		sched_yield();
	else
		__builtin_ia32_pause();
}

static inline void lock(struct side *side)
{
	int tries = 0;
	while (locked && atomic_flag_test_and_set_explicit(&side->lock, memory_order_acquire))
		pause_or_yield(&tries);
}

static inline void unlock(struct side *side)
{
	if (locked)
		atomic_flag_clear_explicit(&side->lock, memory_order_release);
}

static inline struct ring *ring(int queue)
{
	return (struct ring *)(memory + (size_t)queue * ring_bytes);
}

void transport_send(int queue, const void *text, size_t size)
{
	struct ring *r = ring(queue);
	int tries = 0;
	lock(&r->in);
	uint64_t count = atomic_load_explicit(&r->in.count, memory_order_relaxed);
	while (count - r->in.seen >= slots) {
		r->in.seen = atomic_load_explicit(&r->out.count, memory_order_acquire);
		if (count - r->in.seen >= slots)
			pause_or_yield(&tries);
	}
	char *slot = r->slots + (count & (slots - 1)) * slot_bytes;
	memcpy(slot, &size, sizeof size);
	memcpy(slot + sizeof size, text, size);
	atomic_store_explicit(&r->in.count, count + 1, memory_order_release);
	unlock(&r->in);
}

void transport_receive(int queue, void *text, size_t room)
{
	struct ring *r = ring(queue);
	int tries = 0;
	lock(&r->out);
	uint64_t count = atomic_load_explicit(&r->out.count, memory_order_relaxed);
	while (r->out.seen == count) {
		r->out.seen = atomic_load_explicit(&r->in.count, memory_order_acquire);
		if (r->out.seen == count)
			pause_or_yield(&tries);
	}
	const char *slot = r->slots + (count & (slots - 1)) * slot_bytes;
	size_t size;
	memcpy(&size, slot, sizeof size);
	memcpy(text, slot + sizeof size, size < room ? size : room);
	atomic_store_explicit(&r->out.count, count + 1, memory_order_release);
	unlock(&r->out);
}

void transport_leave(void) {}

void transport_drop(void)
{
	munmap(memory, all);
}
