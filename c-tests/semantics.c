/*
 * Semantics: what Linux does that the other suites, each about its own part, had left out.
 *
 * Where the rest is: identifiers and keys in ids_keys, permissions and who may control in permissions, the order of errors and bad pointers in
 * errors, selection, truncation and MSG_COPY in receive, room in capacity, lines, signals, stops and removal in blocking, fields and commands in
 * msgctl, handlers, forks, threads and life cycles in processes, 32000 queues in hygiene/many.c. What nobody thought of is looked for by
 * differential/.
 *
 *  1. the index is handed out in a cycle, and seq goes up only when the index does not
 *  2. the cycle is one and a half times as long as queues are in use, 64 at least
 *  3. a type that runs into a bad page is not written at all, and the message is gone
 *  4. the padding of struct msginfo is written, as zero
 *  5. MSG_COPY reads min(size, msgmax) bytes of the buffer first, and no more
 *  6. a sender that was let go and used no room leaves it to the next
 *  7. what was offered to a receiver that runs a handler, or is stopped, was not received: lrpid and rtime stay
 *  8. CAP_SYS_ADMIN controls the queues of others; root without it does not
 *  9. a removed queue is EINVAL for everybody, also for those who could not have looked at it
 * 10. MSG_INFO and msgget go on after a queue was removed by one who may remove it but owns less of it than its creator
 * 11. every waiter that fits alone is let go by one receive
 * 12. a blocked receiver takes its message whole when two senders race for it
 * 13. a handler may remove the queue that its own msgsnd waits for
 * 14. IPC_SET without a change moves ctime only
 * 15. a message that was handed over wins over a signal that came after it, and so does the removal of the queue
 * 16. a signal that comes first: the call ends with the message, or with EINTR and the message in the queue; a sender's with EINTR and nothing sent,
 *     or with its message sent
 * 17. permission taken away together with more room, or before room is made: every sender that would fit alone finds out
 */
#include "check.h"
#include <linux/capability.h>

enum { A = 65001, B = 65002 };

extern int capset(struct __user_cap_header_struct *, const struct __user_cap_data_struct *);
extern int capget(struct __user_cap_header_struct *, struct __user_cap_data_struct *);

static int index_of(int id)
{
	return id & 0x7fff;
}

static int seq_of(int id)
{
	return id >> 15;
}

static int create(void)
{
	return (int)must(msgget(IPC_PRIVATE, 0600));
}

/* What comes after `id` when the indices up to `cycle` are free. */
static int next_id(int id, int cycle)
{
	return index_of(id) + 1 < cycle ? id + 1 : (seq_of(id) + 1) << 15;
}

static void indices_go_round(void)
{
	if (!getenv("CHECK_OWN_NAMESPACE"))
		skip("others use queues as well");
	int id = create();
	expect_int(0, msgctl(id, IPC_RMID, NULL));
	for (int i = 0; i < 150; i++) {
		int next = create();
		expect_int(next_id(id, 64), next);
		expect_int(0, msgctl(next, IPC_RMID, NULL));
		id = next;
	}
}

static void more_queues_make_a_longer_round(void)
{
	if (!getenv("CHECK_OWN_NAMESPACE"))
		skip("others use queues as well");
	enum { N = 100 };
	int ids[N], id = 0;
	for (int i = 0; i < N; i++)
		ids[i] = create();
	/* The others hold what lies below: on and on, up to the end of the round, then what is free. */
	int highest = 0;
	for (int i = 0; i < N; i++)
		highest = index_of(ids[i]) > highest ? index_of(ids[i]) : highest;
	id = ids[N - 1];
	for (int i = 0; i < 200; i++) {
		int next = create();
		expect_true(next != id);
		expect_true(index_of(next) < 151 || index_of(next) <= highest + 1);
		if (index_of(next) <= index_of(id))
			expect_int(seq_of(id) + 1, seq_of(next));
		else
			expect_int(seq_of(id), seq_of(next));
		expect_int(0, msgctl(next, IPC_RMID, NULL));
		id = next;
	}
	for (int i = 0; i < N; i++)
		expect_int(0, msgctl(ids[i], IPC_RMID, NULL));
}

