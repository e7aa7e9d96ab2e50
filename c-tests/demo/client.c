/*
 * client ID: reads five numbers, sends each as a message of type ID and prints the answer of type ID + 3.
 *
 * One of the programs people learn message queues from, kept as it is taught: plain <sys/msg.h>, no error
 * checks, and where there is no file "key" the key is ftok's -1. Only the includes are added. Do not mend it:
 * that such programs run unchanged is what the demonstration shows.
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

int main(int argc, char **argv)
{
    int i, qid, in, id;
    key_t key;
    struct q_entry msg;

    id = atoi(argv[1]);

    key = ftok("key", 3);
    /* create the message queue */
    qid = msgget(key, IPC_CREAT | 0600);

    for (i = 0; i < 5; i++) {
        scanf("%d", &in);
        /* set the type */
        msg.mtype = id;
        msg.data = in;
        /* send; no flags, so this blocks while the queue is full */
        msgsnd(qid, &msg, sizeof(int), 0);
        /* receive a message of type id + 3 */
        msgrcv(qid, &msg, sizeof(int), id + 3, 0);
        printf("%d\n", msg.data);
    }

    return 0;
}
