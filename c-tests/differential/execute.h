/*
 * execute.h: what the parts of a server share. The head of execute.c tells who forks whom.
 *
 *   memory.c      memory that calls are given
 *   operations.c  one operation: the call, and what is written down of it
 *   actor.c       who carries operations out, or blocks in them
 *   order.c       who comes first, made to vary
 *   conductor.c   gives a list's operations to the actors, one after the other
 *   execute.c     the server: a conductor for each list
 */
#ifndef EXECUTE_H
#define EXECUTE_H

#include "protocol.h"

enum phase { IDLE, IN_CALL };

extern struct side *side;
extern int me; /* actor */

/* memory.c */
/* A buffer, and the memory around it that is watched. */
struct place {
	unsigned char *buffer, *from, *to;
};
enum { PAGE = 4096 };
extern unsigned char *good; /* from its second page on it is a buffer */
void make_memory(void);
int64_t msgmax(void);
struct place place_of(const struct op *op, int64_t want);
void fill(unsigned char *from, unsigned char *to, uint64_t seed);
uint64_t hash(const unsigned char *from, const unsigned char *to, uint64_t h);

/* operations.c */
#define CALLS(n) atomic_fetch_add_explicit(&side->calls, (uint64_t)(n), memory_order_relaxed)
void prepare_operations(void);
int id_of(const struct op *op);
void do_op(uint32_t number);

/* actor.c */
void futex_wait(_Atomic uint32_t *word, uint32_t value, long milliseconds);
void futex_wake(_Atomic uint32_t *word);
void pause_cpu(void);
void act(void);

/* order.c */
int in_haste(uint32_t number);
void perturb(void);
void lag(uint32_t number);
void draw_priorities(uint32_t number);
void yield(void);

/* conductor.c */
void conduct(void);

#endif