/* `good` bytes before a page without access. */
static unsigned char *before_the_end(size_t good)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *p = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mprotect(p + 3 * page, page, PROT_NONE) != 0)
		fail("mmap: %s", strerror(errno));
	memset(p, 0x5a, 3 * page);
	return p + 3 * page - good;
}

static void type_cut_in_two(void)
{
	int id = new_queue(0600);
	for (size_t good = 0; good < 8; good++) {
		unsigned char *buffer = before_the_end(good);
		must(put_byte(id, 0x0102030405060708, 'a', 0));
		expect_errno(EFAULT, msgrcv(id, buffer, 100, 0, IPC_NOWAIT));
		for (size_t i = 0; i < good; i++)
			expect_int(0x5a, buffer[i]);
		expect_int(0, status_of(id).msg_qnum);
		expect_errno(EFAULT, msgsnd(id, buffer, 0, IPC_NOWAIT));
	}
}

static void padding_of_msginfo(void)
{
	static const int commands[] = { IPC_INFO, MSG_INFO };
	for (int i = 0; i < 2; i++) {
		unsigned char raw[sizeof(struct msginfo)];
		size_t end = offsetof(struct msginfo, msgseg) + sizeof(unsigned short);
		memset(raw, 0xcd, sizeof raw);
		must(msgctl(0, commands[i], (struct msqid_ds *)raw));
		for (size_t at = end; at < sizeof raw; at++)
			expect_int(0, raw[at]);
	}
}

static void copy_reads_as_much_as_msgmax(void)
{
	struct msginfo info;
	int id = new_queue(0600);
	must(msgctl(0, IPC_INFO, (struct msqid_ds *)&info));
	must(put(id, 7, 10, 1, 0));
	unsigned char *buffer = before_the_end((size_t)info.msgmax);
	if (msgrcv(id, buffer, 100, 0, MSG_COPY | IPC_NOWAIT) == -1 && errno == ENOSYS)
		skip("this kernel has no MSG_COPY");
	expect_int(10, msgrcv(id, buffer, LONG_MAX, 0, MSG_COPY | IPC_NOWAIT));
	expect_true(text_is(buffer + 8, 10, 1));
	expect_int(10, msgrcv(id, buffer, (size_t)info.msgmax + 1, 0, MSG_COPY | IPC_NOWAIT));
	expect_errno(EFAULT, msgrcv(id, buffer + 1, (size_t)info.msgmax, 0, MSG_COPY | IPC_NOWAIT));
	expect_int(10, msgrcv(id, buffer + 1, (size_t)info.msgmax - 1, 0, MSG_COPY | IPC_NOWAIT));
}

static void room_left_by_a_handover(void)
{
	struct result *r = shared_memory(sizeof *r), *w = shared_memory(2 * sizeof *w);
	struct msg m;
	for (int i = 0; i < 20; i++) {
		int id = new_queue(0600);
		set_qbytes(id, 85);
		must(put(id, 9, 41, 9, 0));
		pid_t receiver = blocked_receiver(r, id, 100, -7, 0);
		pid_t first = blocked_sender(&w[0], id, 77, 1), second = blocked_sender(&w[1], id, 48, 1);
		expect_int(41, msgrcv(id, &m, 100, 9, IPC_NOWAIT));
		join(receiver);
		join(first);
		join(second);
		/* Either may come first: one went to the receiver, the other into the queue. */
		expect_int(125, r->value + (long)status_of(id).__msg_cbytes);
		expect_int(0, msgctl(id, IPC_RMID, NULL));
	}
}

static void all_that_fit_alone_are_let_go(void)
{
	enum { N = 6 };
	struct result *w = shared_memory(N * sizeof *w);
	struct msg m;
	pid_t pids[N];
	int id = new_queue(0600);
	set_qbytes(id, 60);
	must(put(id, 99, 60, 9, 0));
	for (int i = 0; i < N; i++)
		pids[i] = blocked_sender(&w[i], id, 10, i + 1);
	expect_int(60, msgrcv(id, &m, 100, 99, IPC_NOWAIT));
	for (int i = 0; i < N; i++)
		join(pids[i]);
	expect_int(60, status_of(id).__msg_cbytes);
	expect_int(N, status_of(id).msg_qnum);
}

