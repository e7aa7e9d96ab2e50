/*
 * nosysv: runs a program on a kernel without System V IPC.
 *
 *     nosysv PROGRAM [ARGUMENT...]    run it so
 *     nosysv --probe                  make each of the calls and print what the kernel answers
 *     nosysv --messages PROGRAM ...   deny the calls of message queues only, and leave semaphores and shared memory in place
 *
 * A seccomp filter answers every System V IPC call with ENOSYS, as a kernel built without CONFIG_SYSVIPC does, and
 * is inherited by all that the program starts. What works in here works without the kernel's queues. The filter
 * covers the other call tables of the machine as well (32-bit and x32 programs on x86-64, 32-bit ARM on aarch64);
 * of a table it does not know it denies everything, so there is no way around it.
 *
 * Exit status: the program's own; 125 if the filter cannot be installed or does not hold, 126 or 127 if the
 * program cannot be run (as env and timeout do). --probe: 0 if every call was denied.
 *
 * Written in plain BPF: no libseccomp needed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A call table: which architecture's, a bit of the number to disregard, and the System V IPC calls in it. */
struct table {
    unsigned arch;
    unsigned disregard;
    unsigned count;
    unsigned calls[16];
    /* Those of them that are about messages, all of the old ipc call included. */
    unsigned messages_count;
    unsigned messages[8];
};

static const struct table tables[] = {
#if defined __x86_64__
    /* shmget shmat shmctl semget semop semctl shmdt msgget msgsnd msgrcv msgctl semtimedop. x32 calls carry the
     * same numbers and one bit more. */
    { AUDIT_ARCH_X86_64, 0x40000000, 12, { 29, 30, 31, 64, 65, 66, 67, 68, 69, 70, 71, 220 }, 4, { 68, 69, 70, 71 } },
    /* ipc, then (Linux 5.1) semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl
     * semtimedop_time64 */
    { AUDIT_ARCH_I386, 0, 12, { 117, 393, 394, 395, 396, 397, 398, 399, 400, 401, 402, 420 },
      5, { 117, 399, 400, 401, 402 } },
#elif defined __aarch64__
    /* msgget msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat shmdt */
    { AUDIT_ARCH_AARCH64, 0, 12, { 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197 },
      4, { 186, 187, 188, 189 } },
    /* ipc (old ABI), semop semget semctl msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl semtimedop
     * semtimedop_time64 */
    { AUDIT_ARCH_ARM, 0, 14, { 117, 298, 299, 300, 301, 302, 303, 304, 305, 306, 307, 308, 312, 420 },
      5, { 117, 301, 302, 303, 304 } },
#else
#error "nosysv does not know the system calls of this architecture"
#endif
};

/* What is called to see whether the filter holds. */
static const struct {
    const char *name;
    long number;
} probes[] = {
    { "msgget", SYS_msgget },
    { "msgsnd", SYS_msgsnd },
    { "msgrcv", SYS_msgrcv },
    { "msgctl", SYS_msgctl },
    { "semget", SYS_semget },
    { "semop", SYS_semop },
    { "semtimedop", SYS_semtimedop },
    { "semctl", SYS_semctl },
    { "shmget", SYS_shmget },
    { "shmat", SYS_shmat },
    { "shmdt", SYS_shmdt },
    { "shmctl", SYS_shmctl },
};

/* The first of them, and all there is with --messages. */
enum { MESSAGE_CALLS = 4 };
static int messages_only;

#define LOAD(field) \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(action) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, (action))
#define DENY (SECCOMP_RET_ERRNO | (ENOSYS & SECCOMP_RET_DATA))

/* Per table: skip it unless the architecture is its own; load the number, take the disregarded bit off, then a
 * comparison and an answer for each call, and at the end "allow". After the last table: deny. */
static unsigned write_filter(struct sock_filter *filter)
{
    unsigned n = 0;

    for (size_t t = 0; t < COUNT(tables); t++) {
        const struct table *table = &tables[t];
        const unsigned *calls = messages_only ? table->messages : table->calls;
        unsigned count = messages_only ? table->messages_count : table->count;

        filter[n++] = LOAD(arch);
        filter[n++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, table->arch, 1, 0);
        filter[n++] = (struct sock_filter) BPF_STMT(BPF_JMP | BPF_JA, 2 + 2 * count + 1);
        filter[n++] = LOAD(nr);
        filter[n++] = (struct sock_filter) BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~table->disregard);
        for (unsigned c = 0; c < count; c++) {
            filter[n++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[c], 0, 1);
            filter[n++] = ANSWER(DENY);
        }
        filter[n++] = ANSWER(SECCOMP_RET_ALLOW);
    }
    filter[n++] = ANSWER(DENY);
    return n;
}

/* 0, or -1 with errno. */
static int install(void)
{
    static struct sock_filter filter[COUNT(tables) * (6 + 2 * 16) + 1];
    struct sock_fprog program = { .len = (unsigned short)write_filter(filter), .filter = filter };

    /* What an ordinary user must promise before a filter is allowed. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* A call with the arguments -1, 0, 0, 0, 0, which do no harm where it is let through. By instruction, because a
 * preloaded library may answer for libc's syscall(). Returns the kernel's answer: -errno on failure. */
static long call(long number)
{
#if defined __x86_64__
    register long fourth __asm__("r10") = 0;
    register long fifth __asm__("r8") = 0;
    long answer = number;

    __asm__ volatile("syscall"
                     : "+a"(answer)
                     : "D"(-1L), "S"(0L), "d"(0L), "r"(fourth), "r"(fifth)
                     : "rcx", "r11", "memory");
    return answer;
#elif defined __aarch64__
    register long which __asm__("x8") = number;
    register long first __asm__("x0") = -1;
    register long second __asm__("x1") = 0;
    register long third __asm__("x2") = 0;
    register long fourth __asm__("x3") = 0;
    register long fifth __asm__("x4") = 0;

    __asm__ volatile("svc 0"
                     : "+r"(first)
                     : "r"(which), "r"(second), "r"(third), "r"(fourth), "r"(fifth)
                     : "memory");
    return first;
#endif
}

/* Makes each call and returns how many were not answered with ENOSYS. */
static int probe(int print)
{
    int let_through = 0;

    for (size_t p = 0; p < (messages_only ? MESSAGE_CALLS : COUNT(probes)); p++) {
        long answer = call(probes[p].number);

        if (print)
            printf("%-11s %s\n", probes[p].name, answer < 0 ? strerror((int)-answer) : "carried out");
        let_through += answer != -ENOSYS;
    }
    return let_through;
}

int main(int argc, char **argv)
{
    int print = argc == 2 && strcmp(argv[1], "--probe") == 0;
    int let_through;

    if (argc > 2 && strcmp(argv[1], "--messages") == 0) {
        messages_only = 1;
        argc--;
        argv++;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: nosysv [--messages] PROGRAM [ARGUMENT...] | nosysv --probe\n");
        return 125;
    }
    if (install() != 0) {
        fprintf(stderr, "nosysv: no seccomp filter here: %s\n", strerror(errno));
        return 125;
    }
    let_through = probe(print);
    if (let_through != 0) {
        fprintf(stderr, "nosysv: the filter lets %d calls through\n", let_through);
        return 125;
    }
    if (print)
        return 0;
    execvp(argv[1], argv + 1);
    fprintf(stderr, "nosysv: %s: %s\n", argv[1], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}
