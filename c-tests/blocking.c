/*
 * Blocking: who waits, who is woken, and with what.
 *
 *  1. a message for a blocked receiver is handed to it: qnum does not rise, and nobody else can take it
 *  2. several blocked receivers are served in the order they came; only those whose type matches
 *  3. a receiver whose buffer is too small is woken with E2BIG, and the message goes on to the next; if none can take it, it is queued
 *  4. a full queue blocks a sender even if a receiver for its type waits
 *  5. a blocked sender goes on after a receive, and after IPC_SET raised qbytes; one that does not fit sleeps on
 *  6. a later sender that fits gets in before an earlier one that does not
 *  7. IPC_RMID ends all waits with EIDRM; a waiter stopped at that time gets EINVAL
 *  8. a signal handler that ran ends the wait with EINTR, with and without SA_RESTART; an ignored signal does nothing
 *  9. a message sent by the handler itself stays in the queue, and the call returns EINTR; so for room the handler made
 * 10. a signal handled by another thread does not interrupt
 * 11. a stopped waiter leaves the line: messages stay in the queue; it waits again, at the end, once it goes on
 * 12. IPC_SET that takes a permission away: a receiver gets EACCES at once, a sender when there is room
 * 13. a killed waiter takes nothing with it
 * 14. msgsnd and msgrcv are cancellation points, blocked and at entry, and not where cancellation is disabled
 * 15. msgget and msgctl are no cancellation points
 * 16. MSG_NOERROR, MSG_EXCEPT and negative types hold for blocked receivers as well
 */
#include "check.h"

static void handed_to_the_receiver(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	for (int i = 0; i < 50; i++) {
		pid_t pid = blocked_receiver(r, id, 10, 0, 0);
		must(put(id, 5, 10, 5, 0));
		expect_errno(ENOMSG, get_byte(id, 0, IPC_NOWAIT));
		expect_int(0, status_of(id).msg_qnum);
		expect_int(0, status_of(id).msg_cbytes);
		join(pid);
		expect_result(r, 10, 0);
		expect_int(5, r->type);
		expect_true(text_is(r->text, 10, 5));
	}
}

static void receivers_in_order(void)
{
	enum { N = 5 };
	struct result *r = shared_memory(N * sizeof *r);
	int id = new_queue(0600);
	pid_t pids[N];
	for (int i = 0; i < N; i++)
		pids[i] = blocked_receiver(&r[i], id, 10, i % 2 ? 0 : -9, 0);
	for (int i = 0; i < N; i++) {
		must(put_byte(id, 3, i, 0));
		expect_int(0, status_of(id).msg_qnum);
		join(pids[i]);
		expect_result(&r[i], 1, 0);
		expect_int(i, r[i].text[0]);
		for (int j = i + 1; j < N; j++)
			expect_true(!r[j].done && state_of(pids[j]) == 'S');
	}
}

static void several_at_once(void)
{
	/* All messages are sent before the first receiver had time to run: each still gets its own. */
	enum { N = 8 };
	struct result *r = shared_memory(N * sizeof *r);
	int id = new_queue(0600);
	pid_t pids[N];
	for (int i = 0; i < N; i++)
		pids[i] = blocked_receiver(&r[i], id, 10, 0, 0);
	for (int i = 0; i < N; i++)
		must(put_byte(id, 1, i, 0));
	expect_int(0, status_of(id).msg_qnum);
	for (int i = 0; i < N; i++) {
		join(pids[i]);
		expect_result(&r[i], 1, 0);
		expect_int(i, r[i].text[0]);
	}
}

