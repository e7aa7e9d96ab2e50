/* app.c: a C program against the installed package. Sends itself a message and says through which library. */
#include <stdio.h>
#include <string.h>
#include <usysv.h>

struct message {
	long type;
	char text[16];
};

int main(void)
{
	struct message m = {7, "through C"};
	int id = msgget(IPC_PRIVATE, 0600);

	if (id == -1 || msgsnd(id, &m, sizeof m.text, 0) == -1) {
		perror("send");
		return 1;
	}
	memset(&m, 0, sizeof m);
	if (msgrcv(id, &m, sizeof m.text, 7, IPC_NOWAIT) != (ssize_t)sizeof m.text || msgctl(id, IPC_RMID, NULL) == -1) {
		perror("receive");
		return 1;
	}
	if (usysv_version() != USYSV_VERSION_NUMBER) {
		fprintf(stderr, "header %d, library %d\n", USYSV_VERSION_NUMBER, usysv_version());
		return 1;
	}
	printf("%s, preload %u\n", m.text, usysv_features() & USYSV_FEATURE_PRELOAD);
	return 0;
}