static int own_queue;
static struct result *own_result;

static void send_to_own_queue(int number)
{
	(void)number;
	int saved = errno;
	own_result->type = put_byte(own_queue, 1, 'h', IPC_NOWAIT);
	errno = saved;
}

static void remove_own_queue(int number)
{
	(void)number;
	int saved = errno;
	own_result->type = msgctl(own_queue, IPC_RMID, NULL);
	errno = saved;
}

static void offered_in_a_handler_is_not_received(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = fork_child();
	if (pid == 0) {
		own_queue = id;
		own_result = r;
		struct sigaction act = { .sa_handler = send_to_own_queue };
		sigaction(SIGUSR1, &act, NULL);
		r->value = get_byte(id, 0, 0);
		r->error = errno;
		_exit(0);
	}
	wait_blocked(pid);
	kill(pid, SIGUSR1);
	join(pid);
	expect_result(r, -1, EINTR);
	expect_int(0, r->type);
	struct msqid_ds s = status_of(id);
	expect_int(1, s.msg_qnum);
	expect_int(pid, s.msg_lspid);
	expect_int(0, s.msg_lrpid);
	expect_int(0, s.msg_rtime);
}

static void offered_to_the_stopped_is_not_received(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	pid_t pid = blocked_receiver(r, id, 10, 0, 0);
	kill(pid, SIGSTOP);
	wait_state(pid, 'T');
	must(put_byte(id, 1, 'a', 0));
	struct msqid_ds s = status_of(id);
	expect_int(1, s.msg_qnum);
	expect_int(0, s.msg_lrpid);
	expect_int(0, s.msg_rtime);
	kill(pid, SIGCONT);
	join(pid);
	expect_result(r, 1, 0);
	expect_int(pid, status_of(id).msg_lrpid);
}

static void handler_removes_what_its_call_waits_for(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	set_qbytes(id, 1);
	must(put_byte(id, 1, 'f', 0));
	pid_t pid = fork_child();
	if (pid == 0) {
		own_queue = id;
		own_result = r;
		struct sigaction act = { .sa_handler = remove_own_queue, .sa_flags = SA_RESTART };
		sigaction(SIGUSR1, &act, NULL);
		r->value = put_byte(id, 1, 'g', 0);
		r->error = errno;
		_exit(0);
	}
	wait_blocked(pid);
	kill(pid, SIGUSR1);
	join(pid);
	expect_int(0, r->type);
	expect_result(r, -1, EINTR);
	expect_errno(EINVAL, put_byte(id, 1, 'h', IPC_NOWAIT));
}

/* A queue of user A that root has given to itself, and whose creator may still remove it. */
static int taken_over(void)
{
	int *id = shared_memory(sizeof *id);
	pid_t pid = fork_child();
	if (pid == 0) {
		become(A, A);
		*id = new_queue(0666);
		must(put(*id, 1, 300, 1, 0));
		_exit(0);
	}
	join(pid);
	struct msqid_ds s = status_of(*id);
	s.msg_perm.uid = 0;
	s.msg_perm.mode = 0606;
	s.msg_qbytes = 100;
	must(msgctl(*id, IPC_SET, &s));
	return *id;
}

static void remove_as_creator(int id)
{
	pid_t pid = fork_child();
	if (pid == 0) {
		become(A, A);
		/* With memory in hand for a message that did not fit. */
		expect_errno(EAGAIN, put(id, 1, 255, 1, IPC_NOWAIT));
		must(msgctl(id, IPC_RMID, NULL));
		_exit(0);
	}
	join(pid);
}

static void gone_is_gone_for_everybody(void)
{
	struct msqid_ds s;
	int id = taken_over();
	remove_as_creator(id);
	become(B, A);
	expect_errno(EINVAL, msgctl(index_of(id), MSG_STAT, &s));
	expect_errno(EINVAL, msgctl(index_of(id), MSG_STAT_ANY, &s));
	expect_errno(EINVAL, msgctl(id, IPC_STAT, &s));
	expect_errno(EINVAL, put_byte(id, 1, 'x', IPC_NOWAIT));
	expect_errno(EINVAL, get_byte(id, 0, IPC_NOWAIT));
	expect_errno(EINVAL, msgctl(id, IPC_RMID, NULL));
}

