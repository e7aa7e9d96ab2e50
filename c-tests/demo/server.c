/*
 * server: answers fifteen messages of the types 1 to 3, lowest type first, with type + 3 and data + 8.
 *
 * The other side of client.c, and kept as it is taught for the same reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/types.h>

/* The structure of the messages, the same for sender and receiver. */
struct q_entry {
    /* must be greater than 0; think of it as an id */
    long mtype;
    int data;
};

int main(void)
{
    int i, qid;
    key_t key;
    struct q_entry msg;

    key = ftok("key", 3);
    /* create the message queue */
    qid = msgget(key, IPC_CREAT | 0600);

    for (i = 0; i < 15; i++) {
        /* receive a message whose type is at most 3 (here: 1 to 3) */
        msgrcv(qid, &msg, sizeof(int), -3, 0);
        /* answer that client: its type + 3 */
        msg.mtype += 3;
        msg.data += 8;
        /* send; no flags, so this blocks while the queue is full */
        msgsnd(qid, &msg, sizeof(int), 0);
    }

    return 0;
}