static void typed_receivers(void)
{
	static const struct { long want; int flags; long send; } cases[] = {
		{ 7, 0, 7 }, { -3, 0, 2 }, { 5, MSG_EXCEPT, 4 }, { 6, 0, 6 },
	};
	struct result *r = shared_memory(4 * sizeof *r);
	int id = new_queue(0600);
	pid_t pids[4];
	pids[0] = blocked_receiver(&r[0], id, 10, 7, 0);
	pids[1] = blocked_receiver(&r[1], id, 10, -3, 0);
	must(put_byte(id, 5, 'q', 0)); /* for neither of them */
	expect_int(1, status_of(id).msg_qnum);
	pids[2] = blocked_receiver(&r[2], id, 10, 5, MSG_EXCEPT);
	pids[3] = blocked_receiver(&r[3], id, 10, 6, 0);
	/* Each gets its type; the third would take 6, 7 and 2 as well, but the first and second came before it, and it goes before the last. */
	for (int i = 0; i < 4; i++) {
		must(put_byte(id, cases[i].send, i, 0));
		expect_int(1, status_of(id).msg_qnum);
		join(pids[i]);
		expect_result(&r[i], 1, 0);
		expect_int(cases[i].send, r[i].type);
		expect_int(i, r[i].text[0]);
	}
	expect_int('q', get_byte(id, 0, 0));
}

static void not_for_the_waiting(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = blocked_receiver(r, id, 10, 7, 0);
	for (int i = 0; i < 100; i++)
		must(put_byte(id, 8, i, 0));
	for (int i = 0; i < 100; i++)
		expect_int(i, get_byte(id, 0, IPC_NOWAIT));
	expect_true(!r->done);
	must(put_byte(id, 7, 'x', 0));
	join(pid);
	expect_result(r, 1, 0);
}

static void too_small_buffers(void)
{
	struct result *r = shared_memory(4 * sizeof *r);
	int id = new_queue(0600);
	pid_t pids[4];
	pids[0] = blocked_receiver(&r[0], id, 3, 0, 0);
	pids[1] = blocked_receiver(&r[1], id, 10, 0, 0);
	must(put(id, 2, 10, 2, 0));
	expect_int(0, status_of(id).msg_qnum);
	join(pids[0]);
	join(pids[1]);
	expect_result(&r[0], -1, E2BIG);
	expect_result(&r[1], 10, 0);
	expect_int(pids[1], status_of(id).msg_lrpid);
	/* Nobody can take it: it is queued. */
	pids[0] = blocked_receiver(&r[0], id, 3, 0, 0);
	pids[1] = blocked_receiver(&r[1], id, 0, -5, 0);
	struct msqid_ds before = status_of(id), after;
	must(put(id, 2, 10, 2, 0));
	after = status_of(id);
	expect_int(1, after.msg_qnum);
	expect_int(10, after.msg_cbytes);
	expect_int(before.msg_lrpid, after.msg_lrpid);
	expect_int(before.msg_rtime, after.msg_rtime);
	expect_int(getpid(), after.msg_lspid);
	join(pids[0]);
	join(pids[1]);
	expect_result(&r[0], -1, E2BIG);
	expect_result(&r[1], -1, E2BIG);
	struct msg m;
	expect_int(10, msgrcv(id, &m, 10, 0, IPC_NOWAIT));
}

static void cut_for_the_waiting(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = blocked_receiver(r, id, 4, 0, MSG_NOERROR);
	must(put(id, 2, 10, 2, 0));
	join(pid);
	expect_result(r, 4, 0);
	expect_true(text_is(r->text, 4, 2));
	expect_int(0, status_of(id).msg_qnum);
	expect_int(0, status_of(id).msg_cbytes);
}

static void full_blocks_although_one_waits(void)
{
	struct result *r = shared_memory(sizeof *r), *w = shared_memory(sizeof *w);
	int id = new_queue(0600);
	set_qbytes(id, 10);
	must(put(id, 1, 10, 1, 0));
	pid_t receiver = blocked_receiver(r, id, 10, 2, 0);
	expect_errno(EAGAIN, put(id, 2, 5, 2, IPC_NOWAIT));
	pid_t sender = blocked_sender(w, id, 5, 2);
	expect_true(!r->done && !w->done);
	struct msg m;
	expect_int(10, msgrcv(id, &m, 10, 1, IPC_NOWAIT));
	join(sender);
	join(receiver);
	expect_result(w, 0, 0);
	expect_result(r, 5, 0);
	expect_int(0, status_of(id).msg_qnum);
}

