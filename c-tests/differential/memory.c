/*
 * memory.c: memory that calls are given, good and bad, with canaries around it.
 */
#include "execute.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GOOD_PAGES = 17, CANARY = 64 };

unsigned char *good;
static unsigned char *bad_end[BUFFERS];

static unsigned char *map(void *where, size_t pages, int fd)
{
	int flags = MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0) | (where ? MAP_FIXED_NOREPLACE : 0);
	unsigned char *p = mmap(where, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (p == MAP_FAILED) {
		perror("differential: mmap");
		_exit(3);
	}
	return p;
}

void make_memory(void)
{
	size_t n = GOOD_PAGES;
	unsigned char *p;
	int fd = memfd_create("short", MFD_CLOEXEC);

	good = map(NULL, n + 2, -1);
	p = map(NULL, n + 1, -1);
	mprotect(p + n * PAGE, PAGE, PROT_NONE);
	bad_end[NO_ACCESS] = p + n * PAGE;
	/* Where no other mapping ever comes to lie: a hole that stays one. */
	p = map((void *)0x200000000000, n + 1, -1);
	munmap(p + n * PAGE, PAGE);
	bad_end[UNMAPPED] = p + n * PAGE;
	p = map(NULL, n + 1, -1);
	mprotect(p + n * PAGE, PAGE, PROT_READ);
	bad_end[READ_ONLY] = p + n * PAGE;
	if (fd < 0 || ftruncate(fd, (off_t)(n * PAGE)) != 0)
		_exit(3);
	bad_end[BEYOND_FILE] = map(NULL, n + 1, fd) + n * PAGE;
	close(fd);
}

int64_t msgmax(void)
{
	int limit = limits_of[side->limits].msgmax;
	return limit > TEXT_MAX ? limit : TEXT_MAX;
}

struct place place_of(const struct op *op, int64_t want)
{
	struct place p = { 0 };
	size_t need = (size_t)(want < 0 || want > msgmax() ? msgmax() : want) + 8;
	if (op->buffer == AT_NULL || op->buffer == AT_MINUS_ONE) {
		p.buffer = op->buffer == AT_NULL ? NULL : (unsigned char *)-1;
		return p;
	}
	if (op->buffer == GOOD) {
		p.buffer = good + PAGE + op->align % 8;
		p.to = p.buffer + need + CANARY;
	} else {
		p.buffer = bad_end[op->buffer] - op->good;
		p.to = bad_end[op->buffer];
		if (p.to > p.buffer + need + CANARY)
			p.to = p.buffer + need + CANARY;
	}
	p.from = p.buffer - CANARY;
	return p;
}

static uint64_t next(uint64_t x)
{
	return x * 6364136223846793005u + 1442695040888963407u;
}

void fill(unsigned char *from, unsigned char *to, uint64_t seed)
{
	uint64_t x = mix(seed);
	for (; to - from >= 8; from += 8, x = next(x))
		memcpy(from, &x, 8);
	memcpy(from, &x, (size_t)(to - from));
}

uint64_t hash(const unsigned char *from, const unsigned char *to, uint64_t h)
{
	uint64_t x;
	for (; to - from >= 8; from += 8) {
		memcpy(&x, from, 8);
		h = (h ^ x) * 0x9fb21c651e98df25;
		h ^= h >> 29;
	}
	x = 0;
	memcpy(&x, from, (size_t)(to - from));
	h = (h ^ x) * 0x9fb21c651e98df25;
	return h ^ h >> 32;
}
