/*
 * account.c: messages, their tokens, and the account that is kept of them.
 */
#define _GNU_SOURCE
#include "torture.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const sent_name[] = { "not sent", "its sender jumped or was killed", "acknowledged", "refused" };

/* One receiver's memory of what it has seen, for the order. */
struct view {
	uint32_t last[LANES][TYPES + 1]; /* token + 1 of the last one received of this lane and type */
	uint32_t floor[LANES];           /* token + 1 of the last one received from the head of the queue */
};

struct shared *sh;
_Thread_local struct slot *me;
_Thread_local struct lane lane[LEVELS];
_Thread_local uint32_t my_epoch;
_Thread_local bool exhausted;
static _Thread_local struct view view[LEVELS];

int64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void sleep_ns(long ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };
	nanosleep(&ts, NULL);
}

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

uint32_t random_below(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(((*state >> 32) * n) >> 32);
}

void failure(enum check c, const char *format, ...)
{
	atomic_fetch_add(&sh->failed[c], 1);
	if (atomic_exchange(&sh->described[c], 1) == 0) {
		va_list ap;
		va_start(ap, format);
		vsnprintf(sh->description[c], sizeof sh->description[c], format, ap);
		va_end(ap);
	}
}

void checked(enum check c)
{
	atomic_fetch_add(&sh->checked[c], 1);
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

/* The text of a token, from its byte 0 on. */
static void pattern(unsigned char *p, size_t len, uint32_t token, uint32_t epoch)
{
	uint64_t x = mix(((uint64_t)epoch << 32) | token);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = x ^ (i * 0x9e3779b97f4a7c15ULL);
		memcpy(p + i, &w, len - i < 8 ? len - i : 8);
	}
}

static bool pattern_matches(const unsigned char *p, size_t len, uint32_t token, uint32_t epoch)
{
	uint64_t x = mix(((uint64_t)epoch << 32) | token);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = x ^ (i * 0x9e3779b97f4a7c15ULL);
		if (memcmp(p + i, &w, len - i < 8 ? len - i : 8) != 0)
			return false;
	}
	return true;
}

static uint32_t check_word(uint32_t token, uint32_t epoch, uint32_t len, long type)
{
	return (uint32_t)mix((((uint64_t)token << 32) | epoch) ^ mix(((uint64_t)len << 32) | (uint32_t)type));
}

void compose(struct message *m, uint32_t token, long type, size_t len)
{
	if (len < HEADER) {
		m->mtype = TINY_FLAG | (long)(my_epoch & 63) << 24 | (long)token;
		pattern(m->u.raw, len, token, my_epoch);
		return;
	}
	m->mtype = type;
	m->u.t.token = token;
	m->u.t.epoch = my_epoch;
	m->u.t.len = (uint32_t)len;
	m->u.t.check = check_word(token, my_epoch, (uint32_t)len, type);
	pattern(m->u.t.body, len - HEADER, token, my_epoch);
}

static bool type_wanted(long type, long want, int flags)
{
	if (want == 0)
		return true;
	if (want > 0)
		return (flags & MSG_EXCEPT) ? type != want : type == want;
	return type <= (want == LONG_MIN ? LONG_MAX : -want);
}

/* Notes a received message and checks what can be checked at once. Runs in workers, in their handlers and in the supervisor. */
void record(enum level level, const struct message *m, size_t len, size_t room, long want, int flags)
{
	uint32_t token;
	long type = m->mtype;
	bool tiny = (type & TINY_FLAG) != 0;

	if (type == FILL_TYPE)
		return; /* left over after a failed capacity check */
	if (!type_wanted(type, want, flags))
		failure(TORN, "asked for type %ld (flags %#x), got type %ld", want, (unsigned)flags, type);
	if (tiny) {
		token = (uint32_t)(type & 0xffffff);
		if (((type >> 24) & 63) != (long)(my_epoch & 63)) {
			failure(GHOSTS, "short message of another epoch: type %#lx in epoch %u", (unsigned long)type, my_epoch);
			return;
		}
		if (len >= HEADER || !pattern_matches(m->u.raw, len, token, my_epoch)) {
			failure(TORN, "short message of token %u: wrong text or length %zu", token, len);
			return;
		}
	} else {
		if (len < HEADER) {
			failure(TORN, "type %ld with only %zu bytes", type, len);
			return;
		}
		token = m->u.t.token;
		if (m->u.t.check != check_word(token, m->u.t.epoch, m->u.t.len, type)) {
			failure(TORN, "header does not match: token %u epoch %u length %u of %zu type %ld", token, m->u.t.epoch,
				m->u.t.len, len, type);
			return;
		}
		if (m->u.t.epoch != my_epoch) {
			failure(GHOSTS, "message of epoch %u received in epoch %u", m->u.t.epoch, my_epoch);
			return;
		}
		if (m->u.t.len != len && !((flags & MSG_NOERROR) && m->u.t.len > len && len == room)) {
			failure(TORN, "token %u: sent %u bytes, received %zu", token, m->u.t.len, len);
			return;
		}
		if (!pattern_matches(m->u.t.body, len - HEADER, token, my_epoch)) {
			failure(TORN, "token %u: text of %zu bytes is not what was sent", token, len);
			return;
		}
	}
	if (token >= TOKENS || token / BLOCK >= atomic_load(&sh->next_block) || atomic_load(&sh->sent[token]) == NOT_SENT) {
		failure(GHOSTS, "token %u was never handed out", token);
		return;
	}
	if (atomic_fetch_add(&sh->received[token], 1) != 0)
		failure(DOUBLED, "token %u (type %ld, %zu bytes) received again", token, type, len);

	unsigned from = sh->lane_of[token / BLOCK];
	struct view *v = &view[level];
	if (token + 1 <= v->floor[from])
		failure(ORDER, "lane %u: token %u (%s, type %ld, %zu bytes, asked for %ld) after %u had been at the head", from, token,
			sent_name[atomic_load(&sh->sent[token]) & 3], type, len, want, v->floor[from] - 1);
	if (!tiny && type >= 1 && type <= TYPES) {
		if (token + 1 <= v->last[from][type])
			failure(ORDER, "lane %u, type %ld: token %u (%s, %zu bytes) after %u", from, type, token,
				sent_name[atomic_load(&sh->sent[token]) & 3], len, v->last[from][type] - 1);
		v->last[from][type] = token + 1;
	}
	if (want == 0 && v->floor[from] < token + 1)
		v->floor[from] = token + 1;
}