static void sender_goes_on_after_a_receive(void)
{
	struct result *r = shared_memory(sizeof *r);
	struct msg m;
	int id = new_queue(0600);
	set_qbytes(id, 100);
	for (int i = 0; i < 50; i++) {
		must(put(id, 1, 60, 1, 0));
		must(put(id, 1, 40, 1, 0));
		pid_t pid = blocked_sender(r, id, 50, 2);
		expect_int(60, msgrcv(id, &m, 60, 1, IPC_NOWAIT));
		join(pid);
		expect_result(r, 0, 0);
		expect_int(90, status_of(id).msg_cbytes);
		expect_int(40, msgrcv(id, &m, 60, 1, IPC_NOWAIT));
		expect_int(50, msgrcv(id, &m, 60, 2, IPC_NOWAIT));
		expect_true(text_is(m.text, 50, 2));
	}
}

static void sender_without_room_sleeps_on(void)
{
	struct result *r = shared_memory(sizeof *r);
	struct msg m;
	int id = new_queue(0600);
	set_qbytes(id, 100);
	must(put(id, 1, 40, 1, 0));
	must(put(id, 1, 60, 1, 0));
	pid_t pid = blocked_sender(r, id, 50, 2);
	expect_int(40, msgrcv(id, &m, 60, 1, IPC_NOWAIT));
	nap(20000);
	wait_blocked(pid);
	expect_true(!r->done);
	expect_int(1, status_of(id).msg_qnum);
	expect_int(60, msgrcv(id, &m, 60, 1, IPC_NOWAIT));
	join(pid);
	expect_result(r, 0, 0);
}

static void sender_goes_on_after_raising_qbytes(void)
{
	struct result *r = shared_memory(2 * sizeof *r);
	int id = new_queue(0600);
	set_qbytes(id, 10);
	pid_t large = blocked_sender(&r[0], id, 200, 2), small = blocked_sender(&r[1], id, 20, 3);
	set_qbytes(id, 25);
	join(small);
	expect_result(&r[1], 0, 0);
	wait_blocked(large);
	expect_true(!r[0].done);
	set_qbytes(id, 220);
	join(large);
	expect_result(&r[0], 0, 0);
	expect_int(220, status_of(id).msg_cbytes);
}

static void later_sender_that_fits(void)
{
	struct result *r = shared_memory(sizeof *r);
	struct msg m;
	int id = new_queue(0600);
	set_qbytes(id, 100);
	must(put(id, 1, 50, 1, 0));
	pid_t pid = blocked_sender(r, id, 80, 2);
	expect_int(0, put(id, 3, 40, 3, IPC_NOWAIT));
	expect_true(!r->done);
	expect_int(50, msgrcv(id, &m, 60, 1, 0));
	nap(10000);
	wait_blocked(pid);
	expect_true(!r->done);
	expect_int(40, msgrcv(id, &m, 60, 3, 0));
	join(pid);
	expect_result(r, 0, 0);
}

static void all_senders_get_in(void)
{
	enum { N = 8 };
	struct result *r = shared_memory(N * sizeof *r);
	struct msg m;
	pid_t pids[N];
	int id = new_queue(0600), seen[N + 1] = { 0 };
	set_qbytes(id, 100);
	must(put(id, 99, 100, 1, 0));
	for (int i = 0; i < N; i++)
		pids[i] = blocked_sender(&r[i], id, 30, i + 1);
	expect_int(100, msgrcv(id, &m, 100, 99, 0));
	for (int i = 0; i < N; i++) {
		expect_int(30, msgrcv(id, &m, 100, 0, 0));
		expect_true(m.type >= 1 && m.type <= N && !seen[m.type]++ && text_is(m.text, 30, (unsigned)m.type));
	}
	for (int i = 0; i < N; i++) {
		join(pids[i]);
		expect_result(&r[i], 0, 0);
	}
	expect_int(0, status_of(id).msg_qnum);
}

