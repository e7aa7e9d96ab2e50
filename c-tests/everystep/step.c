/*
 * step.c: runs the victim instruction by instruction.
 */
#define _GNU_SOURCE
#include "../state.h"
#include "everystep.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
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

/* The same for a call that may sleep: then it is left asleep, running, and `slept` is set. */
bool step_or_sleep(bool *slept)
{
	int status;
	if (ptrace(PTRACE_SINGLESTEP, victim_pid, NULL, NULL) != 0)
		return false;
	for (int turns = 1;; turns++) {
		pid_t there = waitpid(victim_pid, &status, WNOHANG);
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
		if (there != victim_pid || WIFEXITED(status) || WIFSIGNALED(status)) {
			victim_pid = 0;
			return false;
		}
		return true;
	}
}

/* Stops a victim that sleeps, by a signal that it has not got yet. */
void interrupt(int sig)
{
	int status;
	if (victim_pid > 0) {
		kill(victim_pid, sig);
		await(&status);
	}
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
		for (int turns = 1; (there = waitpid(victim_pid, &status, release ? WNOHANG : 0)) == 0; turns++) {
			usleep(200);
			if (turns % 25 == 0)
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