/* Accounts for a receiver that was killed or has jumped away in msgrcv: what it had received in full is in its buffer, which was
 * cleared before the call; otherwise it may have lost one message. */
void account_for_victim(struct slot *s, enum level level)
{
	const struct message *m = &s->in[level];
	int state = atomic_load(&s->in_receive[level]);
	size_t room = (size_t)atomic_load(&s->room[level]);
	uint32_t token = TOKENS, epoch = atomic_load(&sh->epoch);

	if (state == OUTSIDE)
		return;
	if (m->mtype & TINY_FLAG) {
		if (((m->mtype >> 24) & 63) == (long)(epoch & 63))
			token = (uint32_t)(m->mtype & 0xffffff);
	} else if (m->mtype != 0 && m->u.t.len >= HEADER && m->u.t.len <= MAX_TEXT && m->u.t.epoch == epoch &&
		   m->u.t.check == check_word(m->u.t.token, epoch, m->u.t.len, m->mtype)) {
		size_t len = m->u.t.len < room ? m->u.t.len : room;
		if (pattern_matches(m->u.t.body, len - HEADER, m->u.t.token, epoch))
			token = m->u.t.token;
	}
	if (token >= TOKENS) {
		atomic_fetch_add(&sh->allowance, 1);
	} else if (state == IN_MSGRCV || atomic_load(&sh->received[token]) == 0) {
		if (atomic_fetch_add(&sh->received[token], 1) != 0)
			failure(DOUBLED, "token %u (type %ld) received again, by a victim", token, m->mtype);
		atomic_fetch_add(&sh->recovered, 1);
	}
	atomic_store(&s->in_receive[level], OUTSIDE);
}

/* ---- lanes and epochs --------------------------------------------------------------------------------------------- */

/* Takes new lanes for a new epoch. Never runs inside a call or a handler; a handler that interrupts it makes no calls, because
 * my_epoch is of no epoch until all is ready. */
void enter_epoch(void)
{
	uint32_t epoch = atomic_load(&sh->epoch);
	my_epoch = ~0U;
	atomic_signal_fence(memory_order_seq_cst);
	memset(view, 0, sizeof view);
	exhausted = false;
	unsigned first = atomic_fetch_add(&sh->next_lane, LEVELS);
	for (int i = 0; i < LEVELS; i++) {
		lane[i].id = first + (unsigned)i;
		lane[i].next = lane[i].end = 0;
		lane[i].random = mix(((uint64_t)epoch << 20) ^ (lane[i].random + first + (unsigned)i));
	}
	if (first + LEVELS > LANES) {
		exhausted = true;
		atomic_store(&sh->want_checkpoint, 1);
	}
	atomic_signal_fence(memory_order_seq_cst);
	my_epoch = epoch;
}

bool take_token(enum level level, uint32_t *token)
{
	struct lane *l = &lane[level];
	if (exhausted)
		return false;
	if (l->next == l->end) {
		unsigned b = atomic_fetch_add(&sh->next_block, 1);
		if (b + SPARE_BLOCKS >= BLOCKS)
			atomic_store(&sh->want_checkpoint, 1);
		if (b >= BLOCKS) {
			exhausted = true;
			return false;
		}
		sh->lane_of[b] = (uint16_t)l->id;
		l->next = b * BLOCK;
		l->end = l->next + BLOCK;
	}
	*token = l->next++;
	return true;
}