static void removal_ends_all_waits(void)
{
	struct result *r = shared_memory(6 * sizeof *r);
	int id = new_queue(0600);
	pid_t pids[6];
	set_qbytes(id, 10);
	must(put(id, 1, 10, 1, 0));
	for (int i = 0; i < 6; i++)
		pids[i] = i % 2 ? blocked_sender(&r[i], id, 5, 2) : blocked_receiver(&r[i], id, 10, 7 + i, 0);
	expect_int(0, msgctl(id, IPC_RMID, NULL));
	for (int i = 0; i < 6; i++) {
		join(pids[i]);
		expect_result(&r[i], -1, EIDRM);
	}
	expect_errno(EINVAL, get_byte(id, 0, IPC_NOWAIT));
	expect_errno(EINVAL, put_byte(id, 1, 'a', IPC_NOWAIT));
}

static void on_signal(int number)
{
	(void)number;
}

static struct result *handler_result;
static int handler_queue, handler_action;

static void counting_handler(int number)
{
	struct msg m;
	(void)number;
	int saved = errno;
	if (handler_action == 1 && put_byte(handler_queue, 1, 'h', IPC_NOWAIT) != 0)
		handler_result->type = -errno;
	if (handler_action == 2 && msgrcv(handler_queue, &m, TEXT_MAX, 0, IPC_NOWAIT) < 0)
		handler_result->type = -errno;
	if (handler_action == 3 && msgctl(handler_queue, IPC_RMID, NULL) != 0)
		handler_result->type = -errno;
	errno = saved;
	handler_result->signals++;
}

/* A child that blocks in msgrcv (or msgsnd) with a handler for SIGUSR1 and SIGUSR2 ignored. */
static pid_t blocked_with_handler(struct result *r, int id, int sending, int flags, int action)
{
	memset(r, 0, sizeof *r);
	pid_t pid = fork_child();
	if (pid == 0) {
		struct sigaction act = { .sa_handler = counting_handler, .sa_flags = flags };
		handler_result = r;
		handler_queue = id;
		handler_action = action;
		sigaction(SIGUSR1, &act, NULL);
		signal(SIGUSR2, SIG_IGN);
		r->value = sending ? put_byte(id, 2, 's', 0) : get_byte(id, 0, 0);
		r->error = errno;
		r->done = 1;
		_exit(0);
	}
	wait_blocked(pid);
	return pid;
}

static int full_queue(void)
{
	int id = new_queue(0600);
	set_qbytes(id, 1);
	must(put_byte(id, 1, 'f', 0));
	return id;
}

struct interruption { int sending, flags; };

static void interrupted(void)
{
	const struct interruption *c = row_arg();
	struct result *r = shared_memory(sizeof *r);
	for (int i = 0; i < 20; i++) {
		int id = c->sending ? full_queue() : new_queue(0600);
		struct msqid_ds before = status_of(id), after;
		pid_t pid = blocked_with_handler(r, id, c->sending, c->flags, 0);
		kill(pid, SIGUSR1);
		join(pid);
		expect_result(r, -1, EINTR);
		expect_int(1, r->signals);
		after = status_of(id);
		expect_same_status(before, after);
		/* Nobody waits any more: a message is queued, room stays room. */
		if (c->sending) {
			expect_int('f', get_byte(id, 0, IPC_NOWAIT));
			expect_errno(ENOMSG, get_byte(id, 0, IPC_NOWAIT));
		}
		must(put_byte(id, 1, 'n', IPC_NOWAIT));
		expect_int(1, status_of(id).msg_qnum);
	}
}

static void ignored_signals_do_nothing(void)
{
	const struct interruption *c = row_arg();
	struct result *r = shared_memory(sizeof *r);
	int id = c->sending ? full_queue() : new_queue(0600);
	pid_t pid = blocked_with_handler(r, id, c->sending, 0, 0);
	for (int i = 0; i < 5; i++) {
		kill(pid, SIGUSR2);
		kill(pid, SIGCONT); /* default action of a process that is not stopped: none */
		kill(pid, SIGWINCH);
		nap(1000);
		wait_blocked(pid);
	}
	expect_true(!r->done);
	if (c->sending)
		expect_int('f', get_byte(id, 0, IPC_NOWAIT));
	else
		must(put_byte(id, 1, 'm', 0));
	join(pid);
	expect_result(r, c->sending ? 0 : 'm', 0);
}

