/*
 * receiver: prints what sender.c has sent, removes the queue at the end mark. The queue must be there already.
 *
 * The other side of sender.c, and kept as it is taught for the same reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/msg.h>

#define MSGKEY 51234

struct msgbuf {
    long mtype;
    char mtext[256];
};

int main()
{
    key_t key = MSGKEY;
    int msqid, n;
    struct msgbuf mb;

    /* get at the message queue */
    if ((msqid = msgget(key, 0666)) < 0) {
        perror("msgget");
        exit(1);
    }

    /* receive until the end mark */
    while ((n = msgrcv(msqid, &mb, sizeof(mb.mtext), 0, 0)) > 0) {
        switch (mb.mtype) {
        case 1:
            printf("received: %s\n", mb.mtext);
            break;
        case 2:
            printf("received the end mark\n");
            msgctl(msqid, IPC_RMID, NULL); /* remove the queue */
            return 0;
        }
    }

    return 0;
}