static void life_goes_on_after_a_foreign_removal(void)
{
	struct msginfo before, after;
	must(msgctl(0, MSG_INFO, (struct msqid_ds *)&before));
	int id = taken_over();
	remove_as_creator(id);
	must(msgctl(0, MSG_INFO, (struct msqid_ds *)&after));
	if (getenv("CHECK_OWN_NAMESPACE"))
		expect_int(before.msgpool, after.msgpool);
	for (int i = 0; i < 70; i++)
		expect_int(0, msgctl(create(), IPC_RMID, NULL));
}

static void sys_admin_controls_everything(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	if (!has_capability(CAP_SYS_ADMIN))
		skip("no CAP_SYS_ADMIN");
	int *id = shared_memory(2 * sizeof *id);
	pid_t pid = fork_child();
	if (pid == 0) {
		become(A, A);
		id[0] = new_queue(0666);
		id[1] = new_queue(0666);
		_exit(0);
	}
	join(pid);
	struct msqid_ds s = status_of(id[0]);
	expect_int(0, msgctl(id[0], IPC_SET, &s));
	expect_int(0, msgctl(id[0], IPC_RMID, NULL));
	must(capget(&header, data));
	data[0].effective &= ~(1u << CAP_SYS_ADMIN);
	must(capset(&header, data));
	expect_errno(EPERM, msgctl(id[1], IPC_SET, &s));
	expect_errno(EPERM, msgctl(id[1], IPC_RMID, NULL));
	expect_int(0, status_of(id[1]).msg_qnum);
	data[0].effective |= 1u << CAP_SYS_ADMIN;
	must(capset(&header, data));
	expect_int(0, msgctl(id[1], IPC_RMID, NULL));
}

static void two_senders_one_receiver(void)
{
	struct result *r = shared_memory(sizeof *r);
	for (int i = 0; i < 50; i++) {
		int id = new_queue(0600);
		pid_t receiver = blocked_receiver(r, id, 100, 0, 0), senders[2];
		for (int s = 0; s < 2; s++) {
			senders[s] = fork_child();
			if (senders[s] == 0)
				_exit(put(id, 1 + s, 40, 1 + (unsigned)s, 0) != 0);
		}
		join(receiver);
		join(senders[0]);
		join(senders[1]);
		expect_result(r, 40, 0);
		expect_true((r->type == 1 || r->type == 2) && text_is(r->text, 40, (unsigned)r->type));
		expect_int(1, status_of(id).msg_qnum);
		expect_int(0, msgctl(id, IPC_RMID, NULL));
	}
}

static void setting_the_same_moves_ctime_only(void)
{
	int id = new_queue(0640);
	must(put_byte(id, 1, 'a', 0));
	struct msqid_ds before = status_of(id), after;
	nap(1100000);
	after = before;
	expect_int(0, msgctl(id, IPC_SET, &after));
	after = status_of(id);
	expect_true(after.msg_ctime > before.msg_ctime);
	after.msg_ctime = before.msg_ctime;
	expect_same_status(before, after);
}

static void all_that_fit_alone_find_out(void)
{
	struct result *w = shared_memory(2 * sizeof *w);
	struct msg m;
	struct msqid_ds s;
	for (int at_once = 0; at_once < 2; at_once++) {
		int id = new_queue(0666);
		set_qbytes(id, at_once ? 9 : 64);
		if (!at_once)
			must(put(id, 9, 60, 9, 0));
		pid_t first = blocked_sender(&w[0], id, 56, 1), second = blocked_sender_as(NOBODY, &w[1], id, 53, 1);
		s = status_of(id);
		s.msg_perm.mode = 0600;
		s.msg_qbytes = 64;
		expect_int(0, msgctl(id, IPC_SET, &s));
		if (!at_once) {
			nap(5000);
			wait_blocked(second);
			expect_int(60, msgrcv(id, &m, 100, 9, IPC_NOWAIT));
		}
		join(first);
		/* It was woken then, and does not look up some time later. */
		expect_true(state_of(second) != 'S' || w[1].done);
		join(second);
		expect_result(&w[0], 0, 0);
		expect_result(&w[1], -1, EACCES);
		expect_int(56, status_of(id).__msg_cbytes);
		expect_int(0, msgctl(id, IPC_RMID, NULL));
	}
}