static void handler_sends_the_message(void)
{
	struct result *r = shared_memory(sizeof *r);
	const struct interruption *c = row_arg();
	int id = new_queue(0600);
	pid_t pid = blocked_with_handler(r, id, 0, c->flags, 1);
	kill(pid, SIGUSR1);
	join(pid);
	expect_int(0, r->type);
	expect_result(r, -1, EINTR);
	expect_int(1, status_of(id).msg_qnum);
	expect_int('h', get_byte(id, 0, IPC_NOWAIT));
}

static void handler_makes_room(void)
{
	struct result *r = shared_memory(sizeof *r);
	const struct interruption *c = row_arg();
	int id = full_queue();
	pid_t pid = blocked_with_handler(r, id, 1, c->flags, 2);
	kill(pid, SIGUSR1);
	join(pid);
	expect_int(0, r->type);
	expect_result(r, -1, EINTR);
	expect_int(0, status_of(id).msg_qnum);
	must(put_byte(id, 1, 'a', IPC_NOWAIT));
}

static void handler_removes_the_queue(void)
{
	struct result *r = shared_memory(sizeof *r);
	for (int sending = 0; sending < 2; sending++) {
		int id = sending ? full_queue() : new_queue(0600);
		pid_t pid = blocked_with_handler(r, id, sending, 0, 3);
		kill(pid, SIGUSR1);
		join(pid);
		expect_int(0, r->type);
		expect_result(r, -1, EINTR);
		expect_errno(EINVAL, put_byte(id, 1, 'a', IPC_NOWAIT));
	}
}

struct listener { int id; _Atomic pid_t thread; _Atomic int done; int value; };

static void *listen_with_signal_blocked(void *arg)
{
	struct listener *l = arg;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	l->thread = thread_id();
	l->value = get_byte(l->id, 0, 0);
	l->done = 1;
	return NULL;
}

static void signal_of_another_thread(void)
{
	struct listener l = { .id = new_queue(0600) };
	struct sigaction act = { .sa_handler = on_signal };
	pthread_t thread;
	sigaction(SIGUSR1, &act, NULL);
	pthread_create(&thread, NULL, listen_with_signal_blocked, &l);
	while (!l.thread)
		nap(100);
	wait_blocked(l.thread);
	for (int i = 0; i < 20; i++) {
		kill(getpid(), SIGUSR1);
		nap(500);
	}
	wait_blocked(l.thread);
	expect_true(!l.done);
	must(put_byte(l.id, 1, 't', 0));
	pthread_join(thread, NULL);
	expect_int('t', l.value);
}

static void stopped_receiver_leaves_the_line(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = blocked_receiver(r, id, 10, 0, 0);
	for (int i = 0; i < 10; i++) {
		kill(pid, SIGSTOP);
		wait_state(pid, 'T');
		must(put_byte(id, 1, i, 0));
		expect_int(1, status_of(id).msg_qnum);
		expect_int(i, get_byte(id, 0, IPC_NOWAIT));
		kill(pid, SIGCONT);
		wait_blocked(pid);
		expect_true(!r->done);
	}
	must(put_byte(id, 1, 'z', 0));
	join(pid);
	expect_result(r, 1, 0);
	expect_int('z', r->text[0]);
}

static void stopped_receiver_finds_the_message(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = blocked_receiver(r, id, 10, 0, 0);
	kill(pid, SIGSTOP);
	wait_state(pid, 'T');
	must(put_byte(id, 1, 'a', 0));
	must(put_byte(id, 1, 'b', 0));
	expect_int(2, status_of(id).msg_qnum);
	kill(pid, SIGCONT);
	join(pid);
	expect_result(r, 1, 0);
	expect_int('a', r->text[0]);
	expect_int('b', get_byte(id, 0, IPC_NOWAIT));
}

