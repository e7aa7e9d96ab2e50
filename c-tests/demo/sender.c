/*
 * sender: puts a greeting (type 1) and an end mark (type 2) into the queue of a fixed key.
 *
 * One of the programs people learn message queues from, kept as it is taught; see client.c. It defines its own
 * struct msgbuf, as <sys/msg.h> does under _GNU_SOURCE: compile it without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>

#define MSGKEY 51234

struct msgbuf {
    long mtype;
    char mtext[256];
};

int main()
{
    key_t key = MSGKEY;
    int msqid;
    struct msgbuf mb;

    /* create the message queue */
    if ((msqid = msgget(key, IPC_CREAT | 0666)) < 0) {
        perror("msgget");
        exit(1);
    }

    /* send a message with data */
    mb.mtype = 1;
    strcpy(mb.mtext, "Hello Message Queue!");
    msgsnd(msqid, &mb, strlen(mb.mtext) + 1, 0);

    /* send the end mark */
    mb.mtype = 2;
    mb.mtext[0] = '\0';
    msgsnd(msqid, &mb, 1, 0);

    return 0;
}
