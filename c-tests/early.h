#ifndef EARLY_H
#define EARLY_H

/* Leave a message of this type in the queue with the key CHECK_LIFE; nothing where that is not set. */
void early_note(long type);

#endif