static void stopped_receiver_goes_to_the_end(void)
{
	struct result *r = shared_memory(2 * sizeof *r);
	int id = new_queue(0600);
	pid_t first = blocked_receiver(&r[0], id, 10, 0, 0), second = blocked_receiver(&r[1], id, 10, 0, 0);
	kill(first, SIGSTOP);
	wait_state(first, 'T');
	kill(first, SIGCONT);
	wait_blocked(first);
	must(put_byte(id, 1, 'a', 0));
	join(second);
	expect_result(&r[1], 1, 0);
	expect_true(!r[0].done);
	must(put_byte(id, 1, 'b', 0));
	join(first);
	expect_int('b', r[0].text[0]);
}

static void stopped_sender(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = full_queue();
	pid_t pid = blocked_sender(r, id, 1, 2);
	kill(pid, SIGSTOP);
	wait_state(pid, 'T');
	expect_int('f', get_byte(id, 0, IPC_NOWAIT));
	expect_errno(ENOMSG, get_byte(id, 0, IPC_NOWAIT));
	must(put_byte(id, 1, 'x', IPC_NOWAIT));
	kill(pid, SIGCONT);
	wait_blocked(pid);
	expect_int('x', get_byte(id, 0, IPC_NOWAIT));
	join(pid);
	expect_result(r, 0, 0);
	expect_int(1, status_of(id).msg_qnum);
}

static void stopped_while_removed(void)
{
	struct result *r = shared_memory(sizeof *r);
	for (int sending = 0; sending < 2; sending++) {
		int id = sending ? full_queue() : new_queue(0600);
		pid_t pid = sending ? blocked_sender(r, id, 1, 2) : blocked_receiver(r, id, 10, 0, 0);
		kill(pid, SIGSTOP);
		wait_state(pid, 'T');
		must(msgctl(id, IPC_RMID, NULL));
		kill(pid, SIGCONT);
		join(pid);
		expect_result(r, -1, EINVAL);
	}
}

static void set_mode(int id, unsigned short mode)
{
	struct msqid_ds s = status_of(id);
	s.msg_perm.mode = mode;
	must(msgctl(id, IPC_SET, &s));
}

static void reading_taken_away(void)
{
	struct result *r = shared_memory(2 * sizeof *r);
	int id = new_queue(0666);
	pid_t other = blocked_receiver_as(NOBODY, &r[0], id, 10, 0, 0), own = blocked_receiver(&r[1], id, 10, 0, 0);
	set_mode(id, 0662);
	join(other);
	expect_result(&r[0], -1, EACCES);
	wait_blocked(own);
	expect_true(!r[1].done);
	must(put_byte(id, 1, 'o', 0));
	join(own);
	expect_result(&r[1], 1, 0);
}

static void setting_keeps_receivers_waiting(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = blocked_receiver(r, id, 10, 0, 0);
	for (int i = 0; i < 20; i++) {
		set_mode(id, 0640);
		wait_blocked(pid);
	}
	nap(2000);
	wait_blocked(pid);
	expect_true(!r->done);
	must(put_byte(id, 1, 'o', 0));
	expect_int(0, status_of(id).msg_qnum);
	join(pid);
	expect_result(r, 1, 0);
}

static void writing_taken_away(void)
{
	struct result *r = shared_memory(sizeof *r);
	struct msg m;
	int id = new_queue(0666);
	set_qbytes(id, 10);
	must(put(id, 1, 10, 1, 0));
	pid_t pid = blocked_sender_as(NOBODY, r, id, 5, 2);
	set_mode(id, 0664);
	nap(20000);
	wait_blocked(pid);
	expect_true(!r->done);
	expect_int(10, msgrcv(id, &m, 10, 0, IPC_NOWAIT));
	join(pid);
	expect_result(r, -1, EACCES);
	expect_int(0, status_of(id).msg_qnum);
}

