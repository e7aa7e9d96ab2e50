/*
 * A program that uses a queue and, asked to, does something wrong beside it: proof that a checker is at work.
 *
 *     spoilt none | heap | shift | uninitialised
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>

struct message {
	long type;
	char text[8];
};

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "none";
	struct message m = { 1, "hello" };
	int id = msgget(IPC_PRIVATE, 0600);
	char *p = malloc(sizeof m);

	if (id < 0 || !p || msgsnd(id, &m, 5, 0) != 0 || msgrcv(id, p, sizeof m.text, 0, 0) != 5 || msgctl(id, IPC_RMID, NULL) != 0) {
		perror("spoilt");
		return 3;
	}
	if (!strcmp(what, "heap"))
		p[sizeof m + (size_t)argc] = 1; /* beyond the end */
	else if (!strcmp(what, "shift"))
		printf("%d\n", 1 << (30 + argc)); /* by 32 */
	else if (!strcmp(what, "uninitialised") && ((volatile struct message *)(void *)p)->text[6] == 'x')
		puts("what nobody wrote"); /* the message had five bytes */
	free(p);
	puts("spoilt: to the end");
	return 0;
}