/* A child that blocks with a handler installed, and tells what came of it and whether the handler ran. */
static void count_signal(int number)
{
	(void)number;
	own_result->signals++;
}

static pid_t blocked_listener(struct result *r, int id, int sending)
{
	memset(r, 0, sizeof *r);
	pid_t pid = fork_child();
	if (pid == 0) {
		struct sigaction act = { .sa_handler = count_signal };
		own_result = r;
		sigaction(SIGUSR1, &act, NULL);
		r->value = sending ? put_byte(id, 2, 's', 0) : get_byte(id, 0, 0);
		r->error = errno;
		_exit(0);
	}
	wait_blocked(pid);
	return pid;
}

static void handed_message_wins_over_a_signal(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	for (int i = 0; i < 200; i++) {
		pid_t pid = blocked_listener(r, id, 0);
		must(put_byte(id, 1, 'm', 0));
		kill(pid, SIGUSR1);
		join(pid);
		expect_result(r, 'm', 0);
		expect_int(0, status_of(id).msg_qnum);
	}
}

static void removal_wins_over_a_signal(void)
{
	struct result *r = shared_memory(sizeof *r);
	for (int i = 0; i < 100; i++) {
		int id = new_queue(0600);
		pid_t pid = blocked_listener(r, id, 0);
		expect_int(0, msgctl(id, IPC_RMID, NULL));
		kill(pid, SIGUSR1);
		join(pid);
		expect_result(r, -1, EIDRM);
	}
}

static void signal_before_a_message_loses_nothing(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	for (int i = 0; i < 200; i++) {
		pid_t pid = blocked_listener(r, id, 0);
		kill(pid, SIGUSR1);
		must(put_byte(id, 1, 'm', 0));
		join(pid);
		expect_int(1, r->signals);
		if (r->value == 'm') {
			expect_int(0, status_of(id).msg_qnum);
		} else {
			expect_result(r, -1, EINTR);
			expect_int('m', get_byte(id, 0, IPC_NOWAIT));
		}
	}
}

static void signal_before_room_sends_once_or_not_at_all(void)
{
	struct result *r = shared_memory(sizeof *r);
	int id = new_queue(0600);
	set_qbytes(id, 1);
	for (int i = 0; i < 200; i++) {
		must(put_byte(id, 1, 'f', 0));
		pid_t pid = blocked_listener(r, id, 1);
		kill(pid, SIGUSR1);
		expect_int('f', get_byte(id, 1, IPC_NOWAIT));
		join(pid);
		if (r->value == 0) {
			expect_int('s', get_byte(id, 2, IPC_NOWAIT));
		} else {
			expect_result(r, -1, EINTR);
			expect_errno(ENOMSG, get_byte(id, 0, IPC_NOWAIT));
		}
		expect_int(0, status_of(id).msg_qnum);
	}
}

static const struct row rows[] = {
	ROW(indices_go_round),
	ROW(more_queues_make_a_longer_round),
	ROW(type_cut_in_two),
	ROW(padding_of_msginfo),
	ROW(copy_reads_as_much_as_msgmax),
	ROW(room_left_by_a_handover),
	ROW(all_that_fit_alone_are_let_go),
	ROW(offered_in_a_handler_is_not_received),
	ROW(offered_to_the_stopped_is_not_received),
	ROW(handler_removes_what_its_call_waits_for),
	ROW_ROOT(gone_is_gone_for_everybody),
	ROW_ROOT(life_goes_on_after_a_foreign_removal),
	ROW_ROOT(sys_admin_controls_everything),
	ROW(two_senders_one_receiver),
	ROW(setting_the_same_moves_ctime_only),
	ROW_ROOT(all_that_fit_alone_find_out),
	ROW_LONG(handed_message_wins_over_a_signal, 30),
	ROW_LONG(removal_wins_over_a_signal, 30),
	ROW_LONG(signal_before_a_message_loses_nothing, 30),
	ROW_LONG(signal_before_room_sends_once_or_not_at_all, 30),
};

CHECK_MAIN("semantics", rows)