static void killed_waiters_take_nothing(void)
{
	struct result *r = shared_memory(8 * sizeof *r);
	int id = new_queue(0600), full = full_queue(), status;
	pid_t pids[8];
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 8; i++)
			pids[i] = i % 2 ? blocked_sender(&r[i], full, 1, 2) : blocked_receiver(&r[i], id, 10, 0, 0);
		for (int i = 0; i < 8; i++) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], &status, 0);
		}
		must(put_byte(id, 1, round, 0));
		expect_int(1, status_of(id).msg_qnum);
		expect_int(round, get_byte(id, 0, IPC_NOWAIT));
		expect_int('f', get_byte(full, 0, IPC_NOWAIT));
		expect_errno(ENOMSG, get_byte(full, 0, IPC_NOWAIT));
		must(put_byte(full, 1, 'f', IPC_NOWAIT));
	}
}

static void killed_first_receiver(void)
{
	struct result *r = shared_memory(3 * sizeof *r);
	int id = new_queue(0600), status;
	pid_t first = blocked_receiver(&r[0], id, 10, 0, 0), second = blocked_receiver(&r[1], id, 10, 0, 0);
	kill(first, SIGKILL);
	waitpid(first, &status, 0);
	must(put_byte(id, 1, 'a', 0));
	expect_int(0, status_of(id).msg_qnum);
	join(second);
	expect_result(&r[1], 1, 0);
	expect_int('a', r[1].text[0]);
}

/* ---- cancellation ---- */

struct cancelled {
	int id, sending, at_entry, disabled;
	_Atomic pid_t thread;
	_Atomic int go, cleanups, returned;
	int value, error;
};

static void count_cleanup(void *arg)
{
	((struct cancelled *)arg)->cleanups++;
}

static void *cancelled_call(void *arg)
{
	struct cancelled *c = arg;
	int old;
	if (c->disabled || c->at_entry)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	pthread_cleanup_push(count_cleanup, c);
	c->thread = thread_id();
	while (c->at_entry && !c->go)
		nap(100);
	if (!c->disabled)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
	c->value = c->sending ? put_byte(c->id, 2, 'c', 0) : get_byte(c->id, 0, 0);
	c->error = errno;
	c->returned++;
	pthread_cleanup_pop(0);
	return NULL;
}

static void cancel_while_blocked(void)
{
	for (int i = 0; i < 20; i++) {
		struct cancelled c = { .sending = i % 2 };
		pthread_t thread;
		void *end;
		c.id = c.sending ? full_queue() : new_queue(0600);
		pthread_create(&thread, NULL, cancelled_call, &c);
		while (!c.thread)
			nap(100);
		wait_blocked(c.thread);
		pthread_cancel(thread);
		pthread_join(thread, &end);
		expect_true(end == PTHREAD_CANCELED);
		expect_int(1, c.cleanups);
		expect_int(0, c.returned);
		/* The line is empty, the queue as it was. */
		if (c.sending)
			expect_int('f', get_byte(c.id, 0, IPC_NOWAIT));
		must(put_byte(c.id, 1, 'n', IPC_NOWAIT));
		expect_int(1, status_of(c.id).msg_qnum);
		expect_int('n', get_byte(c.id, 0, IPC_NOWAIT));
	}
}

static void cancel_at_entry(void)
{
	for (int i = 0; i < 4; i++) {
		struct cancelled c = { .sending = i % 2, .at_entry = 1 };
		pthread_t thread;
		void *end;
		int id = new_queue(0600);
		c.id = i < 2 ? id : -1; /* with a bad id as well */
		must(put_byte(id, 1, 'm', 0)); /* neither call would block */
		pthread_create(&thread, NULL, cancelled_call, &c);
		pthread_cancel(thread);
		c.go = 1;
		pthread_join(thread, &end);
		expect_true(end == PTHREAD_CANCELED);
		expect_int(1, c.cleanups);
		expect_int(0, c.returned);
		expect_int(1, status_of(id).msg_qnum);
	}
}

static void cancel_disabled(void)
{
	struct cancelled c = { .id = new_queue(0600), .disabled = 1 };
	pthread_t thread;
	void *end;
	pthread_create(&thread, NULL, cancelled_call, &c);
	while (!c.thread)
		nap(100);
	wait_blocked(c.thread);
	pthread_cancel(thread);
	nap(10000);
	wait_blocked(c.thread);
	must(put_byte(c.id, 1, 'd', 0));
	pthread_join(thread, &end);
	expect_true(end == NULL);
	expect_int(1, c.returned);
	expect_int(0, c.cleanups);
	expect_int('d', c.value);
}

static void *no_cancellation_points(void *arg)
{
	struct cancelled *c = arg;
	struct msqid_ds s;
	int old;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	while (!c->go)
		nap(100);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
	c->value = msgget(IPC_PRIVATE, 0600);
	c->returned++;
	if (msgctl(c->value, IPC_STAT, &s) == 0 && msgctl(c->value, IPC_SET, &s) == 0 && msgctl(c->value, IPC_RMID, NULL) == 0)
		c->returned++;
	pthread_testcancel();
	c->returned++;
	return NULL;
}

static void msgget_and_msgctl_are_no_cancellation_points(void)
{
	struct cancelled c = { .id = new_queue(0600) };
	pthread_t thread;
	void *end;
	pthread_create(&thread, NULL, no_cancellation_points, &c);
	pthread_cancel(thread);
	c.go = 1;
	pthread_join(thread, &end);
	expect_true(end == PTHREAD_CANCELED);
	expect_int(2, c.returned);
}

static const struct interruption receiving = { 0, 0 }, receiving_restart = { 0, SA_RESTART }, sending = { 1, 0 },
	sending_restart = { 1, SA_RESTART };

static const struct row rows[] = {
	ROW(handed_to_the_receiver),
	ROW(receivers_in_order),
	ROW(several_at_once),
	ROW(typed_receivers),
	ROW(not_for_the_waiting),
	ROW(too_small_buffers),
	ROW(cut_for_the_waiting),
	ROW(full_blocks_although_one_waits),
	ROW(sender_goes_on_after_a_receive),
	ROW(sender_without_room_sleeps_on),
	ROW(sender_goes_on_after_raising_qbytes),
	ROW(later_sender_that_fits),
	ROW(all_senders_get_in),
	ROW(removal_ends_all_waits),
	ROW_CASE("receive_interrupted", interrupted, &receiving),
	ROW_CASE("receive_interrupted_with_restart", interrupted, &receiving_restart),
	ROW_CASE("send_interrupted", interrupted, &sending),
	ROW_CASE("send_interrupted_with_restart", interrupted, &sending_restart),
	ROW_CASE("ignored_signals_while_receiving", ignored_signals_do_nothing, &receiving),
	ROW_CASE("ignored_signals_while_sending", ignored_signals_do_nothing, &sending),
	ROW_CASE("handler_sends_the_message", handler_sends_the_message, &receiving),
	ROW_CASE("handler_sends_the_message_with_restart", handler_sends_the_message, &receiving_restart),
	ROW_CASE("handler_makes_room", handler_makes_room, &sending),
	ROW_CASE("handler_makes_room_with_restart", handler_makes_room, &sending_restart),
	ROW(handler_removes_the_queue),
	ROW(signal_of_another_thread),
	ROW(stopped_receiver_leaves_the_line),
	ROW(stopped_receiver_finds_the_message),
	ROW(stopped_receiver_goes_to_the_end),
	ROW(stopped_sender),
	ROW(stopped_while_removed),
	ROW_ROOT(reading_taken_away),
	ROW(setting_keeps_receivers_waiting),
	ROW_ROOT(writing_taken_away),
	ROW(killed_waiters_take_nothing),
	ROW(killed_first_receiver),
	ROW(cancel_while_blocked),
	ROW(cancel_at_entry),
	ROW(cancel_disabled),
	ROW(msgget_and_msgctl_are_no_cancellation_points),
};

CHECK_MAIN("blocking", rows)
